"""One run of the loop: what it promises about seeds, selection, the ledger, and mistakes."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from tiny import Frozen, tiny_cohort, tiny_config
from trueread.errors import InputError, TruereadError
from trueread.method.base import Method, build_method
from trueread.model.classifier import Classifier
from trueread.stats.threshold import choose_threshold
from trueread.training import loop
from trueread.training.augment import Recipe
from trueread.training.batches import ImageStore
from trueread.training.batchnorm import refresh_batch_norm
from trueread.training.evaluate import predict_logits, predict_probabilities
from trueread.training.hooks import Hooks
from trueread.training.loop import Fitted, fit


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    return fitted.classifier.network.state_dict()


def same(a: Fitted, b: Fitted) -> bool:
    return all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


def run(cohort=None, hooks=None, *, seed: int = 0, **config) -> Fitted:
    return fit(cohort or tiny_cohort(), hooks, tiny_config(**config), seed=seed, quiet=True)


class Watch(Method):
    """Keeps what passes by."""

    name = "watch"

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def penalty(self, step):
        self.seen.append(
            {
                "epoch": step.epoch, "index": step.index.clone(), "logits": step.logits.detach().clone(),
                "labels": step.labels.clone(), "images": step.images.clone(), "rows": step.rows.copy(),
                "targets": step.targets.clone(), "done": step.done,
            }
        )  # fmt: skip
        return {}


class TestSeeds:
    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self):
        first, again, other = (run(seed=s, augment="any", dropout=0.2, epochs=2) for s in (1, 1, 2))
        assert same(first, again)
        assert torch.equal(first.ledger.loss, again.ledger.loss)
        timing = ["seconds", "images_per_second"]
        assert first.history.drop(columns=timing).equals(again.history.drop(columns=timing))
        assert not same(first, other)

    def test_the_callers_random_numbers_are_untouched_and_untaken(self):
        random.seed(4), np.random.seed(4), torch.manual_seed(4)  # noqa: NPY002
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        first = run(hooks=build_method("mixup"), augment="any", dropout=0.2)
        assert random.getstate() == before[0]
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])
        torch.manual_seed(5)
        assert same(first, run(hooks=build_method("mixup"), augment="any", dropout=0.2))

    def test_epochs_and_steps_never_share_their_order_or_their_augmentation(self):
        watch = Watch()
        run(hooks=watch, epochs=2, augment="any")
        orders = [torch.cat([s["index"] for s in watch.seen if s["epoch"] == e]) for e in (0, 1)]
        assert torch.equal(orders[0].sort().values, torch.arange(len(orders[0])))
        assert torch.equal(orders[1].sort().values, torch.arange(len(orders[0])))
        assert not torch.equal(*orders)
        first = {int(i): x for s in watch.seen if s["epoch"] == 0 for i, x in zip(s["index"], s["images"], strict=True)}
        second = {
            int(i): x for s in watch.seen if s["epoch"] == 1 for i, x in zip(s["index"], s["images"], strict=True)
        }
        assert all(not torch.allclose(first[i], second[i], atol=1e-3) for i in first)


class TestSteps:
    def test_each_batch_is_the_training_images_with_their_own_labels(self):
        cohort, watch = tiny_cohort("multiclass", share=0.4), Watch()
        run(cohort, watch)
        train = cohort.rows("train")
        for step in watch.seen:
            assert np.array_equal(train[step["index"].numpy()], step["rows"])
            assert np.array_equal(cohort.labels[step["rows"]], step["labels"].numpy())
            assert torch.equal(step["targets"], F.one_hot(step["labels"], 3).float())
            expected = (cohort.images[step["rows"]] / 255).astype(np.float32)
            assert np.array_equal(step["images"].numpy(), expected)
        assert [s["done"] for s in watch.seen] == pytest.approx([k / 3 for k in range(3)])

    @pytest.mark.parametrize("method", ["erm", "label-smoothing", "mixup", "class-weights", "focal"])
    def test_the_ledger_is_the_cross_entropy_of_the_given_label_whatever_is_trained_on(self, method):
        watch = Watch()
        hooks = build_method(method)
        hooks.penalty = watch.penalty
        fitted = run(hooks=hooks, epochs=2)
        assert fitted.ledger.loss.isfinite().all()
        for step in watch.seen:
            by_hand = F.cross_entropy(step["logits"], step["labels"], reduction="none")
            assert torch.allclose(fitted.ledger.loss[step["epoch"], step["index"]], by_hand, atol=1e-6)
        assert torch.allclose(fitted.ledger.probability, torch.exp(-fitted.ledger.loss))

    def test_the_loss_is_the_weighted_mean_plus_the_penalties(self):
        class Loaded(Watch):
            name = "loaded"

            def losses(self, step):
                return step.index.float() + 0 * step.logits.sum()

            def weights(self, step):
                return (step.index % 3).float()

            def penalty(self, step):
                super().penalty(step)
                return {"a": torch.tensor(10.0), "b": 2 * step.logits.sum() * 0 + 1}

        watch = Loaded()
        history = run(hooks=watch).history
        expected = 0.0
        for step in watch.seen:
            i = step["index"].double()
            expected += float((((i % 3) * i).sum() / (i % 3).sum() + 11) * len(i))
        assert history["train_loss"][0] == pytest.approx(expected / len(tiny_cohort().rows("train")), rel=1e-5)

    def test_learning_rate_zero_weighted_samples_and_clipping(self):
        """A batch without weight does not move the network; a clipped gradient moves it by exactly the clipped norm."""

        class Nothing(Method):
            name = "nothing"

            def prepare(self, setup):
                self.start = {k: v.clone() for k, v in setup.classifier.named_parameters()}

            def weights(self, step):
                return torch.zeros(len(step.index))

        nothing = Nothing()
        fitted = run(hooks=nothing, weight_decay=0.0)
        assert all(torch.equal(v, nothing.start[k]) for k, v in fitted.classifier.named_parameters())
        assert fitted.ledger.loss.isfinite().all(), "excluded samples stay in the ledger"

        class Start(Method):
            name = "start"
            prepare = Nothing.prepare

        start = Start()
        sgd = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
        moved = run(hooks=start, batch_size=72, learning_rate=0.5, clip_norm=0.01, **sgd)
        change = sum((v - start.start[k]).pow(2).sum() for k, v in moved.classifier.named_parameters()).sqrt()
        assert change.item() == pytest.approx(0.5 * 0.01, rel=1e-3)

    def test_averaged_weights_are_what_is_kept(self):
        plain = run(epochs=1, select="last")
        averaged = run(epochs=1, select="last", ema_decay=0.5)

        class Path(Method):
            name = "path"

            def prepare(self, setup):
                self.classifier, self.path = setup.classifier, []

            def perturb(self, step):
                self.path.append(self.classifier.network.head[1].weight.detach().clone())

        path = Path()
        run(hooks=path, epochs=1, select="last")
        steps = [*path.path, plain.classifier.network.head[1].weight.detach()]
        average = steps[0]
        for current in steps[1:]:
            average = 0.5 * average + 0.5 * current
        assert torch.allclose(averaged.classifier.network.head[1].weight, average, atol=1e-6)


class TestSelection:
    def test_test_images_and_labels_change_nothing(self):
        cohort = tiny_cohort(n=150)
        images, labels = cohort.images.copy(), cohort.labels.copy()
        test = cohort.rows("test")
        images[test], labels[test] = 255 - images[test], 1 - labels[test]
        poisoned = dataclasses.replace(cohort, images=images, labels=labels)
        clean, dirty = run(cohort, epochs=2), run(poisoned, epochs=2)
        assert same(clean, dirty)
        a, b = clean.classifier.card, dirty.classifier.card
        assert (a.threshold, a.temperature, a.mean, a.std) == (b.threshold, b.temperature, b.mean, b.std)
        assert clean.selected_epoch == dirty.selected_epoch
        assert not np.array_equal(  # and the test images were really others
            predict_probabilities(clean.classifier, cohort, test),
            predict_probabilities(dirty.classifier, poisoned, test),
        )

    def test_validation_images_do_not_train(self):
        cohort = tiny_cohort(n=150)
        images = cohort.images.copy()
        images[cohort.rows("val")] = 255 - images[cohort.rows("val")]
        other = dataclasses.replace(cohort, images=images)
        assert same(run(cohort, select="last"), run(other, select="last"))

    @pytest.mark.parametrize(
        ("rule", "column", "sign"),
        [
            ("auroc", "val_auroc", 1),
            ("balanced-accuracy", "val_balanced_accuracy", 1),
            ("accuracy", "val_accuracy", 1),
            ("loss", "val_loss", -1),
        ],
    )
    def test_keeps_the_best_epoch_by_the_rule_and_its_weights(self, rule, column, sign):
        cohort = tiny_cohort(n=200, share=0.05, seed=3)
        fitted = run(cohort, epochs=4, select=rule, learning_rate=0.01)
        history = fitted.history
        best = history[sign * history[column] == (sign * history[column]).max()]
        assert fitted.selected_epoch == int(best.sort_values("val_loss")["epoch"].iloc[0])
        assert history.loc[history["selected"], "epoch"].tolist() == [fitted.selected_epoch]
        rows = cohort.rows("val")
        logits = predict_logits(fitted.classifier, self.store(cohort), rows)
        loss = F.cross_entropy(logits, torch.from_numpy(cohort.labels[rows]))
        assert float(loss) == pytest.approx(history.loc[history["selected"], "val_loss"].item(), rel=1e-4)

    def store(self, cohort):
        from trueread.training.batches import ImageStore

        return ImageStore(cohort, torch.device("cpu"))

    def test_last_keeps_the_last(self):
        assert run(epochs=3, select="last").selected_epoch == 3

    def test_stops_early_when_nothing_improves(self):
        fitted = run(hooks=Frozen(), epochs=9, patience=2, weight_decay=0.0)
        assert len(fitted.history) == 3
        assert fitted.selected_epoch == 1
        assert fitted.classifier.card.training["epochs"] == 3

    def test_the_operating_point_is_validations_and_on_the_card(self):
        cohort = tiny_cohort(n=200, share=0.2)
        labels = np.where(np.random.default_rng(0).random(200) < 0.15, 1 - cohort.labels, cohort.labels)
        cohort = dataclasses.replace(cohort, labels=labels)  # some wrong, so that confidence has a price
        fitted = run(cohort, epochs=2, threshold_rule="sensitivity>=0.9")
        card, rows = fitted.classifier.card, cohort.rows("val")
        p = predict_probabilities(fitted.classifier, cohort, rows)[:, 1]
        assert card.temperature == pytest.approx(self.best_temperature(fitted, cohort, rows), rel=1e-3)
        assert card.temperature != pytest.approx(1.0, rel=1e-3)
        assert card.threshold == pytest.approx(
            choose_threshold(p, cohort.labels[rows], rule="sensitivity>=0.9"), rel=1e-5
        )
        assert card.threshold_rule == "sensitivity>=0.9 on validation"
        assert card.data_digest == cohort.digest
        assert card.training["seed"] == 0
        assert card.training["augmentation"] == "none"
        assert card.training["selection_rule"] == "the epoch with the highest validation AUROC"

    def best_temperature(self, fitted, cohort, rows) -> float:
        logits = predict_logits(fitted.classifier, self.store(cohort), rows)
        labels = torch.from_numpy(cohort.labels[rows])
        grid = torch.logspace(-1.3, 1.3, 20001, dtype=torch.float64)
        loss = torch.stack([F.cross_entropy(logits / t, labels) for t in grid[::50]])
        near = int(loss.argmin()) * 50
        close = grid[max(near - 50, 0) : near + 50]
        return float(close[torch.stack([F.cross_entropy(logits / t, labels) for t in close]).argmin()])

    def test_without_validation_only_the_last_epoch_can_be_kept(self):
        cohort = tiny_cohort()
        split = cohort.table["split"].replace("val", "test")
        with pytest.raises(InputError, match="no validation split to select by"):
            run(cohort.with_split(split))
        fitted = run(cohort.with_split(split), select="last", epochs=2)
        assert fitted.selected_epoch == 2
        assert fitted.classifier.card.threshold is None
        assert fitted.classifier.card.temperature == 1.0


class TestTasks:
    @pytest.mark.parametrize("task", ["multiclass", "ordinal", "multilabel"])
    def test_every_task_trains(self, task):
        cohort = tiny_cohort(task, n=150, share=0.1)
        fitted = run(cohort, epochs=2, augment="any")
        card = fitted.classifier.card
        p = predict_probabilities(fitted.classifier, cohort)
        assert fitted.history["train_loss"].iloc[1] < fitted.history["train_loss"].iloc[0]
        if task == "multilabel":
            assert len(card.threshold) == 3
            assert not np.allclose(p.sum(1), 1)
        else:
            assert card.threshold is None
            assert np.allclose(p.sum(1), 1, atol=1e-5)

    def test_volumes_and_colour(self):
        volumes = run(tiny_cohort(depth=6, n=60), augment="volume")
        assert volumes.classifier.card.size == [6, 16, 16]
        colour = run(tiny_cohort(channels=3, n=60), augment="dermatoscopy")
        assert len(colour.classifier.card.mean) == 3

    @pytest.mark.slow
    @pytest.mark.parametrize("options", [{}, {"depth": 5, "n": 240}], ids=["images", "volumes"])
    def test_finds_a_planted_blob_at_95_to_5(self, options):
        cohort = tiny_cohort(**{"n": 600, "share": 0.05} | options)
        fitted = run(cohort, build_method("class-weights"), epochs=4)
        rows = cohort.rows("test")
        p = predict_probabilities(fitted.classifier, cohort, rows)[:, 1]
        assert roc_auc_score(cohort.labels[rows], p) > 0.95


class TestMistakes:
    def test_a_loss_that_is_no_number_names_the_images(self):
        cohort = tiny_cohort()
        bad = cohort.table["id"].iloc[cohort.rows("train")[5]]

        class Broken(Method):
            name = "broken"

            def losses(self, step):
                return torch.where(step.index == 5, torch.nan, 1.0) + 0 * step.logits.sum(1)

        with pytest.raises(
            TruereadError, match=r"became nan in epoch 1 on the images .*lower the learning rate"
        ) as error:
            run(cohort, Broken(), batch_size=4)
        assert bad in str(error.value)
        assert str(error.value).count("i0") <= 8

    def test_so_does_one_in_the_last_batch(self):
        class Last(Method):
            name = "last"

            def losses(self, step):
                return super().losses(step) * (torch.inf if step.done > 0.6 else 1.0)

        with pytest.raises(TruereadError, match="the loss became inf in epoch 1"):
            run(hooks=Last())

    @pytest.mark.parametrize(
        ("config", "sentence"),
        [
            ({"batch_size": 500}, r"batch_size is 500, but tiny-binary has only 72 training images; use 18 or fewer"),
            ({"augment": "radiographs"}, "Did you mean 'radiograph'"),
            ({"backbone": "compct"}, "Did you mean 'compact'"),
            ({"weights": "/no/such/file.pt"}, "there is no weights file"),
            ({"weights": "hub"}, "no weights on the hub"),
        ],
    )
    def test_options_that_cannot_be(self, config, sentence):
        with pytest.raises(InputError, match=sentence):
            run(**config)

    def test_a_split_that_cannot_be_trained_on(self):
        cohort = tiny_cohort()
        with pytest.raises(InputError, match="training split is empty"):
            run(cohort.with_split([""] * len(cohort)))
        one_sided = np.where((cohort.table["split"] == "train") & (cohort.labels == 1), "test", cohort.table["split"])
        with pytest.raises(InputError, match="no image of class 'mild'"):
            run(cohort.with_split(one_sided))

    def test_hooks_do_nothing_by_default(self):
        assert same(run(hooks=Hooks()), run(hooks=build_method("erm")))


def test_a_sample_without_a_known_label_is_not_believed_in_the_ledger():
    cohort = tiny_cohort("multilabel")
    labels = cohort.labels.copy()
    unknown = int(cohort.rows("train")[0])
    labels[unknown] = np.nan
    fitted = run(dataclasses.replace(cohort, labels=labels), epochs=1)
    assert fitted.ledger.loss[0, 0].isnan()
    assert fitted.ledger.probability[0, 0].isnan()
    assert fitted.ledger.loss[0, 1:].isfinite().all()


class TestBatchNorm:
    """With few steps per epoch, what is validated has the statistics of the weights as they are."""

    def test_statistics_are_those_of_the_training_images(self):
        cohort = tiny_cohort(n=160)
        store, rows = ImageStore(cohort, torch.device("cpu")), cohort.rows("train")
        torch.manual_seed(0)
        classifier = Classifier.build("compact", cohort=cohort, rows=rows).train()
        momenta = [m.momentum for m in classifier.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        refresh_batch_norm(classifier, store, rows, seed=0, precision="fp32")
        first = classifier.network.backbone.stem[1]
        with torch.no_grad():
            seen = classifier.network.backbone.stem[0]((store.batch(rows) - classifier.mean) / classifier.std)
        torch.testing.assert_close(first.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first.running_var, seen.var((0, 2, 3)), rtol=0.02, atol=1e-4)
        assert classifier.training
        assert momenta == [m.momentum for m in classifier.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def test_a_small_cohort_is_validated_as_it_was_trained(self):
        fitted = run(tiny_cohort(n=160), epochs=4, learning_rate=5e-3)
        assert fitted.history["val_loss"].max() < 1.5


def test_one_class_in_validation_cannot_select_by_auroc():
    cohort = tiny_cohort()
    split = cohort.table["split"].where(~((cohort.table["split"] == "val") & (cohort.labels == 1)), "train")
    with pytest.raises(InputError, match="one class only, so auroc can select no epoch"):
        run(cohort.with_split(split), epochs=1)


def test_masks_move_along_with_their_images(monkeypatch):
    """An image that is its own mask stays so under rotation, shift, scale and flips."""
    cohort = tiny_cohort(n=40, side=24)
    masks = (cohort.images[:, 0] > 120).astype(np.uint8)
    cohort = dataclasses.replace(cohort, images=masks[:, None] * np.uint8(255), masks=masks)
    differences = []

    class Look(Method):
        def perturb(self, step):
            moved = step.masks()
            assert moved.shape == step.images.shape
            differences.append(float((moved - step.images).abs().max()))
            assert 0.2 < float(moved.std()) < 0.5

    geometry = Recipe(rotate_degrees=180, translate=0.1, scale=0.2, flip_horizontal=0.5, flip_vertical=0.5)
    monkeypatch.setattr(loop, "recipe_for", lambda _augment, _modality: ("geometry", geometry))
    run(cohort, Look(), epochs=1)
    assert max(differences) < 1e-5
