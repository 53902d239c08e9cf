"""Training with torch.compile."""

import functools
import shutil

import pytest
import torch
from torch import nn

import toy
from multimix.distill import SelfDistilled
from multimix.methods import CutMix, MultiMix
from multimix.train import Engine, load_network, train
from train.tiny import splits_of, tiny, train_all

pytestmark = pytest.mark.filterwarnings("ignore:::torch")  # the compiler's own advice


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


@pytest.fixture
def _traced(monkeypatch) -> None:
    """Trace the network as the compiler does, but leave out the minutes of making machine code."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("_traced")
def test_a_compiled_network_learns_what_the_plain_one_does():
    """Sums may be taken in another order."""
    settings = {"method": SelfDistilled(MultiMix(tuples=20), momentum=0.5), "ema": 0.9}
    splits = splits_of(tiny())
    compiled = train_all(Engine(tiny(compile=True, **settings), splits))
    assert compiled == pytest.approx(train_all(Engine(tiny(**settings), splits)), rel=1e-2)


@pytest.mark.usefixtures("_traced")
def test_the_teacher_of_a_compiled_network_is_a_network_of_its_own():
    """A copy made after compiling would run the code, and so the weights, of the student."""
    engine = Engine(
        tiny(compile=True, method=SelfDistilled(MultiMix(tuples=20), momentum=0.5), ema=0.9), splits_of(tiny())
    )
    teachers = [engine.method.ema.network, engine.ema.network]
    inputs, labels = next(engine.epoch())
    start = [teacher(inputs[0]).clone() for teacher in teachers]
    with torch.no_grad():
        for parameter in engine.network.parameters():
            parameter.mul_(1.5)
    assert all(torch.equal(teacher(inputs[0]), said) for teacher, said in zip(teachers, start, strict=True))
    engine.step(inputs, labels)
    assert not any(torch.equal(teacher(inputs[0]), said) for teacher, said in zip(teachers, start, strict=True))


@pytest.mark.usefixtures("_traced")
def test_a_compiled_run_ends_in_a_folder_like_any_other(tmp_path):
    run = train(tiny(compile=True, method=CutMix(), epochs=1, train_size=64), tmp_path / "run", quiet=True)
    assert run.finished
    assert (run.pictures / "cutmix.png").is_file()
    assert load_network(run.path)[0](torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_machine_code_trains(monkeypatch):
    """Of a small network: compiling takes most of a minute for the usual one."""

    def make(*_: object) -> nn.Module:
        return toy.Toy(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), width=8, classes=10)

    monkeypatch.setattr("multimix.train.engine.build_network", make)
    config = tiny(compile=True, train_size=64, epochs=1, crop_padding=0)
    splits = splits_of(config)
    compiled = train_all(Engine(config, splits))
    plain = train_all(Engine(tiny(train_size=64, epochs=1, crop_padding=0), splits))
    assert compiled == pytest.approx(plain, rel=1e-2)
