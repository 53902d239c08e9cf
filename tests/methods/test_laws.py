"""Every method, alone and combined, against every law."""

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
@pytest.mark.parametrize("refusal", cases.REFUSALS, ids=lambda refusal: refusal.name)
def test_refusal(refusal, case):
    network, inputs, targets = cases.images()
    wrong = refusal.spoil(inputs, targets)
    with pytest.raises(refusal.error, match=refusal.message):
        cases.run(case.make(), network, *wrong)


def test_every_method_of_the_list_is_tried():
    assert {cls.name for cls in cases.METHODS} <= {case.name for case in cases.CASES}
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)


def test_methods_that_want_images_say_so():
    for case in cases.CASES:
        if not case.vectors:
            with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\)"):
                cases.run(case.make(), toy.vectors(), *toy.batch(7, 8))
