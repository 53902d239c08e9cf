"""Training with torch.compile."""

import functools

import pytest
import torch
from torch import nn

import toy
from multimix.distill import SelfDistilled
from multimix.lab.train import Engine, load_network, train
from multimix.methods import CutMix, MultiMix
from train.tiny import in_double, splits_of, tiny, train_all

pytestmark = pytest.mark.filterwarnings("ignore:::torch")  # the compiler's own advice


@pytest.fixture(autouse=True)
def _traced(monkeypatch) -> None:
    """Trace the network as the compiler does, but leave out the minutes of making machine code."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def test_a_compiled_network_learns_what_the_plain_one_does_and_its_teachers_are_their_own():
    """A teacher copied after compiling would run the code, and so the weights, of the student."""
    settings = {
        "method": SelfDistilled(MultiMix(tuples=20, impl="commuted"), momentum=0.5),
        "ema": 0.9,
        "train_size": 64,
        "epochs": 1,
    }
    splits = splits_of(tiny(**settings))
    with in_double():
        engine, plain = (Engine(tiny(compile=value, **settings), splits) for value in (True, False))
    teachers = [engine.method.ema.network, engine.ema.network]
    view = next(engine.epoch())[0][0]
    start = [teacher(view).clone() for teacher in teachers]
    with torch.no_grad():
        engine.network.head.bias.add_(1.0)
        assert all(torch.equal(teacher(view), said) for teacher, said in zip(teachers, start, strict=True))
        engine.network.head.bias.sub_(1.0)
    compiled = train_all(engine)
    assert not any(torch.equal(teacher(view), said) for teacher, said in zip(teachers, start, strict=True))
    assert compiled == pytest.approx(train_all(plain), rel=1e-10)


def test_a_compiled_run_ends_in_a_folder_like_any_other(tmp_path, monkeypatch):
    """A perceptron's: compiling the usual network takes most of a minute."""
    for module in ("engine", "network"):
        monkeypatch.setattr(f"multimix.lab.train.{module}.build_network", lambda *_: toy.Toy(
            nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), width=8, classes=10))  # fmt: skip
    run = train(tiny(compile=True, method=CutMix(), ema=0.9), tmp_path / "run", quiet=True)
    assert run.finished
    assert (run.figures / "cutmix.png").is_file()
    assert load_network(run.path)[0](torch.zeros(3, 1, 8, 8)).shape == (3, 10)
