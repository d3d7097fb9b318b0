"""Out-of-fold answers: nobody is judged by a network that knows them, and the numbers are those of the trainings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread import fit
from trueread.errors import InputError
from trueread.shift.label_noise import with_label_noise
from trueread.training.out_of_fold import Margins, out_of_fold, patient_folds

EVERY = tiny_config(epochs=4)


class TestFolds:
    @pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal"])
    def test_patients_stay_whole_and_classes_are_spread(self, task):
        cohort = tiny_cohort(task, n=160, side=4)
        rows = np.random.default_rng(0).permutation(160)[:140]
        folds = patient_folds(cohort, rows, folds=4, seed=0)
        patients = cohort.table["patient"].to_numpy()[rows]
        assert all(len(set(folds[patients == p])) == 1 for p in set(patients))
        for k in range(cohort.n_classes):
            sizes = np.bincount(folds[cohort.labels[rows] == k], minlength=4)
            assert sizes.max() - sizes.min() <= 4

    def test_the_seed_decides(self):
        cohort, rows = tiny_cohort(n=160, side=4), np.arange(160)
        first, again, other = (patient_folds(cohort, rows, folds=4, seed=s) for s in (0, 0, 1))
        assert (first == again).all()
        assert (first != other).any()

    def test_slips_are_refused(self):
        cohort = tiny_cohort(n=60, side=4)
        alone = cohort.table.assign(patient=np.where(cohort.labels == 1, "one", cohort.table["patient"]), split="")
        with pytest.raises(InputError, match="'mild' has 1 patient among"):
            patient_folds(replace(cohort, table=alone), np.arange(60), folds=2, seed=0)
        with pytest.raises(InputError, match="at least 2 parts; found 1"):
            patient_folds(cohort, np.arange(60), folds=1, seed=0)
        with pytest.raises(InputError, match="the task is multilabel"):
            patient_folds(tiny_cohort("multilabel", n=60, side=4), np.arange(60), folds=2, seed=0)


class TestMargins:
    def test_by_hand(self):
        margins = Margins()
        margins.prepare(tiny_setup(tiny_cohort(n=60, side=4)))
        logits = torch.tensor([[2.0, 0.5, 1.0], [0.0, 3.0, 1.0]])
        assert margins.weights(tiny_step(logits, torch.tensor([0, 2]))) is None
        margins.weights(tiny_step(-logits, torch.tensor([0, 2])))
        assert margins.margin[:2].tolist() == [(1.0 - 1.5) / 2, (-2.0 - 1.0) / 2]
        assert margins.margin[2:].isnan().all()

    def test_a_killed_training_keeps_them(self, tmp_path):
        cohort, config = tiny_cohort(n=60), tiny_config(epochs=3)

        class Stops(Margins):
            stop = False

            def after_epoch(self, ledger):
                if ledger.epoch == 1 and self.stop:
                    raise RuntimeError("killed")

        whole, killed, again = Stops(), Stops(), Stops()
        fit(cohort, whole, config, folder=tmp_path / "whole", quiet=True)
        killed.stop = True
        with pytest.raises(RuntimeError, match="killed"):
            fit(cohort, killed, config, folder=tmp_path / "killed", quiet=True)
        fit(cohort, again, config, folder=tmp_path / "killed", quiet=True)
        assert torch.equal(whole.margin, again.margin)
        assert not whole.margin.isnan().any()


class TestOutOfFold:
    def test_every_image_is_judged_by_one_that_lacks_its_patient(self):
        cohort, rows, seen = tiny_cohort(n=100), np.arange(0, 100), []

        def watched(few, hooks, config, **options):
            assert config.select == "last"
            seen.append((set(few.table["patient"][few.rows("train")]), few))
            return fit(few, hooks, config, **options)

        found = out_of_fold(cohort, rows, EVERY, folds=3, seed=1, fit=watched)
        folds = patient_folds(cohort, rows, folds=3, seed=1)
        assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
        for fold, (patients, few) in enumerate(seen):
            assert not patients & set(few.table["patient"].to_numpy()[folds == fold])
        assert len(seen) == 3
        assert np.isfinite([found.loss, found.margin]).all()

    def test_loss_and_margin_are_means_over_the_trainings_that_saw_the_image(self, monkeypatch):
        cohort, trained = tiny_cohort(n=60), []

        def watched(few, hooks, config, **options):
            made = fit(few, hooks, config, **options)
            trained.append((few.rows("train"), made.ledger.smoothed_loss().numpy(), hooks.margin.numpy()))
            return made

        found = out_of_fold(cohort, np.arange(60), EVERY, folds=3, fit=watched)
        for row in (0, 17, 59):
            of_row = [(v[rows == row][0], m[rows == row][0]) for rows, v, m in trained if row in rows]
            assert len(of_row) == 2
            assert (found.loss[row], found.margin[row]) == pytest.approx(tuple(np.mean(of_row, axis=0)), rel=1e-5)

    def test_an_interrupted_one_goes_on_with_the_training_it_was_in(self, tmp_path):
        cohort, rows, config = tiny_cohort(n=60), np.arange(60), tiny_config(epochs=2)
        whole = out_of_fold(cohort, rows, config, folds=3)
        done = []

        def killed_in_the_second(few, hooks, config, **options):
            if len(done) == 1:
                raise KeyboardInterrupt
            done.append(fit(few, hooks, config, **options))
            return done[-1]

        with pytest.raises(KeyboardInterrupt):
            out_of_fold(cohort, rows, config, folds=3, folder=tmp_path / "a", fit=killed_in_the_second)
        first = sorted((tmp_path / "a" / "fold-0").rglob("*.pt"))
        kept = [path.stat().st_mtime_ns for path in first]
        again = out_of_fold(cohort, rows, config, folds=3, folder=tmp_path / "a", keep=True)
        assert [path.stat().st_mtime_ns for path in first] == kept
        for name in ("probabilities", "loss", "margin"):
            assert getattr(again, name).tolist() == getattr(whole, name).tolist()
        out_of_fold(cohort, rows, config, folds=3, folder=tmp_path / "a")
        assert not list(tmp_path.rglob("*.pt"))

    def test_wrong_labels_stand_out_in_all_three(self):
        from trueread.stats.confident import doubt
        from trueread.stats.ranking import binary_auroc

        cohort = with_label_noise(tiny_cohort(n=240), rate=0.15)
        rows = cohort.rows("train")
        found = out_of_fold(cohort, rows, tiny_config(epochs=8))
        wrong = cohort.truth["flipped"].to_numpy()[rows]
        for score in (doubt(cohort.labels[rows], found.probabilities), found.loss, -found.margin):
            assert binary_auroc(score, wrong)(np.ones((1, len(rows))))[0] > 0.9
