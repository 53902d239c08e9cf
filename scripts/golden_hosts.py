"""The cases of ``golden.py`` that train by other libraries' loops, and by the loss alone."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from golden_cases import CLASSES, B, convolutional, distilled, images, targets
from golden_record import Golden
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import multimix as mm

METHODS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "named": lambda: "multimix-balanced",
    "mixup": mm.Mixup,
    "dense": mm.DenseMultiMix,
    "until": lambda: mm.Until(mm.ManifoldMixup(stages=(0,)), 0.5),
    "alternate": lambda: mm.Alternate((mm.Mixup(), mm.CutMix())),
    "distilled": distilled(mm.MultiMix),
    "distilled-mix": distilled(mm.CutMix, teacher="mix"),
    "learned": mm.AdaMixUp,
}
NAMES = {"encoder": "body", "head": "out"}


def hosts(golden: Golden) -> None:
    """Every host."""
    for host in (_loss, _inputs, _lightning, _transformers, _sklearn):
        with golden.case(f"host/{host.__name__[1:]}"):
            host(golden)


def _loss(golden: Golden) -> None:
    """MultiMix in place of cross-entropy, twice in training mode and once in eval mode."""
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.5])
    settings: list[dict[str, Any]] = [{}, {"seed": 3}, {"weight": weight, "seed": 3}, {"ignore_index": 255}]
    settings += [{"label_smoothing": 0.1}, {"weight": weight, "label_smoothing": 0.1, "ignore_index": 255, "seed": 1}]
    settings += [{"method": "multimix-balanced"}, {"method": mm.MultiMix(8)}, {"reduction": "sum"}, {"alpha": 0.5}]
    settings += [{"tuples": 16, "balanced": False}, {"clean": 0.5, "confidence": 0.8}, {"impl": "plain"}]
    for i, given in enumerate(settings):
        for kind in ("hard", "soft", "ignored", "map", "soft-map"):
            for dtype in (torch.float32, torch.float64):
                with golden.case(name := f"loss/{i}/{kind}/{str(dtype)[6:]}"):
                    _losses(golden, name, mm.MultiMixLoss(**given), *_logits(kind, dtype))


def _logits(kind: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    logits = 2 * targets("values", dtype)
    if not kind.endswith("map"):
        return logits, targets(kind, dtype)
    maps = torch.stack([logits, logits.flip(1), logits.cos(), logits.sin()], -1).reshape(B, CLASSES, 2, 2)
    return maps, (maps.flip(1).softmax(1) if kind == "soft-map" else targets("map")[:, :2, :2])


def _losses(golden: Golden, name: str, criterion: nn.Module, logits: Tensor, labels: Tensor) -> None:
    for at, mode in enumerate((True, True, False)):
        criterion.train(mode)
        given = logits.clone().requires_grad_()
        found = criterion(given, labels)
        found.backward()
        golden.add(f"{name}/{at}", [found, given.grad])


def _train(golden: Golden, name: str, model: nn.Module, criterion: nn.Module, mix: Callable) -> None:
    """Take two steps with inputs that a host mixes."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for at in range(2):
        inputs, labels = mix(images(), targets("hard"))
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        golden.add(f"{name}/{at}", [loss, inputs, labels])
    golden.add(f"{name}/weights", list(model.state_dict().values()))


def _inputs(golden: Golden) -> None:
    """What mixes inputs for timm's and torchvision's loops."""
    from multimix.integrations.timm import TimmMixup
    from multimix.integrations.torchvision import MixCollate, MixTransform

    for cls in (*mm.methods.METHODS, METHODS["alternate"], lambda: None):
        title = getattr(cls, "name", "alternate" if cls is METHODS["alternate"] else "none")
        for seed in (None, 3):
            for networked in (False, True):
                with golden.case(name := f"timm/{title}/{seed}/{networked}"):
                    model = convolutional()
                    network = mm.adapt(model, **NAMES) if networked else None
                    given = {"num_classes": CLASSES, "seed": seed, "network": network}
                    mix = TimmMixup(cls(), prob=0.9, label_smoothing=0.1, **given)
                    _train(golden, name, model, nn.CrossEntropyLoss(), mix)
                with golden.case(name := f"torchvision/transform/{title}/{seed}/{networked}"):
                    model = convolutional()
                    network = mm.adapt(model, **NAMES) if networked else None
                    mix = MixTransform(cls(), num_classes=CLASSES, seed=seed, network=network)
                    _train(golden, name, model, nn.CrossEntropyLoss(), mix)
            with golden.case(name := f"torchvision/collate/{title}/{seed}"):
                collate = MixCollate(cls(), num_classes=CLASSES, seed=seed)
                data = TensorDataset(images(), targets("hard"))
                for at, (inputs, labels) in enumerate(DataLoader(data, batch_size=4, collate_fn=collate)):
                    golden.add(f"{name}/{at}", [inputs, labels])


def _lightning(golden: Golden) -> None:
    """A module of ours, and a callback beside somebody's module; four steps, then two more from the checkpoint."""
    from lightning import pytorch as pl

    from multimix.integrations.lightning import MultiMixCallback, MultiMixModule

    class Own(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = convolutional()

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = DataLoader(TensorDataset(images(), targets("hard")), batch_size=4)

    def trainer(folder: str, epochs: int, *callbacks: Any) -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        options = {**quiet, "max_epochs": epochs, "enable_checkpointing": False, "default_root_dir": folder}
        return pl.Trainer(callbacks=list(callbacks), **options)

    def fit(name: str, make: Callable[[], tuple[Any, list[Any]]]) -> None:
        with golden.case(name), tempfile.TemporaryDirectory() as folder:
            module, callbacks = make()
            first = trainer(folder, 2, *callbacks)
            first.fit(module, data)
            golden.add(f"{name}/metrics", {key: float(value) for key, value in first.callback_metrics.items()})
            golden.add(f"{name}/weights", list(module.model.state_dict().values()))
            first.save_checkpoint(f"{folder}/saved.ckpt")
            module, callbacks = make()
            trainer(folder, 3, *callbacks).fit(module, data, ckpt_path=f"{folder}/saved.ckpt")
            golden.add(f"{name}/resumed", list(module.model.state_dict().values()))

    for name, method in METHODS.items():
        fit(
            f"lightning/module/{name}",
            lambda m=method: (MultiMixModule(mm.adapt(convolutional(), **NAMES), m(), seed=3), []),
        )
        fit(f"lightning/callback/{name}", lambda m=method: (Own(), [MultiMixCallback(m(), seed=3, **NAMES)]))


def _transformers(golden: Golden) -> None:
    """Hugging Face's Trainer on sentences and on images."""
    import transformers as hf

    from multimix.integrations.transformers import MultiMixTrainer

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    tokens = torch.randint(1, 20, (B, 7), generator=torch.Generator().manual_seed(5))
    mask = (torch.arange(7) < torch.tensor([7, 3, 5, 1, 7, 2, 6, 4]).unsqueeze(1)).long()
    rows = list(zip(tokens * mask, mask, images(), targets("hard").tolist(), strict=True))
    words = [{"input_ids": t, "attention_mask": m, "labels": y} for t, m, _, y in rows]
    pictures = [{"pixel_values": x, "labels": y} for _, _, x, y in rows]
    bert = hf.BertConfig(vocab_size=20, max_position_embeddings=16, num_labels=CLASSES, **sizes)
    vit = hf.ViTConfig(image_size=16, patch_size=8, num_labels=CLASSES, **sizes)
    kinds = {
        "bert": (lambda: hf.BertForSequenceClassification(bert), words),
        "vit": (lambda: hf.ViTForImageClassification(vit), pictures),
    }
    for name, method in METHODS.items():
        for kind, (make, data) in kinds.items():
            case = f"transformers/{kind}/{name}"
            with golden.case(case), tempfile.TemporaryDirectory() as folder:
                options = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
                options |= {"per_device_train_batch_size": 4, "num_train_epochs": 1, "use_cpu": True, "seed": 3}
                arguments = hf.TrainingArguments(output_dir=folder, learning_rate=0.05, **options)
                trainer = MultiMixTrainer(make(), arguments, method=method(), train_dataset=data)
                trainer.remove_callback(hf.PrinterCallback)
                golden.add(f"{case}/loss", trainer.train().training_loss)
                golden.add(f"{case}/weights", list(trainer.model.state_dict().values()))


def _sklearn(golden: Golden) -> None:
    """Estimators on a small table."""
    from multimix.integrations.sklearn import MultiMixClassifier, MultiMixRegressor

    table = images().flatten(1)[:, :48].reshape(48, 8).double().numpy()
    labels, values = (table[:, 0] > 0) * 1 + (table[:, 1] > 0), table[:, :2].sum(1)
    options = {"hidden": (9,), "epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}
    for name, method in METHODS.items():
        for kind, cls, wanted in (("classes", MultiMixClassifier, labels), ("values", MultiMixRegressor, values)):
            for held in (0.0, 0.25):
                with golden.case(case := f"sklearn/{kind}/{name}/{held}"):
                    fitted = cls(method=method(), validation=held, **options).fit(table, wanted)
                    found = fitted.predict_proba(table) if kind == "classes" else fitted.predict(table)
                    golden.add(f"{case}/predictions", torch.from_numpy(found))
                    golden.add(f"{case}/curve", [float(value) for value in fitted.loss_curve_])
