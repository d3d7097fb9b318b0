"""What every test shares: where the development images are, deterministic threads, and no colour in captured output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
