"""The seam: miniatures of the methods to come run on the one loop without touching it, and survive being killed."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from tiny import tiny_cohort, tiny_config
from trueread.method.base import Composite, Method, build_method
from trueread.model.classifier import Classifier
from trueread.model.taps import pooled
from trueread.stats.threshold import choose_threshold
from trueread.training.augment import augment_batch, recipes
from trueread.training.batches import ImageStore
from trueread.training.evaluate import predict_logits, predict_probabilities
from trueread.training.hooks import cross_entropy
from trueread.training.loop import fit

PRECISIONS = ["fp32", "bf16"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run(hooks, cohort=None, *, folder=None, **config):
    return fit(cohort or tiny_cohort(), hooks, tiny_config(**config), seed=2, folder=folder, quiet=True)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Killed(Exception):
    """The machine went away."""


def survives(make, tmp_path, **config):
    """The method's run, after checking that one killed in its second epoch and started again ends in the same bits."""
    config = {"epochs": 2, **config}
    expected = run(make(), folder=tmp_path / "whole", **config)
    method = make()
    perturb = method.perturb

    def dies(step):
        if step.epoch == 1 and step.done > 0.6:
            raise Killed
        perturb(step)

    method.perturb = dies
    with pytest.raises(Killed):
        run(method, folder=tmp_path / "killed", **config)
    torch.manual_seed(0)
    method = make()
    method.prepare = lambda _setup: pytest.fail("prepared twice")
    resumed = run(method, folder=tmp_path / "killed", **config)
    assert same(resumed.classifier, expected.classifier)
    assert torch.equal(resumed.ledger.loss.nan_to_num(-1), expected.ledger.loss.nan_to_num(-1))
    return resumed


# (a) a teacher that is trained first, on a subset, and distilled


class Distil(Method):
    """A teacher trained in `prepare` with the same loop; its predictive distribution is a penalty."""

    name = "distil"

    def __init__(self, *, opposite: bool = False) -> None:
        self.opposite = opposite

    def prepare(self, setup):
        clean = setup.cohort.subset(np.concatenate([setup.train_rows[::2], setup.val_rows]))
        if self.opposite:
            clean = dataclasses.replace(clean, labels=1 - clean.labels)
        config = setup.config.model_copy(update={"epochs": 3, "batch_size": 12, "augment": "none", "select": "last"})
        teacher = setup.fit(clean, build_method("erm"), config, seed=setup.seed + 1, quiet=True)
        if setup.folder is not None:
            teacher.classifier.save(setup.folder / "teacher")
        self.take(teacher.classifier, setup)

    def take(self, teacher, setup):
        self.teacher = teacher.requires_grad_(False).eval().to(setup.device)

    def penalty(self, step):
        with step.autocast(), torch.no_grad():
            wanted = self.teacher(step.images).logits.float().log_softmax(1)
        return {"kl": 20 * F.kl_div(step.logits.log_softmax(1), wanted, log_target=True, reduction="batchmean")}

    def load_state(self, state, setup):
        self.take(Classifier.load(setup.folder / "teacher"), setup)


class TestTeacher:
    def test_the_student_follows_a_teacher_that_says_the_opposite_of_the_labels(self, tmp_path):
        cohort, distil = tiny_cohort(n=200), Distil(opposite=True)
        student = run(distil, cohort, folder=tmp_path, epochs=4, select="last")
        free = run(build_method("erm"), cohort, epochs=4, select="last")
        rows = cohort.rows("test")
        right = [
            (predict_probabilities(c, cohort, rows).argmax(1) == cohort.labels[rows]).mean()
            for c in (free.classifier, distil.teacher, student.classifier)
        ]
        assert right[0] > 0.9
        assert right[1] < 0.1
        assert right[2] < 0.1
        assert same(distil.teacher, Classifier.load(tmp_path / "teacher")), "the teacher must not learn"
        assert not any(p.requires_grad for p in distil.teacher.parameters())

    def test_survives_and_composes(self, tmp_path):
        survives(lambda: Composite([Distil(), build_method("mixup")]), tmp_path, augment="any", ema_decay=0.9)


# (b) probes with weights of their own on intermediate maps


class Probes(Method):
    """A linear probe on every stage, trained by a penalty that also reaches the backbone; the task's loss is off."""

    name = "probes"

    def build(self, setup):
        self.taps = tuple(t for t in setup.classifier.taps if t.startswith("stage"))
        self.widths = {t: setup.classifier.taps[t][1] for t in self.taps}
        self.probes = nn.ModuleDict({t: nn.Linear(w, setup.cohort.n_classes) for t, w in self.widths.items()})
        self.probes.to(setup.device)

    def prepare(self, setup):
        self.build(setup)
        self.start = {k: v.clone() for k, v in self.probes.state_dict().items()}
        self.weights_at_start = {k: v.detach().clone() for k, v in setup.classifier.named_parameters()}

    def parameters(self):
        return self.probes.parameters()

    def weights(self, step):
        return torch.zeros(len(step.index))

    def penalty(self, step):
        said = {t: self.probes[t](pooled(step.output.taps[t], channels=self.widths[t])) for t in self.taps}
        return {t: F.cross_entropy(z, step.labels) / len(said) for t, z in said.items()}

    def state(self):
        return self.probes.state_dict()

    def load_state(self, state, setup):
        self.build(setup)
        self.probes.load_state_dict(state)


class TestProbes:
    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("composed", [False, True], ids=["alone", "composed"])
    def test_both_the_probes_and_the_backbone_learn_from_the_penalty(self, precision, composed):
        probes = Probes()
        hooks = Composite([build_method("label-smoothing"), probes]) if composed else probes
        fitted = run(hooks, precision=precision, weight_decay=0.0, epochs=2, select="last")
        assert all(not torch.equal(v, probes.start[k]) for k, v in probes.probes.state_dict().items())
        moved = {k for k, v in fitted.classifier.named_parameters() if not torch.equal(v, probes.weights_at_start[k])}
        assert moved == {k for k in probes.weights_at_start if ".backbone." in k}, "all but the head"
        loss = fitted.history["train_loss"]
        assert loss[1] < loss[0] < 1.0

    def test_survives(self, tmp_path):
        survives(lambda: Composite([Probes(), build_method("mixup")]), tmp_path)


# (c) an inner maximisation on the input


class FastGradientSign(Method):
    """One step up the loss before the network sees the batch (Goodfellow et al. 2015)."""

    name = "fgsm"

    def __init__(self, *, epsilon: float = 8 / 255) -> None:
        self.epsilon, self.before, self.after = epsilon, [], []

    def loss(self, step, images):
        with step.autocast():
            logits = step.classifier(images).logits
        return cross_entropy(logits.float(), step.targets, multilabel=step.multilabel)

    def perturb(self, step):
        gradients = [None if p.grad is None else p.grad.clone() for p in step.classifier.parameters()]
        buffers = {k: v.clone() for k, v in step.classifier.named_buffers()}
        step.classifier.eval()
        x = step.images.detach().requires_grad_()
        loss = self.loss(step, x)
        (slope,) = torch.autograd.grad(loss.sum(), x)
        step.images = (x + self.epsilon * slope.sign()).clamp(0, 1).detach()
        with torch.no_grad():
            self.before.append(loss.detach().mean())
            self.after.append(self.loss(step, step.images).mean())
        step.classifier.train()
        for p, g in zip(step.classifier.parameters(), gradients, strict=True):
            assert (p.grad is None) == (g is None), "the attack left a gradient in the network"
            assert g is None or torch.equal(p.grad, g)
        assert all(torch.equal(v, buffers[k]) for k, v in step.classifier.named_buffers()), "and moved its statistics"
        assert (step.images - x).abs().max() <= self.epsilon + 1e-6


class TestAttack:
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_raises_the_loss_and_leaves_nothing_behind(self, precision):
        attack = FastGradientSign()
        fitted = run(attack, precision=precision, epochs=2, ema_decay=0.5)
        assert torch.stack(attack.after).mean() > torch.stack(attack.before).mean() + 0.01
        assert np.isfinite(fitted.history["train_loss"]).all()

    def test_multilabel_with_unknown_labels(self):
        attack = FastGradientSign()
        fitted = run(attack, tiny_cohort("multilabel"))
        assert fitted.ledger.loss.isfinite().all()
        assert torch.stack(attack.after).mean() > torch.stack(attack.before).mean()

    def test_survives(self, tmp_path):
        survives(FastGradientSign, tmp_path, augment="any")


# (d) the plan of the next epoch from every sample's history


class Trim(Method):
    """Leaves out the fifth of the samples with the highest smoothed loss, decided after every epoch."""

    name = "trim"

    def prepare(self, setup):
        self.keep, self.left_out = torch.ones(len(setup.ledger)), []

    def weights(self, step):
        return self.keep[step.index]

    def after_epoch(self, ledger):
        assert ledger.smoothed_loss().isfinite().all(), "excluded samples stay in the ledger"
        rank = ledger.smoothed_loss().argsort().argsort()
        self.keep = (rank < round(0.8 * len(ledger))).float()
        self.left_out.append((self.keep == 0).nonzero().squeeze(1).tolist())

    def report(self):
        return {"left_out": self.left_out}

    def state(self):
        return {"keep": self.keep, "left_out": self.left_out}

    def load_state(self, state, setup):
        self.keep, self.left_out = state["keep"], state["left_out"]


class TestLedger:
    def test_wrong_labels_are_found_and_kept_out(self):
        cohort = tiny_cohort(n=200)
        train = cohort.rows("train")
        wrong = np.random.default_rng(0).choice(len(train), len(train) // 10, replace=False)
        labels = cohort.labels.copy()
        labels[train[wrong]] = 1 - labels[train[wrong]]
        fitted = run(Trim(), dataclasses.replace(cohort, labels=labels), epochs=3)
        assert fitted.ledger.loss.isfinite().all()
        found = set(fitted.report["left_out"][-1])
        assert len(found & set(wrong.tolist())) > 0.8 * len(wrong)

    def test_survives_with_sampling_that_leaves_samples_unseen(self, tmp_path):
        class Tolerant(Trim):
            def after_epoch(self, ledger):
                ledger = dataclasses.replace(Seen(ledger))
                super().after_epoch(ledger)

        resumed = survives(lambda: Composite([Tolerant(), build_method("balanced-sampling")]), tmp_path)
        assert resumed.ledger.loss.isnan().any()
        assert len(resumed.report["trim"]["left_out"]) == 2


@dataclasses.dataclass
class Seen:
    """A ledger whose unseen samples count as of loss 0."""

    ledger: object

    def __len__(self) -> int:
        return len(self.ledger)

    def smoothed_loss(self):
        return self.ledger.smoothed_loss().nan_to_num(0)


# (e) a second derivative, in float32 inside a mixed-precision run


class FlatInput(Method):
    """Penalises the norm of the input gradient (double backward); the task's own loss is off."""

    name = "flat-input"

    def prepare(self, setup):
        self.seen = []

    def weights(self, step):
        return torch.zeros(len(step.index))

    def slope(self, classifier, step, dtype=torch.float32):
        x = step.images.detach().to(dtype).requires_grad_()
        loss = cross_entropy(classifier(x).logits, step.targets.to(dtype))
        return torch.autograd.grad(loss.sum(), x, create_graph=True)[0]

    def penalty(self, step):
        exact = self.slope(copy.deepcopy(step.classifier).double(), step, torch.float64)
        slope = self.slope(step.classifier, step)
        assert (slope - exact).abs().max() < 1e-4 * exact.abs().max(), "bf16 would be off by a hundredth"
        size = slope.flatten(1).pow(2).sum(1).mean()
        self.seen.append(float(size.detach()))
        return {"slope": 100 * size}

    def load_state(self, state, setup):
        self.seen = []


class FlatMap(FlatInput):
    """The same on the last map, out of the loop's own forward pass, in the run's precision."""

    name, taps = "flat-map", ("stage4",)

    def penalty(self, step):
        loss = cross_entropy(step.logits, step.targets)
        (slope,) = torch.autograd.grad(loss.sum(), step.output.taps["stage4"], create_graph=True)
        size = slope.float().flatten(1).pow(2).sum(1).mean()
        self.seen.append(float(size.detach()))
        return {"slope": 100 * size}


class TestSecondDerivative:
    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("kind", [FlatInput, FlatMap])
    def test_it_is_minimised(self, precision, kind):
        method = kind()
        run(method, precision=precision, epochs=3, select="last")
        assert np.mean(method.seen[-3:]) < 0.5 * np.mean(method.seen[:3])

    def test_survives(self, tmp_path):
        survives(FlatInput, tmp_path, precision="bf16")


# (f) a pretraining stage that replaces the backbone's weights


class TwoViews(Method):
    """Pretrains the backbone without labels: two views of an image have equal features, of unit spread in the batch."""

    name = "two-views"

    def prepare(self, setup):
        network, recipe = setup.classifier.network.backbone, recipes()["any"]
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        generator = torch.Generator(setup.device).manual_seed(setup.seed)
        setup.classifier.train()
        self.first, self.losses_seen = None, []
        for _ in range(4):
            for part in np.array_split(setup.train_rows, 3):
                x = setup.store.batch(part)
                views = [augment_batch(x, recipe, generator) for _ in range(2)]
                with setup.autocast():
                    a, b = (setup.classifier(v).features.float() for v in views)
                loss = (a - b).pow(2).mean() + F.relu(1 - a.std(0)).mean() + F.relu(1 - b.std(0)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.losses_seen.append(float(loss.detach()))
        self.left = {k: v.clone() for k, v in setup.classifier.state_dict().items()}

    def perturb(self, step):
        if self.first is None:
            self.first = {k: v.clone() for k, v in step.classifier.state_dict().items()}
        assert step.classifier.training

    def load_state(self, state, setup):
        self.first = {}


class TestPretraining:
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_training_starts_where_it_ended(self, precision):
        views = TwoViews()
        run(views, precision=precision)
        assert np.mean(views.losses_seen[-3:]) < np.mean(views.losses_seen[:3])
        assert all(torch.equal(v, views.left[k]) for k, v in views.first.items())

    def test_so_do_the_averaged_weights(self):
        views = TwoViews()
        fitted = run(views, ema_decay=0.999999)
        kept = fitted.classifier.state_dict()
        weights = [k for k, _ in fitted.classifier.named_parameters()]
        assert all(torch.allclose(kept[k], views.left[k], atol=1e-4) for k in weights)

    def test_survives(self, tmp_path):
        survives(TwoViews, tmp_path, ema_decay=0.9)


# (g) a last layer refitted at the end


class RefitHead(Method):
    """Refits the last layer by balanced logistic regression on validation features (DFR in miniature)."""

    name = "refit-head"

    def finish(self, setup):
        head = setup.classifier.network.head[1]
        self.before = head.weight.detach().clone()
        assert not setup.classifier.training
        with torch.no_grad():
            features = setup.classifier(setup.store.batch(setup.val_rows)).features.cpu().numpy()
        labels = setup.cohort.labels[setup.val_rows]
        fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000).fit(features, labels)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(np.concatenate([-fitted.coef_, fitted.coef_]) / 2))
            head.bias.copy_(torch.from_numpy(np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2))
        self.oracle = fitted.predict_proba(features)[:, 1]

    def report(self):
        return {"moved": float((self.before - 0).norm())}


class TestFinish:
    def test_the_refitted_head_is_what_is_kept_calibrated_and_saved(self, tmp_path):
        cohort, refit = tiny_cohort(n=200, share=0.2), RefitHead()
        labels = np.where(np.random.default_rng(1).random(200) < 0.15, 1 - cohort.labels, cohort.labels)
        cohort = dataclasses.replace(cohort, labels=labels)
        fitted = run(refit, cohort, epochs=2, ema_decay=0.5)
        plain = run(build_method("erm"), cohort, epochs=2, ema_decay=0.5)
        head = fitted.classifier.network.head[1].weight
        assert torch.equal(refit.before, plain.classifier.network.head[1].weight)
        assert not torch.allclose(head, refit.before)
        assert same(fitted.classifier.network.backbone, plain.classifier.network.backbone)
        loaded = Classifier.load(fitted.classifier.save(tmp_path))
        rows = cohort.rows("val")
        p = predict_probabilities(loaded, cohort, rows)[:, 1]
        odds = np.log(refit.oracle / (1 - refit.oracle)) / loaded.card.temperature
        assert np.allclose(p, 1 / (1 + np.exp(-odds)), atol=1e-4)
        assert loaded.card.threshold == choose_threshold(p, labels[rows], rule="balanced-accuracy")
        assert loaded.card.threshold != plain.classifier.card.threshold
        assert fitted.report["moved"] > 0


# (h) training images that a method makes itself


class Rewritten(Method):
    """Trains on a data set of its own making, kept in 16 bits: the images' mirror image, under the opposite label."""

    name = "rewritten"

    def prepare(self, setup):
        images = (setup.cohort.images[..., ::-1].astype(np.uint16) * 257).copy()
        self.put(images, setup)
        if setup.folder is not None:
            setup.folder.mkdir(parents=True, exist_ok=True)
            np.save(setup.folder / "rewritten.npy", images)

    def put(self, images, setup):
        setup.store = ImageStore(dataclasses.replace(setup.cohort, images=images, white=65535), setup.device)
        self.seen = []

    def perturb(self, step):
        step.targets = step.targets.flip(1)
        self.seen.append((step.rows, step.images))

    def load_state(self, state, setup):
        self.put(np.load(setup.folder / "rewritten.npy", mmap_mode="r"), setup)


class TestOwnData:
    def test_is_what_trains_and_validation_stays_the_cohorts(self):
        cohort, rewritten = tiny_cohort(), Rewritten()
        fitted = run(rewritten, epochs=3, select="last")
        rows, images = rewritten.seen[0]
        assert np.allclose(images.numpy(), cohort.images[rows][..., ::-1] / 255, atol=1e-7)
        val = cohort.rows("val")
        loss = F.cross_entropy(
            predict_logits(fitted.classifier, ImageStore(cohort, torch.device("cpu")), val),
            torch.from_numpy(cohort.labels[val]),
        )
        assert float(loss) == pytest.approx(fitted.history["val_loss"].iloc[-1], rel=1e-5)

    def test_survives(self, tmp_path):
        survives(Rewritten, tmp_path, augment="any")
