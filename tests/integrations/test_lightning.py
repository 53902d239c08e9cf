import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, StackDataset, TensorDataset

import multimix as mm
from multimix.integrations._training import TrainingMethod

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the host's own imports
    from lightning import pytorch as pl

    from multimix.integrations.lightning import MultiMixCallback, MultiMixModule

HINTS = ("does not have many workers", "is smaller than the logging interval", "GPU available but not used")
HINTS += (
    "You defined a `validation_step` but have no",
    "Checkpoint directory .* exists and",
    "LeafSpec.*is deprecated",
)
pytestmark = [pytest.mark.filterwarnings(f"ignore:.*{hint}") for hint in HINTS]

SPLIT = {"encoder": "body", "head": "out"}


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
        return sgd(self.model.parameters())


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def loader(toy):
    return DataLoader(TensorDataset(toy.images, toy.labels), batch_size=9)


def trainer_of(*callbacks, epochs=2, **options):
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", **{**off, **options})


def fit(module, data, *callbacks, ckpt_path=None, **options):
    recorder = Recorder()
    trainer = trainer_of(recorder, *callbacks, **options)
    trainer.fit(module, data, ckpt_path=ckpt_path)  # which reports losses divided by the batches that share a step
    return [loss * options.get("accumulate_grad_batches", 1) for loss in recorder.losses], trainer


def with_module(toy, method, **options):
    return fit(MultiMixModule(toy.adapt(toy.model), method, optimizer=sgd, seed=3), loader(toy), **options)


def with_callback(toy, method, **options):
    return fit(Own(toy.model), loader(toy), MultiMixCallback(method, seed=3, **SPLIT), **options)


ways = pytest.mark.parametrize("way", [with_module, with_callback])


@ways
@pytest.mark.parametrize("accumulate", [1, 2])
def test_equals_the_own_loop(toy, way, method, accumulate):
    expected = toy.own_loop(toy.adapt(toy.twin), method(), toy.batches * 2, accumulate=accumulate)
    losses, _ = way(toy, method(), accumulate_grad_batches=accumulate)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict(), atol=1e-6, rtol=0)


@ways
def test_resumes_where_it_was(toy, way, tmp_path):
    distilled = toy.methods["distilled"]
    start = copy.deepcopy(toy.model.state_dict())
    whole, _ = way(toy, distilled(), epochs=4)
    toy.twin.load_state_dict(toy.model.state_dict())
    toy.model.load_state_dict(start)
    _, trainer = way(toy, distilled(), epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    toy.model.load_state_dict(start)
    rest, _ = way(toy, distilled(), epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert rest == pytest.approx(whole[8:], abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict())


def test_checkpoint_callback_saves_the_teacher_of_the_same_step(toy, tmp_path):
    saver = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    callback = MultiMixCallback(toy.methods["distilled"](), seed=3, **SPLIT)
    fit(Own(toy.model), loader(toy), saver, callback, epochs=1, enable_checkpointing=True)
    saved = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    [state] = [state for name, state in saved["callbacks"].items() if "MultiMixCallback" in name]
    assert state["learners"][0]["ema.updates"] == 3


def test_module_follows_logs_and_loads_from_a_checkpoint_with_its_teacher(toy, tmp_path):
    distilled = toy.methods["distilled"]
    module = MultiMixModule(toy.adapt(toy.model), distilled(), learning_rate=0.01)
    _, trainer = fit(module, loader(toy), epochs=3)
    assert all(name.startswith("network.") for name in module.state_dict())
    assert module.method.ema.updates == trainer.global_step == 12
    assert module.model is toy.model
    assert {"train_loss", "train_labels", "train_teacher"} <= set(trainer.callback_metrics)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)

    trainer.save_checkpoint(file := tmp_path / "last.ckpt")
    given = {"model": toy.adapt(toy.twin), "method": distilled(), "weights_only": True}
    loaded = MultiMixModule.load_from_checkpoint(file, **given)
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())
    torch.testing.assert_close(loaded.method.ema.state_dict(), module.method.ema.state_dict())
    assert torch.equal(loaded(toy.images), module(toy.images))


def test_schedule_of_ones_own_is_given_the_steps_and_stepped_after_each(toy):
    def scheduler(optimizer, steps):
        assert steps == 4
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    module = MultiMixModule(toy.adapt(toy.model), mm.Mixup(), scheduler=scheduler, learning_rate=0.5, weight_decay=0.3)
    _, trainer = fit(module, loader(toy), epochs=1)
    [group] = trainer.optimizers[0].param_groups
    assert (group["initial_lr"], group["lr"], group["weight_decay"]) == (0.5, 0.1, 0.3)


def test_module_validates_and_tests_clean_inputs(toy):
    module, trainer = MultiMixModule(toy.adapt(toy.model), mm.Mixup()), trainer_of()
    logits = toy.twin(toy.images)
    accuracy = (logits.argmax(-1) == toy.labels).float().mean().item()
    loss = nn.functional.cross_entropy(logits, toy.labels).item()
    for name, measure in (("val", trainer.validate), ("test", trainer.test)):
        [found] = measure(module, loader(toy), verbose=False)
        assert found == pytest.approx({f"{name}_accuracy": accuracy, f"{name}_loss": loss}, abs=1e-5)


def test_generator_follows_the_seed_of_the_trainer(toy, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    monkeypatch.setattr(pl.LightningModule, "global_rank", 2)  # which is added, for a seed of 3
    expected = toy.own_loop(toy.adapt(toy.twin), mm.Mixup(), toy.batches * 2)
    losses, _ = fit(MultiMixModule(toy.adapt(toy.model), mm.Mixup(), optimizer=sgd), loader(toy))
    assert losses == pytest.approx(expected, abs=1e-6)


def test_generator_of_another_kind_of_device_starts_from_the_seed(toy):
    training, losses = TrainingMethod("mixup", toy.adapt(toy.model)), []
    for _ in range(2):
        training.start(3, "cpu")
        losses.append(training(*toy.batches[0]).total)
        state = training.state_dict()
        state["generator"]["device"] = "cuda"
        training.load_state_dict(state)
    assert losses[0] == losses[1]


def test_learned_method_is_trained_with_the_model(toy):
    module = MultiMixModule(toy.adapt(toy.model), mm.methods.AdaMixUp(), learning_rate=0.01)
    before = [p.clone() for p in module.learners.parameters()]
    fit(module, loader(toy), epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.learners.parameters(), strict=True))


def test_callback_gives_training_step_back_after_an_error_too(toy):
    module = Own(toy.model)
    mixup = MultiMixCallback(mm.Mixup(), **SPLIT)
    fit(module, loader(toy), mixup, epochs=1)
    assert "training_step" not in vars(module)
    module.training_step = own = lambda batch, batch_idx: module.model(batch[0]).mean()
    toy.labels = toy.labels + 100
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3"):
        fit(module, loader(toy), mixup, epochs=1)
    assert module.training_step is own


def test_unpacks_other_batches(toy):
    data = DataLoader(StackDataset(image=toy.images, label=toy.labels), batch_size=9)
    options = {"unpack": lambda batch: (batch["image"], batch["label"]), "seed": 3}
    expected = toy.own_loop(toy.adapt(toy.twin), mm.Mixup(), toy.batches)
    net = toy.adapt(copy.deepcopy(toy.model))
    assert fit(MultiMixModule(net, mm.Mixup(), optimizer=sgd, **options), data, epochs=1)[0] == pytest.approx(expected)
    callback = MultiMixCallback(mm.Mixup(), **SPLIT, **options)
    assert fit(Own(toy.model), data, callback, epochs=1)[0] == pytest.approx(expected)


@pytest.mark.bad_input
def test_bad_arguments_are_named(toy):
    with pytest.raises(TypeError, match=r"method must be a method .* got 3"):
        MultiMixModule(toy.adapt(toy.model), 3)
    with pytest.raises(ValueError, match="unknown method 'mixupp'; did you mean"):
        MultiMixCallback("mixupp")
    own, manual = Own(toy.model), Own(toy.model)
    manual.automatic_optimization = False
    for module, callback, said in (
        (own, MultiMixCallback(mm.Mixup(), model="net"), r"model must name a module of Own \(model\), got 'net'"),
        (own, MultiMixCallback(mm.methods.AdaMixUp(), **SPLIT), "method adamixup learns parameters of its own"),
        (manual, MultiMixCallback(mm.Mixup(), **SPLIT), "automatic_optimization"),
    ):
        with pytest.raises(ValueError, match=said):
            fit(module, loader(toy), callback)
    unlabelled = DataLoader(TensorDataset(toy.images), batch_size=9)
    with pytest.raises(ValueError, match=r"batch must be a pair \(inputs, targets\), got list; pass unpack="):
        fit(MultiMixModule(toy.adapt(toy.model)), unlabelled)


@pytest.mark.bad_input
def test_checkpoint_of_another_method_is_refused(toy, tmp_path):
    _, trainer = with_callback(toy, toy.methods["distilled"](), epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="checkpoint is of another method"):
        with_callback(toy, mm.Mixup(), epochs=2, ckpt_path=tmp_path / "last.ckpt")
