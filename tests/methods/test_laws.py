"""Every method, alone and combined, against every law."""

import re

import pytest

import cases
import laws
import toy


@pytest.mark.parametrize(
    ("law", "case"),
    [
        pytest.param(law, case, id=f"{law.__name__}-{case.name}")
        for law in laws.LAWS
        for case in cases.CASES
        if laws.applies(law, case)
    ],
)
def test_law(law, case, device):
    law(case, device)


@pytest.mark.bad_input
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_wrong_arguments_are_named(case):
    said = {refusal.name: answer(refusal, case) for refusal in cases.REFUSALS}
    assert {name: text for name, (right, text) in said.items() if not right} == {}


def answer(refusal: cases.Refusal, case: cases.Case) -> tuple[bool, str]:
    """Whether a method refuses a wrong argument as it should, and what it says."""
    network, inputs, targets = cases.images()
    try:
        cases.run(case.make(), network, *refusal.spoil(inputs, targets))
    except refusal.error as error:
        return re.search(refusal.message, str(error)) is not None, str(error)
    return False, "nothing"


def test_every_method_of_the_list_is_tried():
    assert {cls.name for cls in cases.METHODS} <= {case.name for case in cases.CASES}
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)


def test_methods_that_want_images_say_so():
    for case in cases.CASES:
        if not case.vectors:
            with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\)"):
                cases.run(case.make(), toy.vectors(), *toy.batch(7, 8))
