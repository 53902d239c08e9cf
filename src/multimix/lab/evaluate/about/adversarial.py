"""What is said of robustness to attacks."""

from collections.abc import Mapping
from typing import Any

from multimix.lab.evaluate.about.kinds import Curve, Description, Metric, Table


def _note(settings: Mapping[str, Any]) -> str:
    """Say how strong the attacks were; what another version did not record is a question mark."""
    radius = {name: _levels(settings.get(f"{name}_epsilon")) for name in ("fgsm", "pgd")}
    return (
        f"l-inf: FGSM moves a pixel by {radius['fgsm']}, PGD by up to {radius['pgd']}, in steps of"
        f" {_levels(settings.get('pgd_step'))}. l2: both change an image by a length of up to"
        f" {_number(settings.get('l2_epsilon'))}. PGD takes {_number(settings.get('steps'))} steps, with"
        f" {_number(settings.get('restarts'))} start{'s' * (settings.get('restarts') != 1)}."
    )


def _levels(value: Any) -> str:
    return f"{_number(value * 255)}/255" if isinstance(value, int | float) else "?"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "?"


ADVERSARIAL = Description(
    name="adversarial",
    suite="Adversarial",
    title="Robustness",
    meaning="Accuracy on test images that were changed a little so as to fool this very network: by one step along "
    "the gradient's sign (FGSM) or by many (PGD), in pixels from 0 to 1, never further than the radius. Robustness to "
    "these attacks is an upper bound of robustness.",
    metrics=(Metric("loss", "Loss", "Cross-entropy (in nats) of the true class, mean over examples.", "lower", 3),),
    tables=(
        Table(pattern=r"([^/]*/){1,2}accuracy"),
        Table(pattern=r"([^/]*/){0,2}[^/]*", more=True),
        Table(pattern=r".*", title="checks of the attacks", more=True),
    ),
    figures=(
        Curve(
            x="epsilon",
            axis="Radius of the {norm} ball",
            title="Accuracy under {attack} over the radius of the {norm} ball",
            words={"norm": "", "attack": "the attack"},
            levels=("norm", "linf"),
        ),
    ),
    words={"adversarial": "robustness", "autoattack": "AutoAttack", "fgsm": "FGSM", "linf": "l-inf", "pgd": "PGD"},
    note=_note,
)
