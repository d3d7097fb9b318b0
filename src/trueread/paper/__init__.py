"""Published protocols as one command each: every arm, with seeds and intervals, resumable. One line registers each."""

from trueread.paper import curvssl, danil, nonrobust, pneumonia, specialist, step_e  # noqa: F401  (each registers its protocol)
from trueread.paper.base import PAPERS, Paper, paper, run_paper

__all__ = ["PAPERS", "Paper", "paper", "run_paper"]
