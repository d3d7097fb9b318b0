"""The corruptions of MedMNIST-C as batched tensor functions, their levels, and the benchmark's scores."""

from trueread.shift.corruption.base import Corruption, corruption
from trueread.shift.corruption.lists import LEVELS, corruptions_for, family_of, set_for
from trueread.shift.corruption.scores import Score, Scores, corruption_scores

__all__ = [
    "LEVELS",
    "Corruption",
    "Score",
    "Scores",
    "corruption",
    "corruption_scores",
    "corruptions_for",
    "family_of",
    "set_for",
]
