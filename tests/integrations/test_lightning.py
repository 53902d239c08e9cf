import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import multimix as mm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the host's own imports
    from lightning import pytorch as pl

    from multimix.integrations.lightning import MultiMixCallback, MultiMixModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
]

METHODS = {
    "multimix": lambda: mm.MultiMix(tuples=32),
    "mixup": mm.Mixup,
    "distilled": lambda: mm.SelfDistilled(mm.MultiMix(tuples=32), momentum=0.5),
    "until": lambda: mm.Until(mm.CutMix(), fraction=0.5),
}


class Recorder(pl.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())


class Own(pl.LightningModule):
    """Somebody's module, which knows nothing of this library."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.05)


def loader(toy):
    return DataLoader(TensorDataset(toy.images, toy.labels), batch_size=9)


def fit(module, toy, *callbacks, epochs=2, ckpt_path=None, **options):
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=options.pop("enable_checkpointing", False),
        callbacks=[recorder, *callbacks],
        **options,
    )
    trainer.fit(module, loader(toy), ckpt_path=ckpt_path)
    # Lightning divides what it reports by the batches that share a step.
    return [loss * options.get("accumulate_grad_batches", 1) for loss in recorder.losses], trainer


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def by_hand(toy, method, *, epochs=2, accumulate=1):
    optimizer = sgd(toy.twin.parameters())
    steps = epochs * len(toy.batches) // accumulate
    return toy.own_loop(
        toy.adapt(toy.twin), method, toy.batches * epochs, optimizer, seed=3, accumulate=accumulate, steps=steps
    )


def with_module(toy, method, **options):
    return fit(MultiMixModule(toy.adapt(toy.model), method, optimizer=sgd, seed=3), toy, **options)


def with_callback(toy, method, **options):
    return fit(Own(toy.model), toy, MultiMixCallback(method, encoder="body", head="out", seed=3), **options)


WAYS = {"module": with_module, "callback": with_callback}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_equals_the_own_loop(toy, way, method, accumulate):
    expected = by_hand(toy, method(), accumulate=accumulate)
    losses, _ = way(toy, method(), accumulate_grad_batches=accumulate)
    assert losses == pytest.approx(expected, abs=1e-6)
    for mine, theirs in zip(toy.model.parameters(), toy.twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_loss_falls(toy, way):
    before = nn.functional.cross_entropy(toy.model(toy.images), toy.labels).item()
    losses, _ = way(toy, mm.MultiMix(tuples=32), epochs=12)
    assert len(losses) == 48
    assert nn.functional.cross_entropy(toy.model(toy.images), toy.labels).item() < 0.8 * before


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_resumes_where_it_was(toy, way, tmp_path):
    distilled = METHODS["distilled"]
    start = copy.deepcopy(toy.model.state_dict())
    whole, _ = way(toy, distilled(), epochs=4)
    final = copy.deepcopy(toy.model.state_dict())

    toy.model.load_state_dict(start)
    _, trainer = way(toy, distilled(), epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    toy.model.load_state_dict(start)
    rest, _ = way(toy, distilled(), epochs=4, ckpt_path=tmp_path / "half.ckpt")

    assert len(rest) == 8
    assert rest == pytest.approx(whole[8:], abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), final)


def test_checkpoint_callback_saves_the_teacher_of_the_same_step(toy, tmp_path):
    saver = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    callback = MultiMixCallback(METHODS["distilled"](), encoder="body", head="out", seed=3)
    fit(Own(toy.model), toy, saver, callback, epochs=1, enable_checkpointing=True)
    saved = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    [state] = [v for k, v in saved["callbacks"].items() if "MultiMixCallback" in k]
    assert state["learners"][0]["ema.updates"] == 3


def test_module_leads_the_teacher_and_logs(toy):
    module = MultiMixModule(toy.adapt(toy.model), METHODS["distilled"](), learning_rate=0.01)
    _, trainer = fit(module, toy, epochs=3)
    assert all(name.startswith("network.") for name in module.state_dict())
    assert module.method.ema.updates == trainer.global_step == 12
    assert module.model is toy.model
    assert {"train_loss", "train_labels", "train_teacher"} <= set(trainer.callback_metrics)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_module_loads_from_a_checkpoint_with_its_teacher(toy, tmp_path):
    module = MultiMixModule(toy.adapt(toy.model), METHODS["distilled"](), optimizer=sgd)
    _, trainer = fit(module, toy, epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MultiMixModule.load_from_checkpoint(
        tmp_path / "last.ckpt", model=toy.adapt(toy.twin), method=METHODS["distilled"](), weights_only=True
    )
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())
    torch.testing.assert_close(loaded.method.ema.state_dict(), module.method.ema.state_dict())
    assert torch.equal(loaded(toy.images), module(toy.images))


def test_module_validates_and_tests_clean_inputs(toy):
    module = MultiMixModule(toy.adapt(toy.model), mm.Mixup())
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    [validated] = trainer.validate(module, loader(toy), verbose=False)
    [tested] = trainer.test(module, loader(toy), verbose=False)
    logits = toy.twin(toy.images)
    expected = (logits.argmax(-1) == toy.labels).float().mean().item()
    assert validated["val_accuracy"] == tested["test_accuracy"] == pytest.approx(expected)
    assert tested["test_loss"] == pytest.approx(nn.functional.cross_entropy(logits, toy.labels).item(), abs=1e-5)


def test_generator_follows_the_seed_of_the_trainer(toy, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    expected = by_hand(toy, mm.MultiMix(tuples=32))
    losses, _ = fit(MultiMixModule(toy.adapt(toy.model), mm.MultiMix(tuples=32), optimizer=sgd), toy)
    assert losses == pytest.approx(expected, abs=1e-6)


def test_learned_method_is_trained_with_the_model(toy):
    module = MultiMixModule(toy.adapt(toy.model), mm.methods.AdaMixUp(), learning_rate=0.01)
    before = [p.clone() for p in module.learners.parameters()]
    fit(module, toy, epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.learners.parameters(), strict=True))


def test_callback_gives_training_step_back(toy):
    module = Own(toy.model)
    fit(module, toy, MultiMixCallback(mm.Mixup(), encoder="body", head="out"), epochs=1)
    assert "training_step" not in vars(module)
    assert module.training_step.__func__ is Own.training_step


def test_callback_gives_training_step_back_after_an_error(toy):
    module = Own(toy.model)
    toy.labels = toy.labels + 100
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3"):
        fit(module, toy, MultiMixCallback(mm.Mixup(), encoder="body", head="out"), epochs=1)
    assert "training_step" not in vars(module)


def test_unpacks_other_batches(toy):
    class Named(TensorDataset):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return {"image": image, "label": label}

    module = MultiMixModule(
        toy.adapt(toy.model), mm.Mixup(), unpack=lambda batch: (batch["image"], batch["label"]), optimizer=sgd, seed=3
    )
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module, DataLoader(Named(toy.images, toy.labels), batch_size=9))
    by_hand(toy, mm.Mixup(), epochs=1)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict())


@pytest.mark.bad_input
def test_bad_arguments_are_named(toy):
    with pytest.raises(TypeError, match=r"method must be a method .* got 3"):
        MultiMixModule(toy.adapt(toy.model), 3)
    with pytest.raises(ValueError, match="unknown method 'mixupp'; did you mean"):
        MultiMixCallback("mixupp")
    with pytest.raises(ValueError, match=r"model must name a module of Own \(model\), got 'net'"):
        fit(Own(toy.model), toy, MultiMixCallback(mm.Mixup(), model="net"))
    with pytest.raises(ValueError, match="method adamixup learns parameters of its own"):
        fit(Own(toy.model), toy, MultiMixCallback(mm.methods.AdaMixUp(), encoder="body", head="out"))
    manual = Own(toy.model)
    manual.automatic_optimization = False
    with pytest.raises(ValueError, match="automatic_optimization"):
        fit(manual, toy, MultiMixCallback(mm.Mixup(), encoder="body", head="out"))
    unlabelled = DataLoader(TensorDataset(toy.images), batch_size=9)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    with pytest.raises(ValueError, match=r"batch must be a pair \(inputs, targets\), got list; pass unpack="):
        trainer.fit(MultiMixModule(toy.adapt(toy.model)), unlabelled)


@pytest.mark.bad_input
def test_checkpoint_of_another_method_is_refused(toy, tmp_path):
    _, trainer = with_callback(toy, METHODS["distilled"](), epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="checkpoint is of another method"):
        with_callback(toy, mm.Mixup(), epochs=2, ckpt_path=tmp_path / "last.ckpt")
