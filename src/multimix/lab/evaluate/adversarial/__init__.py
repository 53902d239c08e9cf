"""Adversarial robustness: FGSM, PGD and AutoAttack on pixels."""

from multimix.lab.evaluate.adversarial.attacks import fgsm, pgd
from multimix.lab.evaluate.adversarial.suite import Adversarial, AdversarialSettings, autoattack

__all__ = ["Adversarial", "AdversarialSettings", "autoattack", "fgsm", "pgd"]
