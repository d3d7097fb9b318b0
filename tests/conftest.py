"""What every test shares: where the development images are, deterministic threads, and no colour in captured output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trueread.progress import set_quiet


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of development images: $TRUEREAD_DATA, or ../shared/data beside the repository; skips when neither
    is there.
    """
    given = os.environ.get("TRUEREAD_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no development images: set TRUEREAD_DATA to their folder (looked in {folder})")
    return folder


@pytest.fixture(scope="module")
def quiet_and_on_one_thread():
    """For tests of whole runs: no progress lines, and no second thread that waits for a busy core."""
    torch.set_num_threads(1)
    set_quiet(True)
    yield
    set_quiet(False)


SLOW_FILES = {
    "test_bad_input.py",
    "test_reader_fuzz.py",
    "test_study_fuzz.py",
    "test_check_attributes.py",
    "test_check_cues.py",
}


LONGEST = {"test_survival.py", "test_check_real.py", "test_bad_input.py", "test_check_copies.py", "test_docs.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tables and fuzzing of many small cases are slow as a whole: `make quick` leaves them out. The longest files come
    first, so that of several processes none waits for one of them at the end.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
