"""Few labels: of each class the share of patients that was asked for, and nothing of the others is learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_method_seam import run

from tiny import tiny_cohort, tiny_setup
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.method.two_views import Pretraining


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_each_class_keeps_its_share_of_patients(task, share):
    cohort = tiny_cohort(task, n=240)
    setup, method = tiny_setup(cohort), build_method("few-labels", share=share)
    method.prepare(setup)
    drawn = setup.train_rows[method.sampling(None) > 0]
    patients = cohort.table["patient"].to_numpy()
    assert not set(patients[drawn]) & set(patients[np.setdiff1d(setup.train_rows, drawn)]), "whole patients"
    for label in range(cohort.n_classes):
        of_class, kept = (len(set(patients[r[cohort.labels[r] == label]])) for r in (setup.train_rows, drawn))
        assert kept >= 1
        assert kept == pytest.approx(share * of_class, abs=0.25 * of_class if share < 1 else 0)
    assert method.report()["labelled_images"] == len(drawn)


def test_the_seed_of_the_run_draws_and_what_is_not_drawn_is_never_learnt_from():
    cohort = tiny_cohort("binary", n=200)
    drawn = {}
    for seed in (1, 2):
        method = build_method("few-labels", share=0.2)
        method.prepare(replace(tiny_setup(cohort), seed=seed))
        drawn[seed] = method.sampling(None).numpy() > 0
    assert (drawn[1] != drawn[2]).any()
    trained = run(build_method("few-labels", share=0.2), cohort, epochs=2)  # with the seed 2
    seen = (~trained.ledger.loss.isnan()).any(0).numpy()
    assert seen.any()
    assert not (seen & ~drawn[2]).any()


def test_a_multilabel_task_is_refused_before_a_pretraining_begins(monkeypatch):
    monkeypatch.setattr(Pretraining, "learn", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(InputError, match="a share of the labels is drawn by class, but the task is multilabel"):
        run(build_method("vicreg+few-labels"), tiny_cohort("multilabel", n=120))


@pytest.mark.parametrize("other", ["supcon", "jtt", "dfr", "aum", "confident-learning", "specialist"])
def test_a_method_that_reads_all_labels_does_not_go_with_it(other):
    with pytest.raises(InputError, match=f"'{other}' learns from the labels of all training images"):
        build_method(f"few-labels+{other}")
