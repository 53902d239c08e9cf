"""Whatever is wrong with a command line or the files that it names: one clear line, exit code 1 or 2, nothing done."""

import os
from pathlib import Path

import pytest

from fuzz.ground import Ground
from fuzz.strategies import LONG
from fuzz.wrong import FAMILIES, Wrong, outcome
from fuzz.wrong_inputs import cases, grounds, of_family
from multimix.lab.cli import list as list_command

EACH = 150 if LONG else 12  # inputs of each kind

pytestmark = pytest.mark.bad_input


@pytest.fixture(scope="module")
def ground():
    with grounds() as made:
        yield made


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIMIX_DEBUG", raising=False)


@pytest.mark.parametrize("kind", FAMILIES)
def test_wrong_input_is_one_clear_line(kind: str, ground: Ground):
    tried = of_family(kind, ground)[:EACH]
    assert len(tried) >= 10
    assert [f"{wrong}: {fault}" for wrong in tried for fault in outcome(wrong).faults(wrong)] == []


def test_there_are_hundreds_of_them_over_every_command(ground: Ground):
    found = cases(300, ground)
    assert len({wrong.key for wrong in found}) == 300
    commands = {wrong.command for wrong in found}
    assert {"train", "evaluate", "detect", "compare", "report", "bench", "list", "none"} <= commands
    assert [wrong.key for wrong in cases(300, ground)] == [wrong.key for wrong in found]
    assert [wrong.key for wrong in cases(300, ground, seed=1)] != [wrong.key for wrong in found]


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        (lambda: None, "exit code 0, not 1 or 2"),
        (lambda: _raise(SystemError("list")), "an error of no known kind: SystemError"),
        (lambda: _raise(ValueError("")), "a class name is all it says: ValueError"),
        (lambda: _raise(ValueError("KeyError: 'list'")), "a class name is all it says: KeyError"),
        (lambda: _raise(ValueError("of something else")), "does not name list: of something else"),
        (lambda: (Path("list").write_text("x"), _raise(ValueError("list"))), "files changed: ('list',)"),
        (lambda: (os.mkdir("../list-elsewhere"), os.rmdir("../list-elsewhere")), "done outside the folder: ('os.mkdir"),
        (lambda: (os.system("true"), _raise(ValueError("list"))), 'done outside the folder: ("os.system'),
        (lambda: _raise(GeneratorExit("list")), "an exception escaped: GeneratorExit: list"),
        (lambda: (print("Traceback"), _raise(ValueError("list"))), "a traceback"),
        (lambda: _raise(ValueError("list must be a name, got 3")), ""),
    ],
)
def test_the_law_is_not_blind_and_content_with_one_line(monkeypatch: pytest.MonkeyPatch, act, fault: str):
    monkeypatch.setattr(list_command, "main", lambda _: act())
    wrong = Wrong(("list",), ("list",))
    found = outcome(wrong).faults(wrong)
    assert any(each.startswith(fault) for each in found) if fault else not found
