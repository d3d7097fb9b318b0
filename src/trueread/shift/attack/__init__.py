"""Adversarial attacks: the smallest changes that mislead a classifier, as functions of tensors."""

from trueread.shift.attack.apgd import apgd, apgd_targeted
from trueread.shift.attack.balls import Ball, grey_levels, usual_epsilon
from trueread.shift.attack.ensemble import Strongest, strongest
from trueread.shift.attack.pgd import fgsm, pgd
from trueread.shift.attack.search import Attacked
from trueread.shift.attack.square_attack import square_attack

__all__ = [
    "Attacked",
    "Ball",
    "Strongest",
    "apgd",
    "apgd_targeted",
    "fgsm",
    "grey_levels",
    "pgd",
    "square_attack",
    "strongest",
    "usual_epsilon",
]
