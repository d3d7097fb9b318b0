"""A run that is killed and started again ends in the same bits as one that never was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tiny import Frozen, tiny_cohort, tiny_config
from trueread.errors import InputError
from trueread.method.base import Composite, Method, build_method
from trueread.training import loop
from trueread.training.hooks import Hooks
from trueread.training.loop import Fitted, fit


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Killed(Exception):
    """The machine went away."""


class Scores(Method):
    """Keeps a state that only exists across epochs: running scores that decide the weights of the next epoch."""

    name = "scores"
    kill_at: tuple[int, float] | None = None  # epoch, share of the epoch

    def prepare(self, setup) -> None:
        self.scores, self.prepared = torch.zeros(len(setup.ledger)), 1

    def perturb(self, step) -> None:
        if Scores.kill_at is not None and step.epoch == Scores.kill_at[0] and step.done >= Scores.kill_at[1]:
            raise Killed

    def weights(self, step):
        return torch.sigmoid(self.scores[step.index])

    def after_epoch(self, ledger) -> None:
        self.scores = self.scores + ledger.smoothed_loss().nan_to_num(0)

    def state(self):
        return {"scores": self.scores}

    def load_state(self, state, setup) -> None:
        self.scores = state["scores"]


@pytest.fixture
def kill_at(monkeypatch):
    return lambda epoch, done=0.0: monkeypatch.setattr(Scores, "kill_at", (epoch, done))


def everything() -> Composite:
    names = ("balanced-sampling", "class-weights", "label-smoothing", "mixup", "focal")
    return Composite([*(build_method(n) for n in names), Scores()])


CONFIG = {"epochs": 4, "augment": "any", "dropout": 0.2, "ema_decay": 0.8, "clip_norm": 1.0}
COHORT = tiny_cohort(n=100, share=0.2)


def run(folder: Path | None = None, hooks: Hooks | None = None, cohort=COHORT, *, seed: int = 1, **config) -> Fitted:
    return fit(cohort, hooks, tiny_config(**config), seed=seed, folder=folder, quiet=True)


def assert_same(a: Fitted, b: Fitted) -> None:
    for (name, value), other in zip(a.classifier.state_dict().items(), b.classifier.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    timing = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(a.history.drop(columns=timing), b.history.drop(columns=timing), check_exact=True)
    assert torch.equal(a.ledger.loss.nan_to_num(-1), b.ledger.loss.nan_to_num(-1))
    assert torch.equal(a.ledger.probability.nan_to_num(-1), b.ledger.probability.nan_to_num(-1))
    assert a.ledger.epoch == b.ledger.epoch
    assert a.selected_epoch == b.selected_epoch
    assert a.report == b.report
    cards = [dataclasses.replace(f).classifier.card.model_dump() for f in (a, b)]
    for card in cards:
        card["training"].pop("seconds")
    assert cards[0] == cards[1]


class TestResume:
    @pytest.mark.parametrize("kills", [[(2, 0.0)], [(1, 0.4), (3, 0.9)]], ids=["between epochs", "within, twice"])
    def test_ends_in_the_same_bits(self, tmp_path, kill_at, monkeypatch, kills):
        uninterrupted = run(None, everything(), **CONFIG)
        for epoch, done in kills:
            kill_at(epoch, done)
            with pytest.raises(Killed):
                run(tmp_path, everything(), **CONFIG)
        monkeypatch.setattr(Scores, "kill_at", None)
        torch.manual_seed(99)  # another process has other random numbers
        assert_same(run(tmp_path, everything(), **CONFIG), uninterrupted)

    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_with_other_optimisers_and_without_a_method(self, tmp_path, monkeypatch, optimizer):
        config = {"epochs": 3, "optimizer": optimizer, "learning_rate": 0.01, "select": "loss"}
        uninterrupted = run(None, **config)
        validate = loop._Run._validate
        calls = []

        def dies(self, epoch):
            calls.append(epoch)
            if epoch == 1:
                raise Killed
            validate(self, epoch)

        monkeypatch.setattr(loop._Run, "_validate", dies)
        with pytest.raises(Killed):
            run(tmp_path, **config)
        monkeypatch.setattr(loop._Run, "_validate", validate)
        assert_same(run(tmp_path, **config), uninterrupted)

    def test_a_run_killed_after_its_last_epoch_only_finishes(self, tmp_path, monkeypatch):
        uninterrupted = run(tmp_path / "a", everything(), **CONFIG)
        monkeypatch.setattr(loop._Run, "_train_epoch", lambda *_: pytest.fail("an epoch was trained again"))
        assert_same(run(tmp_path / "a", everything(), **CONFIG), uninterrupted)

    def test_a_run_that_stopped_early_stays_stopped(self, tmp_path):
        config = {"epochs": 6, "patience": 2, "weight_decay": 0.0}
        first = run(tmp_path, Frozen(), **config)
        assert len(first.history) == 3
        assert_same(run(tmp_path, Frozen(), **config), first)

    def test_preparations_are_not_done_twice(self, tmp_path, kill_at, monkeypatch):
        kill_at(0)
        with pytest.raises(Killed):
            run(tmp_path, everything(), **CONFIG)
        monkeypatch.setattr(Scores, "kill_at", None)
        monkeypatch.setattr(Scores, "prepare", lambda *_: pytest.fail("prepared again"))
        resumed = run(tmp_path, everything(), **CONFIG)
        monkeypatch.undo()
        assert_same(resumed, run(None, everything(), **CONFIG))


class TestRefusals:
    @pytest.fixture
    def half_done(self, tmp_path, kill_at, monkeypatch) -> Path:
        kill_at(1)
        with pytest.raises(Killed):
            run(tmp_path, Composite([build_method("focal", gamma=2.0), Scores()]), epochs=2)
        monkeypatch.setattr(Scores, "kill_at", None)
        return tmp_path

    def refuses(self, folder, hooks=None, cohort=COHORT, **changed):
        hooks = hooks or Composite([build_method("focal", gamma=2.0), Scores()])
        with pytest.raises(InputError, match="half-trained run of other data, method or options"):
            run(folder, hooks, cohort, **{"epochs": 2} | changed)

    def test_other_options(self, half_done):
        for changed in ({"learning_rate": 1e-3}, {"epochs": 3}, {"seed": 2}, {"augment": "any"}):
            self.refuses(half_done, **changed)

    def test_another_method_or_its_options_also_when_made_without_the_registry(self, half_done):
        from trueread.method.focal import Focal

        self.refuses(half_done, Composite([Focal(gamma=3.0), Scores()]))
        self.refuses(half_done, build_method("erm"))
        run(half_done, Composite([Focal(gamma=2.0), Scores()]), epochs=2)  # the same one goes on

    def test_other_data_or_another_split(self, half_done):
        images = COHORT.images.copy()
        images[0, 0, 0, 0] ^= 1
        self.refuses(half_done, cohort=dataclasses.replace(COHORT, images=images))
        split = COHORT.table["split"].replace({"val": "test", "test": "val"})
        self.refuses(half_done, cohort=COHORT.with_split(split))

    def test_another_recipe_by_another_modality(self, tmp_path, monkeypatch):
        monkeypatch.setattr(loop._Run, "_validate", lambda *_: (_ for _ in ()).throw(Killed))
        for modality in ("radiograph", "oct"):
            cohort = dataclasses.replace(COHORT, modality=modality)
            expected = Killed if modality == "radiograph" else InputError
            with pytest.raises(expected):
                run(tmp_path, cohort=cohort, augment="auto")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
    def test_a_broken_checkpoint(self, half_done, content):
        path = half_done / "checkpoints" / "last.pt"
        path.write_bytes(path.read_bytes()[:1000] if content is None else content)
        with pytest.raises(InputError, match=r"last.pt is not a readable checkpoint; delete it"):
            run(half_done, epochs=2)

    def test_a_checkpoint_of_something_else(self, half_done):
        torch.save([1, 2], half_done / "checkpoints" / "last.pt")
        self.refuses(half_done)

    def test_the_default_method_is_recognised_by_another_process(self):
        """Python's own repr holds a memory address, which no second run has."""
        assert repr(Hooks()) == "Hooks"
        assert repr(build_method("focal+mixup", focal={"gamma": 3})) == "focal(gamma=3.0) + mixup()"


class TestCheckpoint:
    def test_a_failed_write_leaves_the_one_before(self, tmp_path, monkeypatch):
        run(tmp_path, epochs=1)
        path = tmp_path / "checkpoints" / "last.pt"
        before = path.read_bytes()

        def fail(_state, where):
            Path(where).write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr("trueread.training.checkpoint.torch.save", fail)
        from trueread.training.checkpoint import save_checkpoint

        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(tmp_path / "checkpoints", {})
        assert path.read_bytes() == before

    def test_is_dropped_with_its_folder(self, tmp_path):
        from trueread.training.checkpoint import drop_checkpoint

        run(tmp_path, epochs=1)
        drop_checkpoint(tmp_path / "checkpoints")
        assert list(tmp_path.iterdir()) == []
        drop_checkpoint(tmp_path / "checkpoints")

    def test_numbers_in_it_are_plain(self, tmp_path):
        """weights_only refuses numpy scalars, which a metric could bring into the history."""
        fitted = run(tmp_path, epochs=1)
        state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
        assert state["history"][0]["val_auroc"] == fitted.history["val_auroc"][0]
        assert all(type(v) in (int, float) for v in state["history"][0].values())
        assert not np.isnan(state["best"]["key"]).any()
