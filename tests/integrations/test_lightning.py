import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, StackDataset, TensorDataset

import multimix as mm
from integrations.judged import SEVERAL, objectives, of_weighted, right

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the host's own imports
    from lightning import pytorch as pl
    from lightning.pytorch.tuner import Tuner

    from integrations.fitted import SPLIT, Own, Recorder, fit, loader, sgd, trainer_of, with_callback, with_module
    from multimix.integrations.lightning import MultiMixCallback, MultiMixModule

HINTS = ("does not have many workers", "is smaller than the logging interval", "GPU available but not used")
HINTS += (
    "You defined a `validation_step` but have no",
    "Checkpoint directory .* exists and",
    "LeafSpec.*is deprecated",
)
pytestmark = [pytest.mark.filterwarnings(f"ignore:.*{hint}") for hint in HINTS]

F = nn.functional


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
    assert loaded.learning_rate == 0.01


def test_loads_its_numbers_and_a_methods_name_with_the_model(toy, tmp_path):
    module = MultiMixModule(toy.adapt(toy.model), "cutmix", learning_rate=0.02, weight_decay=0.3, seed=5)
    fit(module, loader(toy), epochs=1)[1].save_checkpoint(file := tmp_path / "last.ckpt")
    loaded = MultiMixModule.load_from_checkpoint(file, model=toy.adapt(toy.twin), weights_only=True)
    assert (loaded.method, loaded.learning_rate, loaded._weight_decay, loaded._seed) == (mm.CutMix(), 0.02, 0.3, 5)
    assert torch.equal(loaded(toy.images), module(toy.images))


def test_schedule_of_ones_own_is_given_the_steps_and_stepped_after_each(toy):
    given = {"scheduler": lambda optimizer, steps: torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps)}
    module = MultiMixModule(toy.adapt(toy.model), mm.Mixup(), learning_rate=0.4, weight_decay=0.3, **given)
    _, trainer = fit(module, loader(toy), seen := Recorder(), epochs=1)
    assert seen.rates == pytest.approx(np.array([[0.3], [0.2], [0.1], [0.0]]))
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == 0.3


def test_generator_follows_the_seed_of_the_trainer(toy, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    monkeypatch.setattr(pl.LightningModule, "global_rank", 2)  # which is added, for a seed of 3
    expected = toy.own_loop(toy.adapt(toy.twin), mm.Mixup(), toy.batches * 2)
    losses, _ = fit(MultiMixModule(toy.adapt(toy.model), mm.Mixup(), optimizer=sgd), loader(toy))
    assert losses == pytest.approx(expected, abs=1e-6)


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


@pytest.mark.bad_input
def test_bad_arguments_are_named(toy):
    with pytest.raises(TypeError, match=r"method must be a method .* got 3"):
        MultiMixModule(toy.adapt(toy.model), 3)
    with pytest.raises(ValueError, match="unknown method 'mixupp'; did you mean"):
        MultiMixCallback("mixupp")
    several = mm.adapt(copy.deepcopy(toy.model), **SPLIT, objective=mm.BinaryCrossEntropy())
    smoothed = mm.CrossEntropy(label_smoothing=0.2)
    for kind, said, options in (
        (TypeError, r"objective must be an Objective .*, got CrossEntropyLoss", {"objective": nn.CrossEntropyLoss()}),
        (ValueError, r"objective CrossEntropy.* contradicts that of the network, Bin", {"objective": smoothed}),
        (ValueError, "weight_decay must be left out with an optimizer", {"optimizer": sgd, "weight_decay": 0.1}),
        (ValueError, "learning_rate must be at least 0, got -1", {"learning_rate": -1}),
        (TypeError, "seed must be an integer or None, got 0.5", {"seed": 0.5}),
        (TypeError, r"optimizer must be a function or None, got SGD", {"optimizer": sgd(toy.model.parameters())}),
        (TypeError, "scheduler must be a function or None, got 'cosine'", {"scheduler": "cosine"}),
    ):
        with pytest.raises(kind, match=said):
            MultiMixModule(several, **options)
    form = r"batch must be a pair .* or a mapping with 'labels', got"
    for kind, said, data, unpack in (
        (ValueError, r"unpack must return \(inputs, targets\), .*, got Tensor", None, lambda batch: batch[0]),
        (TypeError, "weights must be a tensor, got list", None, lambda batch: (batch[0], SEVERAL[:9], [1.0] * 9)),
        (ValueError, f"{form} dict of x, label; pass unpack=", StackDataset(x=toy.images, label=toy.labels), None),
        (ValueError, f"{form} list of Tensor; pass unpack=", TensorDataset(toy.images), None),
    ):
        with pytest.raises(kind, match=said):
            fit(MultiMixModule(several, unpack=unpack), loader(toy, data))
    own, manual = Own(toy.model), Own(toy.model)
    manual.automatic_optimization = False
    for given, callback, said in (
        (own, MultiMixCallback(mm.Mixup(), model="net"), r"model must name a module of Own \(model\), got 'net'"),
        (own, MultiMixCallback(mm.methods.AdaMixUp(), **SPLIT), "method adamixup learns parameters of its own"),
        (manual, MultiMixCallback(mm.Mixup(), **SPLIT), "automatic_optimization"),
        (MultiMixModule(several, "cutmix"), MultiMixCallback(), r"got MultiMixModule with CutMix\("),
    ):
        with pytest.raises(ValueError, match=said):
            fit(given, loader(toy), callback)


@objectives
@pytest.mark.parametrize("size", [7, 9])
def test_values_of_an_epoch_are_those_of_one_pass(toy, objective, targets, loss, hits, size):
    data = DataLoader(TensorDataset(toy.images, targets), batch_size=size)
    module, trainer = MultiMixModule(toy.adapt(toy.model), mm.Mixup(), objective=objective), trainer_of()
    logits = toy.twin(toy.images)
    expected = {"loss": loss(logits, targets).item()}
    if hits is not None:
        expected["accuracy"] = hits(logits, targets).double().mean().item()
    for stage, measure in (("val", trainer.validate), ("test", trainer.test)):
        [found] = measure(module, data, verbose=False)
        assert found == pytest.approx({f"{stage}_{name}": value for name, value in expected.items()}, abs=1e-5)
    one, two = trainer.test(module, [data, data], verbose=False)
    assert one["test_loss/dataloader_idx_0"] == two["test_loss/dataloader_idx_1"] == found["test_loss"]


def test_label_maps_are_judged_by_their_known_positions(toy):
    maps = toy.labels.repeat(36, 4, 1).reshape(36, 12, 12).clone()
    maps[:5], maps[7, 2] = -100, -100
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1))
    network = mm.adapt(model, encoder="0", head="1", dense=True, objective=mm.CrossEntropy(ignore_index=-100))
    data, logits = DataLoader(TensorDataset(toy.images, maps), batch_size=7), model(toy.images)
    [found] = trainer_of().test(MultiMixModule(network, mm.DenseMultiMix(tuples=20)), data, verbose=False)
    expected = F.cross_entropy(logits, maps).item(), right(logits, maps).double().mean().item()
    assert (found["test_loss"], found["test_accuracy"]) == pytest.approx(expected, abs=1e-6)


def test_first_of_two_views_is_judged(toy):
    views = DataLoader([((x, -x), y) for x, y in zip(toy.images, toy.labels, strict=True)], batch_size=9)
    module = MultiMixModule(toy.adapt(toy.model), toy.methods["distilled"]())
    [found] = trainer_of().test(module, views, verbose=False)
    assert found["test_loss"] == pytest.approx(F.cross_entropy(toy.twin(toy.images), toy.labels).item(), abs=1e-6)
    torch.testing.assert_close(torch.cat(trainer_of().predict(module, views)), toy.twin(toy.images))


@ways
@objectives
def test_objective_is_trained_for(toy, way, objective, targets, loss, hits):
    toy.batches = list(zip(toy.images.split(9), targets.split(9), strict=True))[1:]
    expected = toy.train(toy.twin, toy.batches, loss)
    toy.images, toy.labels = toy.images[9:], targets[9:]
    assert way(toy, mm.ERM(), epochs=1, objective=objective)[0] == pytest.approx(expected, abs=1e-6)


@ways
def test_weights_of_examples(toy, way):
    weights = torch.rand(36).index_fill_(0, torch.arange(9), 0)  # none of the first batch counts
    toy.labels = torch.stack([toy.labels.float(), weights], 1)

    def unpack(batch):
        return batch[0], batch[1][:, 0].long(), batch[1][:, 1]

    batches = list(zip(toy.images.split(9), toy.labels.split(9), strict=True))
    whole = of_weighted(toy.twin(toy.images), toy.labels).item()
    module = MultiMixModule(toy.adapt(toy.model), mm.ERM(), unpack=unpack)
    [found] = trainer_of().test(module, loader(toy), verbose=False)
    assert found["test_loss"] == pytest.approx(whole, abs=1e-6)
    hits = (toy.twin(toy.images).argmax(1) == toy.labels[:, 0]) * weights
    assert found["test_accuracy"] == pytest.approx((hits.sum() / weights.sum()).item(), abs=1e-6)
    expected = toy.train(toy.twin, batches, of_weighted)
    assert way(toy, mm.ERM(), epochs=1, unpack=unpack)[0] == pytest.approx(expected, abs=1e-6)


@ways
@pytest.mark.parametrize("unpack", [None, lambda batch: (batch["image"], batch["label"])], ids=["by keys", "unpacked"])
def test_mappings_are_batches(toy, way, unpack):
    expected = toy.own_loop(toy.adapt(toy.twin), mm.Mixup(), toy.batches)
    data = StackDataset(**{"image": toy.images, "label" if unpack else "labels": toy.labels})
    assert way(toy, mm.Mixup(), epochs=1, data=data, unpack=unpack)[0] == pytest.approx(expected, abs=1e-6)


def test_predicts_with_and_without_targets(toy):
    module = MultiMixModule(toy.adapt(toy.model), mm.Mixup())
    unpacking = MultiMixModule(toy.adapt(toy.model), unpack=lambda batch: (batch["x"], batch["y"]))
    for module_, data in (
        (module, TensorDataset(toy.images, toy.labels)),
        (module, TensorDataset(toy.images)),
        (module, toy.images),
        (module, StackDataset(image=toy.images, labels=toy.labels)),
        (module, StackDataset(image=toy.images)),
        (unpacking, StackDataset(x=toy.images, y=toy.labels)),
    ):
        found = trainer_of().predict(module_, DataLoader(data, batch_size=7))
        torch.testing.assert_close(torch.cat(found), toy.twin(toy.images))


@ways
@pytest.mark.parametrize(
    ("precision", "dtype", "close"), [("64-true", torch.float64, 1e-7), ("bf16-true", torch.bfloat16, 1e-4)]
)
def test_a_teacher_has_the_precision_of_the_trainer(toy, way, precision, dtype, close):
    twin = toy.adapt(toy.twin.to(dtype))
    batches = [(images.to(dtype), labels) for images, labels in toy.batches]
    expected = toy.own_loop(twin, toy.methods["distilled"](), batches)
    losses, _ = way(toy, toy.methods["distilled"](), epochs=1, precision=precision)
    assert losses == pytest.approx(expected, rel=close)


def test_layers_that_are_unfrozen_later_follow_the_schedule(toy):
    class Unfreeze(pl.callbacks.BaseFinetuning):
        def freeze_before_training(self, module):
            self.freeze(module.model.body)

        def finetune_function(self, module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(module.model.body, optimizer, lr=0.5)

    module = MultiMixModule(toy.adapt(toy.model), mm.Mixup(), learning_rate=0.1)
    fit(module, loader(toy), Unfreeze(), seen := Recorder())
    shares = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(1, 9)]
    assert [rate[0] for rate in seen.rates] == pytest.approx([0.1 * share for share in shares])
    assert [rate[1] for rate in seen.rates[4:]] == pytest.approx([0.5 * share for share in shares[4:]])


@pytest.mark.parametrize("optimizer", [None, sgd], ids=["adamw", "own"])
@pytest.mark.parametrize("method", ["multimix", "distilled"])
def test_learning_rate_is_found_and_used(toy, tmp_path, optimizer, method):
    module = MultiMixModule(toy.adapt(toy.model), toy.methods[method](), optimizer=optimizer, seed=3)
    trainer = trainer_of(epochs=30, default_root_dir=tmp_path)
    found = Tuner(trainer).lr_find(module, loader(toy), num_training=30, max_lr=0.1).suggestion()
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict())
    assert module.learning_rate == found
    _, trainer = fit(module, loader(toy), epochs=1)
    assert trainer.optimizers[0].param_groups[0].get("initial_lr", found) == found
    assert trainer.optimizers[0].param_groups[0]["lr"] <= found


def test_learning_rate_is_found_by_the_callback(toy, tmp_path):
    module = MultiMixModule(toy.adapt(toy.model), mm.Mixup(), seed=3)
    finder = pl.callbacks.LearningRateFinder(num_training_steps=30, max_lr=0.1)
    fit(module, loader(toy), finder, seen := Recorder(), epochs=8, default_root_dir=tmp_path)
    assert module.learning_rate == finder.optimal_lr.suggestion() != 1e-3
    assert seen.rates[15] == pytest.approx([module.learning_rate / 2])  # half a cosine over 32 steps
    own = Own(toy.model)
    own.lr = 0.1
    with pytest.warns(UserWarning, match="LearningRateFinder sets MultiMixCallback aside"):
        fit(own, loader(toy), finder, MultiMixCallback(mm.Mixup(), **SPLIT), epochs=8, default_root_dir=tmp_path)


@pytest.mark.parametrize("learned", [mm.methods.AdaMixUp, lambda: mm.SelfDistilled(mm.MultiMix())])
def test_checkpoint_serves_all_but_training_with_any_method(toy, tmp_path, learned):
    module = MultiMixModule(toy.adapt(toy.model), learned(), learning_rate=0.01)
    before = [p.clone() for p in module.learners.parameters()]
    _, trainer = fit(module, loader(toy), epochs=1)
    assert not before or any(map(torch.Tensor.any, map(torch.sub, before, module.learners.parameters())))
    trainer.save_checkpoint(file := tmp_path / "last.ckpt")
    expected = toy.model(toy.images)
    said = "checkpoint is of another method: of .*, not of Mixup; the model is loaded"
    for use in (pl.Trainer.validate, pl.Trainer.test, pl.Trainer.predict):
        module = MultiMixModule(toy.adapt(copy.deepcopy(toy.twin)), mm.Mixup())
        with pytest.warns(UserWarning, match=said):
            use(trainer_of(), module, loader(toy), ckpt_path=file)
        torch.testing.assert_close(module(toy.images), expected)
    with pytest.warns(UserWarning, match=said):
        loaded = MultiMixModule.load_from_checkpoint(file, model=toy.adapt(toy.twin), method="mixup", weights_only=True)
    torch.testing.assert_close(loaded(toy.images), expected)
    with pytest.raises(ValueError, match=r"checkpoint is of another method: of \w+.*, not of Mixup$"):
        fit(loaded, loader(toy), ckpt_path=file)


def test_checkpoint_of_another_method_is_refused_or_said_to_be(toy, tmp_path):
    file = tmp_path / "last.ckpt"
    with_callback(toy, toy.methods["distilled"](), epochs=1)[1].save_checkpoint(file)
    with pytest.raises(ValueError, match="checkpoint is of another method"):
        with_callback(toy, mm.Mixup(), ckpt_path=file)
    fit(Own(toy.model), loader(toy), epochs=1)[1].save_checkpoint(file)
    with pytest.warns(UserWarning, match="the checkpoint has no state of MultiMixCallback"):
        with_callback(toy, toy.methods["distilled"](), ckpt_path=file)
    with_module(toy, mm.Mixup(), epochs=1)[1].save_checkpoint(file)
    with pytest.warns(UserWarning, match="the checkpoint is of Mixup, and training goes on with CutMix"):
        with_module(toy, mm.CutMix(), ckpt_path=file)


def test_objects_serve_twice(toy):
    """One method in two modules, one callback in two trainers, one module fitted twice."""
    method = mm.SelfDistilled(mm.Mixup())
    other = copy.deepcopy(toy.twin)
    expected, _ = with_module(toy, method)
    twice = MultiMixModule(toy.adapt(toy.twin), method, optimizer=sgd, seed=3)
    assert fit(twice, loader(toy))[0] == pytest.approx(expected, abs=1e-6)
    assert twice.method is not method
    fit(twice, loader(toy), epochs=1)
    assert twice.method.ema.updates == 12
    callback, start = MultiMixCallback(method, seed=3, **SPLIT), copy.deepcopy(other)
    for module in (Own(other), Own(start)):
        assert fit(module, loader(toy), callback)[0] == pytest.approx(expected, abs=1e-6)
        assert callback.state_dict()["learners"][0]["ema.updates"] == 8
    fit(module, loader(toy), callback, epochs=1)
    assert callback.state_dict()["learners"][0]["ema.updates"] == 12
    trainer_of(callback).test(MultiMixModule(toy.adapt(other)), loader(toy), verbose=False)
    assert callback.state_dict() == {}
