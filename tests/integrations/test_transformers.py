import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import SequentialSampler

import multimix as mm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the host's own imports
    import transformers as hf

    from multimix.integrations.transformers import STATE_FILE, MultiMixTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:accelerate"),
]

METHODS = {
    "multimix": lambda: mm.MultiMix(tuples=32),
    "mixup": mm.Mixup,
    "distilled": lambda: mm.SelfDistilled(mm.MultiMix(tuples=32), momentum=0.5),
    "until": lambda: mm.Until(mm.Mixup(), fraction=0.5),
}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 4,
}


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


def first_token(features):
    return features[:, 0]


VIT = {"encoder": "vit", "head": "classifier", "pool": first_token}


def names(model):
    """What ``multimix.adapt`` has to be told of the models here."""
    if isinstance(model, Own):
        return {"encoder": "inner.body", "head": "inner.out"}
    return VIT if hasattr(model, "vit") else {}


class Words(nn.Module):
    """A network for mappings, by hand: the mean of the embeddings of the tokens that are there."""

    head = None

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(20, 16), nn.Linear(16, 4)
        self.stages = range(1)

    def embed(self, inputs):
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        return ((self.table(inputs["input_ids"]) * mask).sum(1) / mask.sum(1)).unsqueeze(1)

    def pool(self, features):
        return features.mean(1)

    def classify(self, embeddings):
        return self.out(embeddings)

    def mixing_at(self, stage, mix):
        raise NotImplementedError

    def forward(self, inputs=None, input_ids=None, attention_mask=None, labels=None):
        given = {"input_ids": input_ids, "attention_mask": attention_mask} if inputs is None else inputs
        logits = self.classify(self.pool(self.embed(given)))
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def bert():
    """A BERT, where ``multimix.adapt`` knows it."""
    config = hf.BertConfig(vocab_size=20, max_position_embeddings=8, **SMALL)
    model = hf.BertForSequenceClassification(config)
    try:
        mm.adapt(model)
    except ValueError as error:
        pytest.skip(f"no adaptor yet: {error}"[:80])
    return model


def vit():
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=12, patch_size=4, **SMALL))


@pytest.fixture
def pictures(toy):
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(toy.images, toy.labels, strict=True)]


@pytest.fixture
def sentences():
    """Six tokens, padded, whose first one tells the class."""
    tokens = torch.randint(4, 20, (36, 6))
    labels = torch.arange(36) % 4
    tokens[:, 0] = labels
    mask = (torch.arange(6) < torch.randint(3, 7, (36, 1))).long()
    return [
        {"input_ids": t, "attention_mask": m, "labels": int(y)} for t, m, y in zip(tokens, mask, labels, strict=True)
    ]


def settings(folder, **options):
    given = {
        "per_device_train_batch_size": 9,
        "num_train_epochs": 2,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "seed": 3,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    return hf.TrainingArguments(output_dir=str(folder), **{**given, **options})


class Losses(hf.TrainerCallback):
    def __init__(self):
        self.found = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.found.append(logs["loss"])


def fit(model, data, method, folder, *, resume=None, **options):
    losses = Losses()
    trainer = InOrder(
        model=model,
        args=settings(folder, logging_strategy="steps", logging_steps=1, **options),
        method=method,
        train_dataset=data,
        callbacks=[losses],
        **names(model),
    )
    trainer.train(resume_from_checkpoint=resume)
    return losses.found, trainer


def by_hand(toy, model, data, method, *, epochs=2, accumulate=1):
    model = copy.deepcopy(model).train()
    keys = [key for key in data[0] if key != "labels"]
    batches = []
    for start in range(0, len(data), 9):
        some = data[start : start + 9]
        inputs = {key: torch.stack([example[key] for example in some]) for key in keys}
        labels = torch.tensor([example["labels"] for example in some])
        batches.append((inputs["pixel_values"] if keys == ["pixel_values"] else inputs, labels))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps = epochs * len(batches) // accumulate
    losses = toy.own_loop(
        mm.adapt(model, **names(model)), method, batches * epochs, optimizer, seed=3, accumulate=accumulate, steps=steps
    )
    return np.reshape(losses, (-1, accumulate)).mean(1), model


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_equals_the_own_loop(toy, pictures, tmp_path, method, accumulate):
    model = vit()
    expected, twin = by_hand(toy, model, pictures, method(), accumulate=accumulate)
    losses, _ = fit(model, pictures, method(), tmp_path, gradient_accumulation_steps=accumulate)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [Words, bert])
@pytest.mark.parametrize("method", ["multimix", "distilled"])
def test_text_equals_the_own_loop(toy, sentences, tmp_path, make, method):
    model = make()
    expected, twin = by_hand(toy, model, sentences, METHODS[method]())
    losses, _ = fit(model, sentences, METHODS[method](), tmp_path)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [Words, bert])
def test_loss_falls_and_evaluation_is_the_hosts_own(sentences, tmp_path, make):
    def metrics(prediction):
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    model = make()
    options = settings(tmp_path, num_train_epochs=20, learning_rate=0.02, optim="adamw_torch")
    data = {"train_dataset": sentences, "eval_dataset": sentences, "compute_metrics": metrics}
    trainer = MultiMixTrainer(model=model, args=options, method=mm.MultiMix(tuples=64), **data)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.5 * before["eval_loss"]
    assert after["eval_accuracy"] > 0.9
    plain = hf.Trainer(model=model, args=options, **data)
    assert plain.evaluate()["eval_loss"] == pytest.approx(after["eval_loss"], abs=1e-6)
    np.testing.assert_array_equal(plain.predict(sentences).predictions, trainer.predict(sentences).predictions)


def test_resumes_where_it_was_with_its_teacher(toy, pictures, tmp_path):
    def run(folder, **options):
        return fit(Own(copy.deepcopy(toy.model)), pictures, METHODS["distilled"](), folder, **options)

    whole, trainer = run(tmp_path / "whole", save_strategy="epoch")
    rest, resumed = run(tmp_path / "rest", resume=str(tmp_path / "whole" / "checkpoint-4"))
    assert len(whole) == 8
    assert rest == pytest.approx(whole[4:], abs=1e-6)
    torch.testing.assert_close(resumed.model.state_dict(), trainer.model.state_dict())
    torch.testing.assert_close(resumed.method.ema.state_dict(), trainer.method.ema.state_dict())
    state = torch.load(tmp_path / "whole" / "checkpoint-4" / STATE_FILE, weights_only=True)
    assert state["learners"][0]["ema.updates"] == 4


def test_finds_its_last_checkpoint(toy, pictures, tmp_path):
    model, method = Own(toy.model), METHODS["distilled"]
    fit(model, pictures, method(), tmp_path, save_strategy="epoch", num_train_epochs=1)
    losses, trainer = fit(model, pictures, method(), tmp_path, resume=True)
    assert len(losses) == 4
    assert trainer.method.ema.updates == 8


def test_generator_follows_the_seed(pictures, tmp_path):
    model = vit()
    losses = [
        fit(copy.deepcopy(model), pictures, mm.MultiMix(tuples=8), tmp_path, seed=seed, num_train_epochs=1)[0]
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_smooths_labels_as_the_host_does(pictures, tmp_path):
    model = vit()
    ours, _ = fit(copy.deepcopy(model), pictures, mm.ERM(), tmp_path, label_smoothing_factor=0.2)
    losses = Losses()
    options = settings(tmp_path, logging_strategy="steps", logging_steps=1, label_smoothing_factor=0.2)
    plain = type("Plain", (hf.Trainer,), {"_get_train_sampler": InOrder._get_train_sampler})
    plain(model=copy.deepcopy(model), args=options, train_dataset=pictures, callbacks=[losses]).train()
    assert ours == pytest.approx(losses.found, abs=1e-6)


def test_half_precision_and_a_model_that_is_made_late(pictures, tmp_path):
    losses, _ = fit(vit(), pictures, mm.MultiMix(tuples=32), tmp_path, bf16=True)
    assert np.isfinite(losses).all()
    options = settings(tmp_path, num_train_epochs=1)
    late = MultiMixTrainer(args=options, method="mixup", model_init=vit, train_dataset=pictures, **VIT)
    late.train()
    assert late.state.global_step == 4


def test_learned_method_is_trained_with_the_model(pictures, tmp_path):
    _, trainer = fit(vit(), pictures, mm.methods.AdaMixUp(), tmp_path, num_train_epochs=1)
    learned = {id(p) for p in trainer.method.parameters() if p.requires_grad}
    assert learned
    stepped = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert learned <= stepped


def test_model_of_ones_own_by_names_equals_the_own_loop(toy, pictures, tmp_path):
    fit(Own(toy.model), pictures, mm.Mixup(), tmp_path)
    toy.own_loop(
        toy.adapt(toy.twin), mm.Mixup(), toy.batches * 2, torch.optim.SGD(toy.twin.parameters(), lr=0.05), seed=3
    )
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.bad_input
def test_bad_arguments_are_named(pictures, tmp_path, monkeypatch):
    options = settings(tmp_path)
    with pytest.raises(TypeError, match=r"method must be a method .* got 3"):
        MultiMixTrainer(model=vit(), args=options, **VIT, method=3)
    with pytest.raises(ValueError, match="compute_loss_func must be left out"):
        MultiMixTrainer(model=vit(), args=options, **VIT, method=mm.Mixup(), compute_loss_func=print)
    unlabelled = [{"pixel_values": example["pixel_values"]} for example in pictures]
    with pytest.raises(ValueError, match="inputs must hold 'labels' to train with a method, got pixel_values"):
        fit(vit(), unlabelled, mm.Mixup(), tmp_path)
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    given = {"optimizers": (optimizer, schedule), "train_dataset": pictures}
    trainer = MultiMixTrainer(model=model, args=options, method=mm.methods.AdaMixUp(), **given, **VIT)
    with pytest.raises(ValueError, match="optimizers must be left out: method adamixup learns parameters"):
        trainer.train()
    monkeypatch.setattr(type(options), "world_size", property(lambda self: 2))
    with pytest.raises(ValueError, match=r"args must train in one process on one device .* got 2 processes"):
        MultiMixTrainer(model=vit(), args=options, **VIT, method=mm.Mixup())


@pytest.mark.bad_input
def test_checkpoint_without_the_methods_state_is_refused(toy, pictures, tmp_path):
    model = Own(toy.model)
    fit(model, pictures, METHODS["distilled"](), tmp_path, save_strategy="epoch", num_train_epochs=1)
    with pytest.raises(ValueError, match="checkpoint is of another method"):
        fit(model, pictures, mm.Mixup(), tmp_path, resume=True)
    (tmp_path / "checkpoint-4" / STATE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no {STATE_FILE} in .*checkpoint-4"):
        fit(model, pictures, mm.Mixup(), tmp_path, resume=True)
