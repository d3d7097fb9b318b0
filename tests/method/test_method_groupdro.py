"""GroupDRO: its weights against a slow textbook loop, whom it draws, and a planted shortcut that it undoes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_method_clean import right_when_flipped, shortcut_world, with_column
from test_method_seam import survives

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread.errors import InputError
from trueread.method import groupdro
from trueread.method.base import build_method
from trueread.method.groupdro import ascended
from trueread.training.loop import fit
from trueread.training.steps import Stepper


def prepared(cohort, **options):
    method = build_method("groupdro", **options)
    method.prepare(tiny_setup(cohort))
    return method


def by_site(n: int = 200, share: float = 0.4):
    cohort = tiny_cohort("multiclass", n=n, share=share)
    return with_column(cohort, site=np.where(np.random.default_rng(1).random(n) < 0.3, "B", "A"))


def batch(index, losses):
    index = torch.as_tensor(index)
    step = tiny_step(torch.zeros(len(index), 2), torch.zeros(len(index), dtype=torch.int64))
    step.index, step.per_sample_loss = index, torch.as_tensor(losses, dtype=torch.float32)
    return step


def textbook(groups, sizes, q, index, losses, *, step, adjustment):
    """One update of the shares and the batch's loss, in plain Python: (q, sum of q_g times the mean loss of g)."""
    of_group = {g: [v for i, v in zip(index, losses, strict=True) if groups[i] == g] for g in range(len(q))}
    means = {g: sum(v) / len(v) for g, v in of_group.items() if v}
    q = [q[g] * math.exp(step * (means[g] + adjustment / math.sqrt(sizes[g]))) if g in means else q[g]
         for g in range(len(q))]  # fmt: skip
    q = [v / sum(q) for v in q]
    return q, sum(q[g] * m for g, m in means.items())


class TestWeights:
    @pytest.mark.parametrize(("step", "adjustment"), [(0.01, 0.0), (0.5, 0.0), (0.5, 3.0), (0.0, 1.0)])
    def test_textbook_loop_over_many_batches(self, step, adjustment):
        method = prepared(by_site(), attribute="site", step=step, adjustment=adjustment)
        groups = method.groups.tolist()
        sizes = [groups.count(g) for g in range(6)]
        assert min(sizes) > 0
        generator, q = np.random.default_rng(0), [1 / 6] * 6
        for _ in range(30):
            index = generator.integers(0, len(groups), 12)
            losses = generator.exponential(2.0, 12) * (1 + np.array(groups)[index])
            q, expected = textbook(groups, sizes, q, index, losses, step=step, adjustment=adjustment)
            weights = method.weights(batch(index, losses)).double()
            assert float((weights * torch.from_numpy(losses)).sum()) == pytest.approx(expected, rel=1e-4)
            here = {groups[i] for i in index}
            assert float(weights.sum()) == pytest.approx(sum(q[g] for g in here), rel=1e-4)
        assert method.log_q.exp().tolist() == pytest.approx(q, rel=1e-3)
        assert method.report()["final_q"] == pytest.approx(dict(zip(method.names, q, strict=True)), abs=1e-3)
        assert list(method.report()["group_sizes"].values()) == sizes

    def test_a_group_that_is_not_in_the_batch_loses_only_what_the_others_gain(self):
        log_q = torch.tensor([0.2, 0.3, 0.5]).log()
        after = ascended(log_q, torch.tensor([1.0, 3.0, 0.0]), step=0.1).exp()
        raw = torch.tensor([0.2 * math.exp(0.1), 0.3 * math.exp(0.3), 0.5])
        torch.testing.assert_close(after, raw / raw.sum())

    def test_extreme_losses_leave_shares_that_can_come_back(self):
        log_q = torch.zeros(2).log_softmax(0)
        for _ in range(100):
            log_q = ascended(log_q, torch.tensor([1e4, 0.0]), step=10.0)
        assert log_q.isfinite().all()
        for _ in range(101):
            log_q = ascended(log_q, torch.tensor([0.0, 1e4]), step=10.0)
        assert log_q.exp().tolist() == [0.0, 1.0]

    def test_the_shares_stay_where_they_are_for_a_recorded_step(self):
        method = prepared(by_site(), attribute="site", step=1.0)
        place, before = method.log_q.data_ptr(), method.log_q.clone()
        method.weights(batch([0, 1, 2], [1.0, 2.0, 3.0]))
        assert method.log_q.data_ptr() == place
        assert not torch.equal(method.log_q, before)

    def test_two_processes_have_the_weights_of_one(self, monkeypatch):
        """Each sees a half of the batch, and the sums of both."""
        index = np.random.default_rng(0).integers(0, 60, 16)
        losses = np.random.default_rng(1).exponential(1.0, 16)
        alone = prepared(by_site(), attribute="site", step=1.0)
        expected = alone.weights(batch(index, losses))
        halves, sums = [slice(0, 7), slice(7, 16)], []
        gather = SimpleNamespace(sum=lambda values: sums.append(values) or values)
        monkeypatch.setattr(groupdro, "processes", lambda: gather)
        for half in halves:
            method = prepared(by_site(), attribute="site", step=1.0)
            method.weights(batch(index[half], losses[half]))
        monkeypatch.setattr(groupdro, "processes", lambda: SimpleNamespace(sum=lambda _values: sums[0] + sums[1]))
        found = []
        for half in halves:
            method = prepared(by_site(), attribute="site", step=1.0)
            found.append(method.weights(batch(index[half], losses[half])))
            torch.testing.assert_close(method.log_q, alone.log_q)
        torch.testing.assert_close(torch.cat(found), expected)


class TestTraining:
    def test_draws_every_group_equally_often(self):
        method = prepared(by_site(), attribute="site")
        drawn = np.bincount(method.groups.numpy(), weights=method.sampling(None).numpy())
        assert drawn == pytest.approx(np.ones(6))

    def test_the_loops_loss_is_the_textbooks_divided_by_the_shares_that_are_there(self, monkeypatch):
        """And with all groups in the batch that divisor is 1."""
        seen = []
        loss = Stepper.loss

        def spied(self, step, n):
            value = loss(self, step, n)
            q, groups = self.hooks.log_q.exp(), self.hooks.groups[step.index]
            here = groups.unique()
            means = torch.stack([step.per_sample_loss[groups == g].mean() for g in here])
            expected = (q[here] * means).sum() / q[here].sum()
            seen.append((value.item(), expected.item(), len(here)))
            return value

        monkeypatch.setattr(Stepper, "loss", spied)
        fit(by_site(), build_method("groupdro", attribute="site", step=0.1), tiny_config(), quiet=True)
        for found, expected, _ in seen:
            assert found == pytest.approx(expected, rel=1e-4)
        assert max(n for *_, n in seen) == 6

    def test_undoes_a_planted_shortcut(self):
        world = shortcut_world(prevalence=0.9)
        plain, _ = right_when_flipped("erm", world)
        robust, report = right_when_flipped("groupdro", world, step=0.1)
        assert robust > plain + 0.2
        assert sum(report["final_q"].values()) == pytest.approx(1, abs=1e-3)
        q = report["final_q"]
        assert q["normal, planted: True"] + q["mild, planted: False"] > 0.4, "the groups that contradict the shortcut"
        assert sum(report["group_sizes"].values()) == len(world[0].rows("train"))

    def test_survives_and_composes(self, tmp_path):
        survives(lambda: build_method("groupdro+mixup", groupdro={"attribute": "site", "step": 1.0}), tmp_path,
                 cohort=by_site())  # fmt: skip


@pytest.mark.parametrize(
    ("cohort", "attribute", "sentence"),
    [
        (tiny_cohort(), "planted", "tiny-binary has no planted cue; name the attribute"),
        (by_site(), "sight", "no attribute 'sight'. Did you mean 'site'"),
        (with_column(tiny_cohort(), site="A"), "site", "'site' has one value"),
        (with_column(tiny_cohort("multilabel"), site="A"), "site", "the task is multilabel"),
    ],
)
def test_groups_that_cannot_be_made(cohort, attribute, sentence):
    with pytest.raises(InputError, match=sentence):
        prepared(cohort, attribute=attribute)


@pytest.mark.parametrize("options", [{"step": -0.1}, {"step": 11}, {"adjustment": -1}, {"attribute": 3}])
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=r"method 'groupdro': '.*' must be"):
        build_method("groupdro", **options)
