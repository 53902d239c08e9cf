"""What fields and arguments are refused, as their annotations say."""

from dataclasses import dataclass
from math import inf, nan
from typing import Annotated, Literal

import pytest

from multimix._declared import Checked, Count, Fraction, Ge, Gt, Interval, Le, Lt, MinLen, Positive, check


@dataclass(frozen=True)
class Settings(Checked):
    count: Count = 1
    share: Fraction = 0.5
    name: str = "x"
    on: bool = True
    most: Annotated[int, Le(9)] | None = None
    sides: tuple[int, ...] = ()
    alpha: Positive | tuple[Positive, Positive] = 1.0
    mode: Literal["a", "b"] = "a"
    size: Annotated[int, Lt(5)] | Literal["auto"] = "auto"
    weights: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)] = (1.0,)
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    open: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    low: Annotated[float, Gt(-1)] = 0.0
    method: object = None


TAKEN = {
    "count": (1, 7),
    "share": (0, 1, 0.5),
    "name": ("", "y"),
    "on": (True, False),
    "most": (None, -3, 9),
    "sides": ((), (1, 2)),
    "alpha": (2, 0.1, (0.5, 2)),
    "mode": ("b",),
    "size": (4, "auto"),
    "weights": ((0,), (1, 2.5)),
    "momentum": (0, 0.9),
    "open": (0.1,),
    "low": (0, inf),
    "method": (None, 3, [1], {}),
}
REFUSED = [
    ("count", 0, ValueError, "must be at least 1, got 0"),
    ("count", 1.0, TypeError, "must be an integer, got 1.0"),
    ("count", True, TypeError, "must be an integer, got True"),
    ("share", 1.5, ValueError, "must lie in [0, 1], got 1.5"),
    ("share", nan, ValueError, "must lie in [0, 1], got nan"),
    ("share", "x", TypeError, "must be a number, got 'x'"),
    ("sides", "x" * 300, TypeError, "must be a tuple of integers, got a value of type str"),
    ("name", b"x", TypeError, "must be a text, got b'x'"),
    ("on", 1, TypeError, "must be True or False, got 1"),
    ("most", 10, ValueError, "must be at most 9, got 10"),
    ("most", "x", TypeError, "must be an integer or None, got 'x'"),
    ("sides", (1.5,), TypeError, "must be a tuple of integers, got (1.5,)"),
    ("sides", {}, TypeError, "must be a tuple of integers, got {}"),
    ("alpha", inf, ValueError, "must be above 0 and finite, got inf"),
    ("alpha", (1, -2), ValueError, "must hold values that each must be above 0 and finite, got (1, -2)"),
    ("alpha", (1,), ValueError, "must hold 2 values, got (1,)"),
    ("mode", "c", ValueError, "must be one of a, b, got 'c'"),
    ("mode", 3, TypeError, "must be a text, got 3"),
    ("size", 5, ValueError, "must be below 5, got 5"),
    ("size", "x", ValueError, "must be one of auto, got 'x'"),
    ("weights", (), ValueError, "must hold at least 1, got ()"),
    ("weights", (1, -1), ValueError, "must hold values that each must be at least 0, got (1, -1)"),
    ("momentum", 1, ValueError, "must lie in [0, 1), got 1"),
    ("open", 0, ValueError, "must lie in (0, 1), got 0"),
    ("low", -1, ValueError, "must be above -1, got -1"),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in TAKEN.items() for value in values])
def test_what_an_annotation_allows_is_taken(name, value):
    assert getattr(Settings(**{name: value}), name) == value


def test_a_list_becomes_a_tuple():
    assert Settings(sides=[1, 2]).sides == (1, 2)


@pytest.mark.parametrize(("name", "value", "error", "words"), REFUSED)
def test_all_else_is_refused_by_name(name, value, error, words):
    with pytest.raises(error) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"{name} {words}"


def test_arguments_are_checked_alike():
    check(Count, n=1, b=2)
    with pytest.raises(ValueError, match=r"^b must be at least 1, got 0$"):
        check(Count, n=1, b=0)
