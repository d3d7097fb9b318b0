"""The loop's small parts against closed forms: learning rate, averaged weights, batches, the ledger."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from tiny import tiny_cohort
from trueread.training.batches import ImageStore, batch_slices, batches, epoch_order
from trueread.training.config import TrainConfig
from trueread.training.device import autocast, choose_device, choose_precision
from trueread.training.evaluate import evaluation_batch
from trueread.training.hooks import as_targets, cross_entropy
from trueread.training.ledger import Ledger
from trueread.training.schedule import learning_rate_factor, make_optimizer, update_average

CPU = torch.device("cpu")


class TestLearningRate:
    def test_closed_form(self):
        def factors(schedule, warmup=0.2):
            return [learning_rate_factor(k, 10, warmup=warmup, schedule=schedule) for k in range(10)]

        assert factors("constant") == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)
        assert factors("linear") == pytest.approx([1 / 3, 2 / 3] + [1 - k / 8 for k in range(8)])
        cosine = [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
        assert factors("cosine") == pytest.approx([1 / 3, 2 / 3, *cosine])
        assert factors("constant", warmup=0.0) == [1.0] * 10

    @given(
        steps=st.integers(1, 500),
        warmup=st.floats(0, 0.999),
        schedule=st.sampled_from(["cosine", "linear", "constant"]),
    )
    @settings(max_examples=60, deadline=None)
    def test_every_step_moves_and_it_rises_once_then_falls(self, steps, warmup, schedule):
        values = [learning_rate_factor(k, steps, warmup=warmup, schedule=schedule) for k in range(steps)]
        assert min(values) > 0
        assert max(values) <= 1
        top = values.index(max(values))
        assert all(a < b for a, b in pairwise(values[: top + 1]))
        assert all(a >= b for a, b in pairwise(values[top:]))


class TestOptimizer:
    def test_norms_and_biases_are_not_decayed_and_further_weights_are_trained(self):
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
        network[0].bias.requires_grad_(False)
        probe = nn.Linear(3, 2)
        optimizer = make_optimizer(network, probe.parameters(), TrainConfig(weight_decay=0.5))
        decayed, plain = optimizer.param_groups
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
        assert [id(p) for p in decayed["params"]] == [id(network[0].weight), id(network[3].weight), id(probe.weight)]
        assert [id(p) for p in plain["params"]] == [
            id(p) for p in (*network[1].parameters(), network[3].bias, probe.bias)
        ]

    @pytest.mark.parametrize(
        ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
    )
    def test_is_the_one_asked_for(self, name, kind):
        optimizer = make_optimizer(nn.Linear(1, 1), (), TrainConfig(optimizer=name, learning_rate=0.3))
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["lr"] == 0.3


class TestAverage:
    def test_closed_form_after_k_steps_towards_constant_weights(self):
        average, current = (
            nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
            nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        )
        start = average[0].weight.detach().clone()
        target = current[0].weight.detach().clone()
        current[1].running_mean.fill_(7.0)
        for _ in range(5):
            update_average(average, current, decay=0.9)
        assert torch.allclose(average[0].weight, target + 0.9**5 * (start - target), atol=1e-6)
        assert torch.equal(average[1].running_mean, torch.full((2,), 7.0))
        assert torch.equal(current[0].weight, target), "the network itself must not move"


class TestBatches:
    def test_the_order_is_a_permutation_that_the_generator_decides(self):
        first = epoch_order(100, generator=torch.Generator().manual_seed(1))
        again = epoch_order(100, generator=torch.Generator().manual_seed(1))
        other = epoch_order(100, generator=torch.Generator().manual_seed(2))
        assert sorted(first) == list(range(100))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert not np.array_equal(first, np.arange(100))

    def test_sampling_draws_with_replacement_by_the_probabilities(self):
        order = epoch_order(
            4000, generator=torch.Generator().manual_seed(0), sampling=torch.tensor([0.0, 1.0, 3.0] + [0.0] * 3997)
        )
        counts = np.bincount(order, minlength=4000)
        assert len(order) == 4000
        assert counts[1] + counts[2] == 4000
        assert abs(counts[2] - 3000) < 4 * math.sqrt(4000 * 0.25 * 0.75)

    @given(n=st.integers(1, 300), size=st.integers(2, 64))
    @settings(max_examples=200, deadline=None)
    def test_slices_cover_all_and_never_leave_one_alone(self, n, size):
        lengths = [s.stop - s.start for s in batch_slices(n, size)]
        assert sum(lengths) == n
        assert [s.start for s in batch_slices(n, size)] == list(np.cumsum([0, *lengths[:-1]]))
        assert max(lengths) <= size + 1
        assert n == 1 or min(lengths) >= 2
        assert np.array_equal(np.concatenate(list(batches(np.arange(n), size))), np.arange(n))


class TestImageStore:
    @pytest.mark.parametrize("white", [255, 4095, 65535])
    def test_every_stored_intensity_is_its_share_of_white(self, white):
        cohort = tiny_cohort(n=40, white=white)
        levels = np.linspace(0, white, 16 * 16).round().astype(cohort.images.dtype)
        cohort.images[3, 0] = levels.reshape(16, 16)
        batch = ImageStore(cohort, CPU).batch(np.array([3, 0]))
        assert batch.dtype == torch.float32
        expected = (levels.astype(np.float64) / white).astype(np.float32)
        assert np.array_equal(batch[0, 0].numpy().ravel(), expected), "to the last bit, as the GPU divides"
        assert batch[0].min() == 0
        assert batch[0].max() == 1
        assert np.array_equal((batch[1] * white).round().numpy(), cohort.images[0])

    def test_neighbouring_16_bit_intensities_stay_apart(self):
        cohort = tiny_cohort(n=40, white=65535)
        cohort.images[0, 0] = np.arange(65535 - 256, 65535).reshape(16, 16)
        assert len(np.unique(ImageStore(cohort, CPU).batch(np.array([0])).numpy())) == 256

    def test_the_cohort_is_not_changed(self):
        cohort = tiny_cohort(n=40)
        before = cohort.images.copy()
        ImageStore(cohort, CPU).batch(np.arange(40)).zero_()
        assert np.array_equal(cohort.images, before)

    def test_reads_memory_mapped_images(self, tmp_path):
        cohort = tiny_cohort(n=40)
        np.save(tmp_path / "images.npy", cohort.images)
        mapped = dataclasses.replace(cohort, images=np.load(tmp_path / "images.npy", mmap_mode="r"))
        rows = np.array([5, 1, 5])
        assert torch.equal(ImageStore(mapped, CPU).batch(rows), ImageStore(cohort, CPU).batch(rows))


class TestLedger:
    def ledger(self, losses: list[list[float]]) -> Ledger:
        made = Ledger(torch.arange(len(losses[0])), torch.zeros(len(losses[0]), dtype=torch.int64), epochs=len(losses))
        made.loss = torch.tensor(losses)
        made.epoch = len(losses) - 1
        return made

    def test_smoothed_loss_closed_form(self):
        nan = math.nan
        ledger = self.ledger([[1.0, nan, nan, 4.0], [3.0, 2.0, nan, nan], [5.0, 6.0, nan, 8.0]])
        b = 0.7
        expected = [b * (b * 1 + 0.3 * 3) + 0.3 * 5, b * 2 + 0.3 * 6, nan, b * 4 + 0.3 * 8]
        assert torch.allclose(ledger.smoothed_loss(b), torch.tensor(expected), equal_nan=True)
        assert torch.allclose(ledger.smoothed_loss(0.0), torch.tensor([5.0, 6.0, nan, 8.0]), equal_nan=True)

    def test_epochs_to_come_do_not_count(self):
        ledger = self.ledger([[1.0], [3.0], [9.0]])
        ledger.epoch = 1
        assert ledger.smoothed_loss(0.5).item() == 2.0

    def test_record_enters_the_epoch_and_nothing_else(self):
        ledger = Ledger(torch.arange(4), torch.zeros(4, dtype=torch.int64), epochs=2)
        ledger.open(1, CPU)
        ledger.record(torch.tensor([2, 0]), torch.tensor([math.log(4.0), 0.0], requires_grad=True))
        assert ledger.loss.isnan().all()
        ledger.close()
        assert torch.allclose(ledger.loss[1], torch.tensor([0.0, math.nan, math.log(4.0), math.nan]), equal_nan=True)
        assert torch.allclose(ledger.probability[1], torch.tensor([1.0, math.nan, 0.25, math.nan]), equal_nan=True)
        assert ledger.loss[0].isnan().all()
        assert not ledger.loss.requires_grad

    def test_state_round_trip(self):
        ledger = self.ledger([[1.0, 2.0], [3.0, 4.0]])
        other = Ledger(ledger.rows, ledger.labels, epochs=2)
        other.load_state(ledger.state())
        assert torch.equal(other.loss, ledger.loss)
        assert other.epoch == 1


class TestCrossEntropy:
    def test_is_torchs_for_labels_and_for_distributions(self):
        logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
        expected = nn.functional.cross_entropy(logits, labels, reduction="none")
        assert torch.allclose(cross_entropy(logits, as_targets(labels, 3)), expected, atol=1e-6)
        soft = torch.softmax(torch.randn(6, 3), 1)
        assert torch.allclose(
            cross_entropy(logits, soft), nn.functional.cross_entropy(logits, soft, reduction="none"), atol=1e-6
        )

    def test_multilabel_is_the_mean_over_known_labels(self):
        logits = torch.randn(3, 3, requires_grad=True)
        targets = torch.tensor([[1.0, 0.0, math.nan], [0.0, math.nan, math.nan], [math.nan] * 3])
        loss = cross_entropy(logits, targets, multilabel=True)
        p = logits.detach().sigmoid()
        expected = [(-p[0, 0].log() - (1 - p[0, 1]).log()) / 2, -(1 - p[1, 0]).log(), 0.0]
        assert torch.allclose(loss.detach(), torch.tensor([float(e) for e in expected]), atol=1e-6)
        loss.sum().backward()
        assert torch.equal(logits.grad.ne(0), ~targets.isnan()), "an unknown label has no gradient"

    @pytest.mark.parametrize("multilabel", [False, True])
    def test_is_finite_at_extreme_logits(self, multilabel):
        logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
        loss = cross_entropy(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), multilabel=multilabel)
        assert torch.allclose(loss.detach(), torch.tensor([0.0, 100.0 if multilabel else 200.0]))
        loss.sum().backward()
        assert torch.isfinite(logits.grad).all()


class TestConfig:
    @pytest.mark.parametrize("rule", ["youden", "sensitivity>=1.5", "0", "1.0", ""])
    def test_an_unknown_threshold_rule_is_found_before_training(self, rule):
        with pytest.raises(ValidationError, match="is no rule for a threshold"):
            TrainConfig(threshold_rule=rule)

    @pytest.mark.parametrize("rule", ["balanced-accuracy", "sensitivity>=0.95", "0.5"])
    def test_known_threshold_rules_pass(self, rule):
        assert TrainConfig(threshold_rule=rule).threshold_rule == rule


class TestDevice:
    def test_fp16_does_not_train_on_a_cpu(self):
        with pytest.raises(ValueError, match="use `precision: auto`"):
            choose_precision("fp16", CPU)

    def test_volumes_do_not_train_in_bf16_on_a_cpu(self):
        assert choose_precision("auto", CPU, volumes=True) == "fp32"
        with pytest.raises(ValueError, match="bf16 gradients of volumes are wrong on a CPU"):
            choose_precision("bf16", CPU, volumes=True)

    def test_an_absent_device_says_what_there_is(self):
        if torch.cuda.is_available():
            pytest.skip("CUDA is here")
        with pytest.raises(ValueError, match=r"'cuda' was asked for, but this machine has only: .*cpu"):
            choose_device("cuda")

    def test_autocast_reaches_multiplications_only_when_asked(self):
        a = torch.rand(2, 2)
        with autocast(CPU, "bf16"):
            assert (a @ a).dtype == torch.bfloat16
            with autocast(CPU, "fp32"):
                assert (a @ a).dtype == torch.float32


def test_evaluation_takes_fewer_images_at_once_the_larger_they_are():
    sides = ((28, 28), (224, 224), (64, 64, 64), (4096, 4096))
    assert [evaluation_batch(s, CPU) for s in sides] == [256, 83, 16, 1]
    assert [evaluation_batch(s, torch.device("cuda")) for s in sides] == [2048, 83, 16, 1]
