"""What each suite does, in words above its section, and how it was set, in words below its tables."""

from typing import Any

WORDS = {
    "calibration": "Does the network know how sure it may be? Confidence is the probability of the predicted class; a "
    "calibrated network is right as often as it is sure. Scaled logits are divided by one temperature, fitted on the "
    "validation split.",
    "adversarial": "Accuracy on test images that were changed a little so as to fool this very network: by one step "
    "along the gradient's sign (FGSM) or by many (PGD), in pixels from 0 to 1, never further than the radius. "
    "Robustness to these attacks is an upper bound of robustness.",
    "ood": "Can the network's own scores tell test images from images of other sets, which it has never seen? Test "
    "images should score high. The mean is over the sets.",
    "corruption": "Accuracy on test images that are disturbed, in kinds and severities of common corruptions.",
    "occlusion": "Accuracy on test images of which a part is hidden.",
    "embedding": "How the embeddings of test images lie: near others of their class, far from other classes, and "
    "spread over many directions.",
    "intrusion": "Where interpolated embeddings lie: an intrusion is one whose nearest clean embedding is of a class "
    "that was not mixed into it. Each network is probed with its method's own interpolation and with others.",
    "localisation": "Does the network's attention map find the object? A box is drawn round what exceeds a threshold "
    "and compared with the true one; the network was never trained on boxes.",
}


def setting_words(suite: str, settings: dict[str, Any]) -> str:
    """Return what a reader of a suite's tables has to know of its settings; nothing of those that explain themselves.

    A number that is not there is shown as a question mark: the suite may be of another version.
    """
    if suite != "adversarial":
        return ""
    radius = {name: _of_255(settings.get(f"{name}_epsilon")) for name in ("fgsm", "pgd")}
    return (
        f"l-inf: FGSM moves a pixel by {radius['fgsm']}, PGD by up to {radius['pgd']}, in steps of"
        f" {_of_255(settings.get('pgd_step'))}. l2: both change an image by a length of up to"
        f" {_number(settings.get('l2_epsilon'))}. PGD takes {_number(settings.get('steps'))} steps, with"
        f" {_number(settings.get('restarts'))} start{'s' * (settings.get('restarts') != 1)}."
    )


def _of_255(value: Any) -> str:
    return f"{_number(value * 255)}/255" if isinstance(value, int | float) else "?"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "?"
