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


SLOW_FILES = {  # most of whose tests train a network, or that are tables and fuzzing of many small cases
    "test_attack_apgd.py",
    "test_attack_ensemble.py",
    "test_attack_peers.py",
    "test_attack_pgd.py",
    "test_attack_square.py",
    "test_audit_adversarial.py",
    "test_audit_corruption.py",
    "test_audit_feature_use.py",
    "test_audit_label.py",
    "test_audit_distractor.py",
    "test_audit_localisation.py",
    "test_audit_shortcut_layers.py",
    "test_audit_shortcut_power.py",
    "test_bad_input.py",
    "test_exporting.py",
    "test_method_danil.py",
    "test_method_few_labels.py",
    "test_method_rare.py",
    "test_method_two_views.py",
    "test_predicting.py",
    "test_pretraining.py",
    "test_benchmarks.py",
    "test_check_attributes.py",
    "test_check_balance.py",
    "test_check_copies.py",
    "test_check_cues.py",
    "test_claim.py",
    "test_cli.py",
    "test_commands.py",
    "test_method_adversarial.py",
    "test_method_clean_only.py",
    "test_method_compose.py",
    "test_method_corruption_augment.py",
    "test_method_dfr.py",
    "test_method_groupdro.py",
    "test_method_jtt.py",
    "test_method_label_noise.py",
    "test_method_seam.py",
    "test_method_specialist.py",
    "test_paper.py",
    "test_reader_fuzz.py",
    "test_report_page.py",
    "test_report_strips.py",
    "test_runner.py",
    "test_runner_check.py",
    "test_runner_plant.py",
    "test_split_properties.py",
    "test_study_fuzz.py",
    "test_training_fit.py",
    "test_training_out_of_fold.py",
    "test_training_precision.py",
    "test_training_resume.py",
    "test_workers.py",
}
LONGEST = {
    "test_bad_input.py",
    "test_exporting.py",
    "test_method_danil.py",
    "test_method_few_labels.py",
    "test_method_rare.py",
    "test_method_two_views.py",
    "test_predicting.py",
    "test_pretraining.py",
    "test_check_attributes.py",
    "test_check_copies.py",
    "test_check_real.py",
    "test_cli.py",
    "test_docs.py",
    "test_paper.py",
    "test_real_data.py",
    "test_runner.py",
    "test_survival.py",
    "test_training_processes.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make quick` leaves the slow files out. The longest ones come first, so that of several processes none waits for
    one of them at the end.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
