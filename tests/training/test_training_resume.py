"""A run that is killed and started again ends in the same bits as one that never was."""

from __future__ import annotations

import dataclasses
import errno
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tiny import Frozen, tiny_cohort, tiny_config
from trueread.errors import InputError
from trueread.files import DiskFull
from trueread.method.base import Composite, Method, build_method
from trueread.training import loop
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.hooks import Hooks
from trueread.training.interrupt import Interruption
from trueread.training.loop import Fitted, fit
from trueread.training.steps import Stepper


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

        def dies(self):
            calls.append(1)
            if len(calls) == 2:
                raise Killed
            validate(self)

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

    def test_the_default_method_is_recognised_by_another_process(self):
        """Python's own repr holds a memory address, which no second run has."""
        assert repr(Hooks()) == "Hooks"
        assert repr(build_method("focal+mixup", focal={"gamma": 3})) == "focal(gamma=3.0) + mixup()"


class TestInterruption:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_step_is_finished_and_saved_and_the_run_goes_on_from_the_next(self, tmp_path, monkeypatch, number):
        """Three steps per epoch; the signal comes in the second step of the second epoch."""
        uninterrupted = run(None, everything(), **CONFIG)
        taken = count_steps(monkeypatch, at=5, then=lambda: signal.raise_signal(number))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, everything(), **CONFIG)
        assert len(taken) == 5
        assert newest(tmp_path).name.startswith("epoch-00001-step-0000002-")
        torch.manual_seed(99)
        assert_same(run(tmp_path, everything(), **CONFIG), uninterrupted)
        assert len(taken) == 4 * 3  # no step was taken twice

    def test_in_an_epochs_last_step(self, tmp_path, monkeypatch):
        uninterrupted = run(None, everything(), **CONFIG)
        taken = count_steps(monkeypatch, at=6, then=lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, everything(), **CONFIG)
        assert newest(tmp_path).name.startswith("epoch-00002-step-0000000-")
        assert_same(run(tmp_path, everything(), **CONFIG), uninterrupted)
        assert len(taken) == 4 * 3

    def test_twice_stops_at_once(self, tmp_path, monkeypatch):
        def twice():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        count_steps(monkeypatch, at=5, then=twice)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, everything(), **CONFIG)
        assert newest(tmp_path).name.startswith("epoch-00001-step-0000000-")

    def test_after_the_last_step_it_is_not_swallowed(self, tmp_path, monkeypatch):
        """Or a study would go on with its next training."""

        class Late(Hooks):
            def finish(self, setup):
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Late(), epochs=1)

    def test_signals_are_handled_as_before_when_it_is_over(self):
        before = [signal.getsignal(n) for n in Interruption.SIGNALS]
        with Interruption():
            assert signal.getsignal(signal.SIGINT) != before[0]
        assert [signal.getsignal(n) for n in Interruption.SIGNALS] == before

    def test_in_another_thread_nothing_is_listened_to(self):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: len(run(None, epochs=1).history)).result() == 1

    def test_a_long_epoch_is_saved_on_its_way(self, tmp_path, monkeypatch):
        uninterrupted = run(None, everything(), **CONFIG)
        monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 0.0)

        def die():
            raise Killed

        taken = count_steps(monkeypatch, at=6, then=die)
        with pytest.raises(Killed):
            run(tmp_path, everything(), **CONFIG)
        assert newest(tmp_path).name.startswith("epoch-00001-step-0000002-")
        assert_same(run(tmp_path, everything(), **CONFIG), uninterrupted)
        assert len(taken) == 4 * 3 + 1


def count_steps(monkeypatch, *, at: int, then) -> list[int]:
    """Counts the steps that are taken; in the one with number `at`, from 1, `then` is called first."""
    taken: list[int] = []
    real = Stepper.__call__

    def counted(self, epoch, index):
        taken.append(epoch.done)
        if len(taken) == at:
            then()
        return real(self, epoch, index)

    monkeypatch.setattr(Stepper, "__call__", counted)
    return taken


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("epoch-*.pt"))


class TestCheckpoint:
    @pytest.fixture
    def half_way(self, tmp_path, kill_at, monkeypatch) -> Path:
        kill_at(2, 0.6)
        with pytest.raises(Killed):
            run(tmp_path, everything(), **CONFIG)
        monkeypatch.setattr(Scores, "kill_at", None)
        return tmp_path

    def damage(self, path: Path, how: str) -> None:
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:1000], "one bit": flipped}[how])

    @pytest.mark.parametrize("how", ["empty", "cut", "one bit"])
    def test_a_damaged_one_is_passed_over_for_the_one_before(self, half_way, capsys, how):
        self.damage(newest(half_way), how)
        assert_same(run(half_way, everything(), **CONFIG), run(None, everything(), **CONFIG))
        warning = capsys.readouterr().err
        assert "epoch-00002" in warning
        assert "is damaged and passed over" in warning
        assert warning.count("warning") == 1

    def test_when_both_are_damaged_the_training_starts_again(self, half_way, capsys):
        for path in (half_way / "checkpoints").glob("epoch-*.pt"):
            self.damage(path, "cut")
        assert_same(run(half_way, everything(), **CONFIG), run(None, everything(), **CONFIG))
        assert capsys.readouterr().err.count("is damaged and passed over") == 2

    def test_two_are_kept(self, half_way):
        names = sorted(p.name[:11] for p in (half_way / "checkpoints").iterdir())
        assert names == ["epoch-00001", "epoch-00002"]

    def test_a_failed_write_leaves_the_ones_before(self, half_way, monkeypatch):
        before = {p: p.read_bytes() for p in (half_way / "checkpoints").iterdir()}

        def fail(_state, where):
            where.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("trueread.training.checkpoint.torch.save", fail)
        with pytest.raises(DiskFull, match="the disk is full"):
            run(half_way, everything(), **CONFIG)
        assert {p: p.read_bytes() for p in (half_way / "checkpoints").iterdir()} == before

    def test_is_dropped_with_its_folder(self, half_way):
        (half_way / "checkpoints" / "new.pt.part").write_bytes(b"of a run killed while it wrote")
        drop_checkpoint(half_way / "checkpoints")
        assert list(half_way.iterdir()) == []
        drop_checkpoint(half_way / "checkpoints")

    def test_numbers_in_it_are_plain(self, tmp_path):
        """weights_only refuses numpy scalars, which a metric could bring into the history."""
        fitted = run(tmp_path, epochs=1)
        state = torch.load(newest(tmp_path), weights_only=True)
        assert state["history"][0]["val_auroc"] == fitted.history["val_auroc"][0]
        assert all(type(v) in (int, float) for v in state["history"][0].values())
        assert not np.isnan(state["best"]["key"]).any()


def test_seconds_count_what_comes_before_and_after_the_epochs_also_when_it_was_interrupted(tmp_path, kill_at):
    class Slow(Scores):
        def prepare(self, setup) -> None:
            time.sleep(0.4)
            super().prepare(setup)

        def finish(self, setup) -> None:
            time.sleep(0.2)

    kill_at(1)
    with pytest.raises(Killed):
        run(tmp_path, Slow(), epochs=2)
    kill_at(99)
    fitted = run(tmp_path, Slow(), epochs=2)
    assert fitted.classifier.card.training["seconds"] >= fitted.history["seconds"].sum() + 0.55
