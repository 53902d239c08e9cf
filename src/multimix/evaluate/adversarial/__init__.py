"""Adversarial robustness: FGSM, PGD and AutoAttack on pixels."""

from multimix.evaluate.adversarial.attacks import fgsm, pgd
from multimix.evaluate.adversarial.suite import Adversarial, AdversarialSettings

__all__ = ["Adversarial", "AdversarialSettings", "fgsm", "pgd"]
