import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import SequentialSampler

import multimix as mm
from integrations.drawn import of_two_processes
from integrations.judged import SEVERAL, objectives, of_weighted
from parallel.together import together

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the host's own imports
    import transformers as hf

    from multimix.integrations._training import TrainingMethod
    from multimix.integrations.transformers import STATE_FILE, MultiMixTrainer

HINTS = ("ignore:.*pin_memory.*", "ignore::DeprecationWarning:transformers", "ignore::DeprecationWarning:accelerate")
F = nn.functional
pytestmark = [pytest.mark.filterwarnings(hint) for hint in HINTS]

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "num_labels": 4}
SMALL |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class InOrder(MultiMixTrainer):
    """Takes the examples in order, as the plain loop does."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


class Own(nn.Module):
    """Somebody's model, which neither library knows."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values, labels=None):
        logits = self.inner(pixel_values)
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}


SPLIT = {"encoder": "body", "head": "out"}
VIT = {"encoder": "vit", "head": "classifier", "pool": lambda features: features[:, 0]}


def names(model):
    """What ``multimix.adapt`` has to be told of the models here."""
    if isinstance(model, Own):
        return {"encoder": "inner.body", "head": "inner.out"}
    return VIT if hasattr(model, "vit") else {}


def bert():
    return hf.BertForSequenceClassification(hf.BertConfig(vocab_size=20, max_position_embeddings=8, **SMALL))


def vit():
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=12, patch_size=4, **SMALL))


@pytest.fixture
def images(toy):
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(toy.images, toy.labels, strict=True)]


@pytest.fixture
def sentences():
    """Six tokens, padded, whose first one tells the class."""
    tokens = torch.randint(4, 20, (36, 6))
    labels = torch.arange(36) % 4
    tokens[:, 0] = labels
    mask = (torch.arange(6) < torch.randint(3, 7, (36, 1))).long()
    columns = zip(tokens, mask, labels, strict=True)
    return [{"input_ids": ids, "attention_mask": seen, "labels": int(label)} for ids, seen, label in columns]


def settings(folder, **options):
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    plain = {"lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0, "seed": 3, "use_cpu": True}
    given = {"per_device_train_batch_size": 9, "num_train_epochs": 2, "learning_rate": 0.05}
    return hf.TrainingArguments(output_dir=str(folder), **{**quiet, **plain, **given, **options})


class Losses(hf.TrainerCallback):
    def __init__(self):
        self.found = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.found.append(logs["loss"])


def fit(model, data, method, folder, *, resume=None, objective=None, **options):
    losses = Losses()
    args = settings(folder, logging_strategy="steps", logging_steps=1, **options)
    given = {"model": model, "args": args, "train_dataset": data, "callbacks": [losses]}
    if method is None:  # the host's own
        trainer = type("Plain", (hf.Trainer,), {"_get_train_sampler": InOrder._get_train_sampler})(**given)
    else:
        trainer = InOrder(method=method, objective=objective, **given, **names(model))
    trainer.train(resume_from_checkpoint=resume)
    return losses.found, trainer


def batches_of(data):
    """What the method is given of examples in batches of 9."""
    keys = [key for key in data[0] if key != "labels"]
    for start in range(0, len(data), 9):
        batch = data[start : start + 9]
        inputs = {key: torch.stack([example[key] for example in batch]) for key in keys}
        labels = torch.tensor([example["labels"] for example in batch])
        yield inputs["pixel_values"] if keys == ["pixel_values"] else inputs, labels


def check_parity(toy, model, data, method, folder, *, accumulate=1, **options):
    twin = copy.deepcopy(model).train()
    net = mm.adapt(twin, **names(model))
    expected = toy.own_loop(net, method(), list(batches_of(data)) * 2, accumulate=accumulate)
    losses, _ = fit(model, data, method(), folder, gradient_accumulation_steps=accumulate, **options)
    assert losses == pytest.approx(np.reshape(expected, (-1, accumulate)).mean(1), abs=1e-6)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_equals_the_own_loop(toy, images, tmp_path, method, accumulate):
    check_parity(toy, vit(), images, method, tmp_path, accumulate=accumulate)


@pytest.mark.parametrize("method", ["multimix", "distilled"])
def test_text_equals_the_own_loop(toy, sentences, tmp_path, method):
    check_parity(toy, bert(), sentences, toy.methods[method], tmp_path)


def test_models_of_ones_own_equal_the_own_loop(toy, images, tmp_path):
    check_parity(toy, Own(toy.model), images, mm.Mixup, tmp_path)
    check_parity(toy, toy.adapt(toy.twin), images, toy.methods["distilled"], tmp_path)


class Other(Own):
    """One that takes no labels."""

    def forward(self, pixel_values):
        return self.inner(pixel_values)


class Silent(Own):
    """One that takes a label and returns no loss."""

    def forward(self, image, label=None):
        return self.inner(image)


OWN = {
    "its input by name": Other,
    "no loss": Silent,
    "by another name": nn.Sequential,
    "a network": lambda m: mm.adapt(m, **SPLIT),
}


@pytest.mark.parametrize("wrap", OWN.values(), ids=OWN.keys())
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_models_without_labels_train_evaluate_and_predict(toy, images, tmp_path, wrap, share):
    options = {"label_smoothing_factor": share, "per_device_eval_batch_size": 7}
    expected = toy.train(toy.twin, toy.batches * 2, lambda x, y: F.cross_entropy(x, y, label_smoothing=share))
    losses, trainer = fit(wrap(toy.model), images, mm.ERM(), tmp_path, **options)
    assert losses == pytest.approx(expected, abs=1e-6)
    logits = toy.twin(toy.images).detach()
    loss = F.cross_entropy(logits, toy.labels, label_smoothing=share).item()
    assert trainer.evaluate(images)["eval_loss"] == pytest.approx(loss, abs=1e-6)
    found = trainer.predict(images)
    np.testing.assert_allclose(found.predictions, logits, atol=1e-5)
    np.testing.assert_array_equal(found.label_ids, toy.labels)
    unlabelled = trainer.predict([{"pixel_values": image} for image in toy.images])
    np.testing.assert_array_equal(unlabelled.predictions, found.predictions)
    assert "test_loss" not in unlabelled.metrics


@pytest.mark.parametrize("wrap", [Other, Own, lambda _: vit()], ids=["no labels", "labels", "known"])
@objectives
def test_objective_is_trained_and_judged_by(toy, tmp_path, wrap, objective, targets, loss, hits):
    model = wrap(toy.model)
    twin = copy.deepcopy(model)
    plain = twin.inner if isinstance(twin, Own) else Logits(twin)
    data = [{"pixel_values": x, "labels": y} for x, y in zip(toy.images, targets, strict=True)]
    batches = list(zip(toy.images.split(9), targets.split(9), strict=True))[1:]
    expected = toy.train(plain, batches, loss)
    options = {"objective": objective, "per_device_eval_batch_size": 7, "num_train_epochs": 1}
    losses, trainer = fit(model, data[9:], mm.ERM(), tmp_path, **options)
    assert losses == pytest.approx(expected, abs=1e-6)
    whole = loss(plain(toy.images), targets).item()
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "rows", "loss"),
    [
        (None, torch.eye(4)[torch.arange(36) % 4].long(), lambda x, y: F.cross_entropy(x, y.double())),
        ("multi_label_classification", SEVERAL.long(), lambda x, y: F.binary_cross_entropy_with_logits(x, y.double())),
    ],
    ids=["one-hot", "labels"],
)
@pytest.mark.parametrize("name", ["labels", "target"])
def test_integers_and_labels_by_another_name_are_judged_as_they_are_trained_on(toy, tmp_path, kind, rows, loss, name):
    model = vit()
    model.config.problem_type = kind
    data = [{"pixel_values": x, name: y} for x, y in zip(toy.images, rows, strict=True)]
    args = settings(tmp_path, label_names=[name], per_device_eval_batch_size=7, num_train_epochs=1)
    trainer = MultiMixTrainer(model, args, method=mm.MultiMix(tuples=8), train_dataset=data, **VIT)
    trainer.train()
    found = trainer.evaluate(data)["eval_loss"]
    assert found == pytest.approx(loss(model.eval()(toy.images).logits.double(), rows).item(), abs=1e-6)


class Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).logits


@pytest.mark.parametrize("wrap", [Other, lambda _: vit()], ids=["no labels", "known"])
def test_weights_of_examples(toy, images, tmp_path, wrap):
    model = wrap(toy.model)
    plain = copy.deepcopy(model.inner) if isinstance(model, Own) else Logits(copy.deepcopy(model))
    weights = torch.rand(36).index_fill_(0, torch.arange(9), 0)  # none of the first batch counts
    data = [{**row, "sample_weight": float(weight)} for row, weight in zip(images, weights, strict=True)]

    both = torch.stack([toy.labels.float(), weights], 1)
    expected = toy.train(plain, list(zip(toy.images.split(9), both.split(9), strict=True)) * 2, of_weighted)
    losses, trainer = fit(model, data, mm.ERM(), tmp_path)
    assert losses == pytest.approx(expected, abs=1e-6)
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(of_weighted(plain(toy.images), both).item(), abs=1e-6)


def test_trains_twice(toy, images, tmp_path):
    for make, count in ((toy.methods["distilled"], 16), (mm.methods.AdaMixUp, None)):
        _, trainer = fit(Other(copy.deepcopy(toy.model)), images, make(), tmp_path)
        groups = len(trainer.optimizer.param_groups)
        trainer.train()
        assert len(trainer.optimizer.param_groups) == groups
        assert count is None or trainer.method.ema.updates == count


def test_evaluation_and_prediction_are_the_hosts_own(sentences, tmp_path):
    given = {"model": bert(), "args": settings(tmp_path), "eval_dataset": sentences}
    ours, theirs = MultiMixTrainer(method=mm.MultiMix(tuples=64), **given), hf.Trainer(**given)
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-6)
    np.testing.assert_array_equal(ours.predict(sentences).predictions, theirs.predict(sentences).predictions)


@pytest.mark.parametrize("method", ["mixup", "multimix"])
def test_two_processes_average_their_gradients_and_resume(toy, images, tmp_path, method):
    """Each mixes every other batch, with a generator of its own."""
    found = together(2, of_two_processes, toy.model, images, toy.methods[method](), tmp_path)
    model, mixing, losses = Own(toy.twin), toy.methods[method](), []
    net, generators = mm.adapt(model, **names(model)), [torch.Generator().manual_seed(3 + rank) for rank in range(2)]
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.05), list(batches_of(images)) * 2
    for at in range(0, len(batches), 2):
        pairs = zip(batches[at : at + 2], generators, strict=True)
        loss = torch.stack([mixing(net, *batch, generator=own).total for batch, own in pairs]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for answer in found:
        torch.testing.assert_close(answer["weights"], list(model.parameters()), atol=1e-6, rtol=0)
        torch.testing.assert_close(answer["resumed"], list(model.parameters()), atol=1e-6, rtol=0)
        assert answer["losses"] in ([], pytest.approx(losses, abs=1e-6))  # which the main process alone logs


def test_generator_of_another_kind_of_device_starts_from_the_seed(toy):
    training, losses = TrainingMethod("mixup", toy.adapt(toy.model)), []
    for _ in range(2):
        training.start(3, "cpu")
        losses.append(training(*toy.batches[0]).total)
        state = training.state_dict()
        state["generator"]["device"] = "cuda"
        training.load_state_dict(state)
    assert losses[0] == losses[1]


def test_resumes_where_it_was_with_its_teacher(toy, images, tmp_path):
    def run(folder, **options):
        return fit(Own(copy.deepcopy(toy.model)), images, toy.methods["distilled"](), folder, **options)

    whole, trainer = run(tmp_path / "whole", save_strategy="epoch")
    rest, resumed = run(tmp_path / "rest", resume=str(tmp_path / "whole" / "checkpoint-4"))
    assert rest == pytest.approx(whole[4:], abs=1e-6)
    torch.testing.assert_close(resumed.model.state_dict(), trainer.model.state_dict())
    torch.testing.assert_close(resumed.method.ema.state_dict(), trainer.method.ema.state_dict())
    state = torch.load(tmp_path / "whole" / "checkpoint-4" / STATE_FILE, weights_only=True)
    assert state["learners"][0]["ema.updates"] == 4


@pytest.mark.bad_input
def test_finds_its_last_checkpoint_and_refuses_another_methods(toy, images, tmp_path):
    model, method = Own(toy.model), toy.methods["distilled"]
    fit(model, images, method(), tmp_path, save_strategy="epoch", num_train_epochs=1)
    losses, trainer = fit(model, images, method(), tmp_path, resume=True)
    assert len(losses) == 4
    assert trainer.method.ema.updates == 8
    with pytest.raises(ValueError, match="checkpoint is of another method"):
        fit(model, images, mm.Mixup(), tmp_path, resume=True)
    (tmp_path / "checkpoint-4" / STATE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no {STATE_FILE} in .*checkpoint-4"):
        fit(model, images, mm.Mixup(), tmp_path, resume=True)


def test_smooths_labels_as_the_host_does(images, tmp_path):
    model, options = vit(), {"label_smoothing_factor": 0.2}
    ours, theirs = (fit(copy.deepcopy(model), images, method, tmp_path, **options)[0] for method in (mm.ERM(), None))
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_half_precision_and_a_model_that_is_made_late(images, tmp_path):
    model = vit()
    half, full = (fit(copy.deepcopy(model), images, mm.ERM(), tmp_path, bf16=bf16)[0] for bf16 in (True, False))
    assert half == pytest.approx(full, rel=0.1)
    assert half != pytest.approx(full, rel=1e-5)
    options = settings(tmp_path, num_train_epochs=1)
    late = MultiMixTrainer(args=options, method="mixup", model_init=vit, train_dataset=images, **VIT)
    late.train()
    first = late.model
    late.train()
    assert late.model is not first
    torch.testing.assert_close(late.model.state_dict(), first.state_dict())


def test_learned_method_is_trained_with_the_model(images, tmp_path):
    _, trainer = fit(vit(), images, mm.methods.AdaMixUp(), tmp_path, num_train_epochs=1)
    learned = {p for p in trainer.method.parameters() if p.requires_grad}
    assert set() < learned <= {p for group in trainer.optimizer.param_groups for p in group["params"]}


@pytest.mark.bad_input
def test_bad_arguments_are_named(images, tmp_path, monkeypatch):
    options = settings(tmp_path)
    with pytest.raises(TypeError, match=r"method must be a method .* got 3"):
        MultiMixTrainer(model=vit(), args=options, **VIT, method=3)
    with pytest.raises(ValueError, match="compute_loss_func must be left out"):
        MultiMixTrainer(model=vit(), args=options, **VIT, method=mm.Mixup(), compute_loss_func=print)
    for given, said in (
        (
            {"objective": mm.BinaryCrossEntropy()},
            r"must be 0 for BinaryCrossEntropy\(.*\), got 0.1: it smooths classes",
        ),
        ({"objective": mm.CrossEntropy(label_smoothing=0.3)}, r"must be 0 for CrossEntropy\(.*\), got 0.1"),
    ):
        with pytest.raises(ValueError, match=f"args.label_smoothing_factor {said}"):
            MultiMixTrainer(vit(), settings(tmp_path, label_smoothing_factor=0.1), **VIT, **given)
    unlabelled = [{"pixel_values": example["pixel_values"]} for example in images]
    with pytest.raises(ValueError, match="inputs must hold 'labels' to train with a method, got pixel_values"):
        fit(vit(), unlabelled, mm.Mixup(), tmp_path)
    model = vit()
    given = {"optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None), "train_dataset": images}
    trainer = MultiMixTrainer(model=model, args=options, method=mm.methods.AdaMixUp(), **given, **VIT)
    with pytest.raises(ValueError, match="optimizers must be left out: method adamixup learns parameters"):
        trainer.train()
    with monkeypatch.context() as several:
        several.setattr(type(options), "world_size", property(lambda self: 2))
        with pytest.raises(ValueError, match="args must train in one process: method adamixup learns parameters"):
            MultiMixTrainer(model=vit(), args=options, **VIT, method=mm.methods.AdaMixUp())
    monkeypatch.setattr(type(options), "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match=r"args must give each process one device .* got 2 GPUs; start a process for"):
        MultiMixTrainer(model=vit(), args=options, **VIT, method=mm.Mixup())
