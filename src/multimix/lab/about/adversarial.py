"""What is said of robustness to attacks."""

from collections.abc import Mapping
from typing import Any

from multimix.lab.about.kinds import Curve, Description, Metric, Table


def _note(settings: Mapping[str, Any]) -> str:
    """Say how strong the attacks were; what another version did not record is a question mark."""

    def said(name: str, levels: int = 1) -> str:
        value = settings.get(name)
        return f"{value * levels:.4g}{'/255' * (levels == 255)}" if isinstance(value, int | float) else "?"

    fgsm, pgd, step = (said(name, levels=255) for name in ("fgsm_epsilon", "pgd_epsilon", "pgd_step"))
    return (
        f"l-inf: FGSM moves a pixel by {fgsm}, PGD by up to {pgd}, in steps of {step}. l2: both change an image by a"
        f" length of up to {said('l2_epsilon')}. PGD takes {said('steps')} steps, with"
        f" {said('restarts')} start{'s' * (settings.get('restarts') != 1)}."
    )


ABOUT = Description(
    title="Robustness",
    measure="multimix.lab.evaluate.adversarial:Adversarial",
    meaning="Accuracy on test images that were changed a little so as to fool this very network: by one step along "
    "the gradient's sign (FGSM) or by many (PGD), in pixels from 0 to 1, never further than the radius. Robustness to "
    "these attacks is an upper bound of robustness.",
    metrics=(Metric("loss", "Loss", "Cross-entropy (in nats) of the true class, mean over examples.", "lower", 3),),
    tables=(
        Table(r"([^/]*/){1,2}accuracy"),
        Table(r"([^/]*/){0,2}[^/]*", more=True),
        Table(r".*", title="checks of the attacks", more=True),
    ),
    figures=(
        Curve(
            "epsilon",
            axis="Radius of the {norm} ball",
            title="Accuracy under {attack} over the radius of the {norm} ball",
            words={"norm": "", "attack": "the attack"},
            levels=("norm", "linf"),
        ),
    ),
    words={"adversarial": "robustness", "autoattack": "AutoAttack", "fgsm": "FGSM", "linf": "l-inf", "pgd": "PGD"},
    note=_note,
)
