"""Every method, alone and combined, against every law."""

import pytest

import laws
import toy


@pytest.mark.parametrize(
    ("law", "case"),
    [
        pytest.param(law, case, id=f"{law.__name__}-{case.name}")
        for law in laws.LAWS
        for case in laws.CASES
        if laws.applies(law, case)
    ],
)
def test_law(law, case, device):
    law(case, device)


@pytest.mark.bad_input
@pytest.mark.parametrize("case", laws.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("refusal", laws.REFUSALS, ids=lambda refusal: refusal.name)
def test_refusal(refusal, case):
    network, inputs, targets = laws.images()
    wrong = refusal.spoil(inputs, targets)
    with pytest.raises(refusal.error, match=refusal.message):
        laws.run(case.make(), network, *wrong)


def test_every_method_of_the_list_is_tried():
    assert {cls.name for cls in laws.METHODS} <= {case.name for case in laws.CASES}
    assert len({case.name for case in laws.CASES}) == len(laws.CASES)


def test_methods_that_want_images_say_so():
    for case in laws.CASES:
        if not case.vectors:
            with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\)"):
                laws.run(case.make(), toy.vectors(), *toy.batch(7, 8))
