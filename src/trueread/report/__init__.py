"""The page a person reads, the model card, the gallery and the scorecard: all drawn from a run folder."""

from trueread.report.gallery import make_gallery
from trueread.report.junit import write_junit
from trueread.report.markdown import write_markdown_report
from trueread.report.modelcard import write_model_card
from trueread.report.page import write_report
from trueread.report.summary import read_summary
from trueread.report.terminal import print_scorecard

__all__ = [
    "make_gallery",
    "print_scorecard",
    "read_summary",
    "write_junit",
    "write_markdown_report",
    "write_model_card",
    "write_report",
]
