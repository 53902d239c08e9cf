"""Methods whose solver needs a further package, where it is not installed."""

import sys

import pytest

import cases
from multimix.distill import SelfDistilled
from multimix.methods import METHODS, Alternate, CoMixup, PuzzleMix

NEEDS = {
    PuzzleMix: (
        ("scipy", "scipy.sparse"),
        "^PuzzleMix's graph cut needs scipy, which is not installed: pip install scipy$",
    ),
    CoMixup: (("numpy",), "^Co-Mixup's search needs numpy, which is not installed: pip install numpy$"),
}


@pytest.mark.parametrize("cls", NEEDS, ids=lambda cls: cls.name)
@pytest.mark.parametrize(
    "wrap", [lambda m: m, SelfDistilled, lambda m: Alternate([m])], ids=["alone", "taught", "in turn"]
)
def test_the_method_names_it(cls, wrap, monkeypatch):
    modules, message = NEEDS[cls]
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        cases.run(wrap(cls()), *cases.images())


@pytest.mark.parametrize("cls", [cls for cls in METHODS if cls not in NEEDS], ids=lambda cls: cls.name)
def test_all_others_do_without(cls, monkeypatch):
    for module in ("scipy", "scipy.sparse", "numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    assert cases.run(cls(**cases.settings_of(cls)), *cases.images()).total.isfinite()
