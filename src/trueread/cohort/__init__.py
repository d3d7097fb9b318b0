"""Images, labels, patients, masks, and where they came from. One line per source registers it."""

from trueread.cohort import dicom, folder, medmnist, phantom, saved, table  # noqa: F401  (each registers its source)
from trueread.cohort.cohort import Cohort
from trueread.cohort.source import load_cohort, source

__all__ = ["Cohort", "load_cohort", "source"]
