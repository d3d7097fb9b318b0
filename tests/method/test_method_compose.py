"""Methods found by name and composed; and what every registered one, today's and tomorrow's, has to hold."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch

from tiny import tiny_cohort, tiny_config, tiny_step
from trueread.errors import InputError
from trueread.method.base import METHODS, Composite, Method, build_method, overrides
from trueread.method.focal import Focal
from trueread.training.hooks import Hooks
from trueread.training.loop import fit


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class TestNames:
    def test_unknown_names_suggest(self):
        with pytest.raises(InputError, match=r"'label_smothing' is not a method. Did you mean 'label-smoothing'"):
            build_method("label_smothing")
        with pytest.raises(InputError, match="Did you mean 'mixup'"):
            build_method("focal+mixupp")

    @pytest.mark.parametrize("name", ["", "+", "focal+", "+focal", "focal++mixup"])
    def test_empty_names(self, name):
        with pytest.raises(InputError, match="write one name, or several with a plus sign"):
            build_method(name)

    def test_the_same_twice(self):
        with pytest.raises(InputError, match="'mixup' is named twice in 'mixup\\+erm\\+mixup'"):
            build_method("mixup+erm+mixup")

    def test_two_that_replace_the_loss_are_both_named(self):
        with pytest.raises(InputError, match="'focal' and 'logit-adjustment' both replace the per-sample loss"):
            build_method("focal+mixup+logit-adjustment")

    def test_spaces_do_not_matter(self):
        assert [p.name for p in build_method("focal + mixup").parts] == ["focal", "mixup"]


class TestOptions:
    def test_of_one_and_of_several(self):
        assert build_method("focal", gamma=3).gamma == 3.0
        composed = build_method("focal+mixup", focal={"gamma": 0.5}, mixup={"alpha": 2})
        assert (composed.parts[0].gamma, composed.parts[1].alpha) == (0.5, 2.0)

    @pytest.mark.parametrize(
        ("name", "options", "sentence"),
        [
            ("focal", {"gama": 1}, "method 'focal': 'gama' is not an option here. Did you mean 'gamma'"),
            ("focal", {"gamma": "much"}, "method 'focal': 'gamma' must be .*number.*'much'"),
            ("focal", {"gamma": -1}, "'gamma' must be .*greater than or equal to 0.*-1"),
            ("erm", {"gamma": 1}, "method 'erm': 'gamma' is not an option here"),
            ("focal+mixup", {"focal": {"gama": 1}}, "method 'focal': 'gama' is not an option"),
            ("focal+mixup", {"gamma": 1}, r"by method name \(focal, mixup: \{...\}\); found 'gamma'"),
            ("focal+mixup", {"focal": 2.0}, "the options of 'focal' must be a mapping of names to values; found 2.0"),
            ("focal+mixup", {"focal": None}, "the options of 'focal' must be a mapping"),
            ("class-weights", {"weights": "abc"}, "'weights' must be"),
        ],
    )
    def test_wrong_ones_are_one_sentence(self, name, options, sentence):
        with pytest.raises(InputError, match=sentence):
            build_method(name, **options)

    def test_are_on_record_however_the_method_was_made(self):
        assert repr(build_method("focal", gamma=3)) == repr(Focal(gamma=3.0)) == "focal(gamma=3.0)"
        assert repr(build_method("erm")) == "erm()"
        with pytest.raises(TypeError):
            METHODS.get("erm").factory(gamma=1)


class Part(Method):
    """A method of given factors, for sums and products."""

    def __init__(self, name: str, *, weight=None, sampling=None, penalty=None, taps=()) -> None:
        self.name, self.weight, self.drawn, self.terms, self.taps = name, weight, sampling, penalty, taps
        self.calls: list[str] = []

    def weights(self, step):
        return None if self.weight is None else torch.full((len(step.labels),), self.weight)

    def sampling(self, ledger):
        return self.drawn

    def penalty(self, step):
        return self.terms or {}

    def perturb(self, step):
        step.notes.setdefault("order", []).append(self.name)


class TestComposition:
    step = staticmethod(lambda: tiny_step(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])))

    def test_weights_multiply_and_none_is_one(self):
        composed = Composite([Part("a", weight=2.0), Part("b"), Part("c", weight=1.5)])
        assert composed.weights(self.step()).tolist() == [3.0] * 4
        assert Composite([Part("a"), Part("b")]).weights(self.step()) is None

    def test_sampling_multiplies(self):
        a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])
        composed = Composite([Part("a", sampling=a), Part("b", sampling=b), Part("c")])
        assert composed.sampling(None).tolist() == [3.0, 1.0]
        assert a.tolist() == [1.0, 2.0]

    def test_penalties_add_even_under_the_same_name(self):
        one, two = {"l2": torch.tensor(1.0)}, {"l2": torch.tensor(2.0), "l1": torch.tensor(4.0)}
        terms = Composite([Part("a", penalty=one), Part("b", penalty=two)]).penalty(self.step())
        assert terms == {"a.l2": 1.0, "b.l2": 2.0, "b.l1": 4.0}

    def test_perturbations_follow_each_other_in_the_order_written(self):
        step = self.step()
        Composite([Part("b"), Part("a")]).perturb(step)
        assert step.notes["order"] == ["b", "a"]

    def test_the_one_that_replaces_the_loss_does(self):
        step = tiny_step(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
        assert torch.equal(build_method("mixup+focal").losses(step), Focal().losses(step))
        assert torch.equal(build_method("mixup+class-weights").losses(step), Hooks().losses(step))

    def test_taps_are_asked_for_once_and_may_be_chosen_in_prepare(self):
        late = Part("b")
        composed = Composite([Part("a", taps=("stage1", "stage3")), late])
        assert composed.taps == ("stage1", "stage3")
        late.taps = ("stage3", "stage4")
        assert composed.taps == ("stage1", "stage3", "stage4")

    def test_every_hook_reaches_every_part(self):
        """A hook that is new in Hooks and forgotten in Composite would be silently dropped."""
        hooks = {n for n, f in vars(Hooks).items() if callable(f) and not n.startswith("_")}
        assert {h for h in hooks if h not in vars(Composite)} == set()

    def test_composed_training_is_the_product_of_its_parts(self):
        cohort = tiny_cohort(n=100, share=0.2)
        composed = fit(cohort, build_method("class-weights+label-smoothing"), tiny_config(), quiet=True)
        swapped = fit(cohort, build_method("label-smoothing+class-weights"), tiny_config(), quiet=True)
        single = fit(cohort, build_method("class-weights"), tiny_config(), quiet=True)
        weights = [f.classifier.network.head[1].weight for f in (composed, swapped, single)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
        assert set(composed.report) == {"class-weights"}


REGISTERED = [e.name for e in METHODS.entries()]
SHORT = {name: {"epochs": 2, "batch_size": 32, "width": 16} for name in ("curvssl", "barlow-twins", "vicreg")}


def equal(a, b) -> bool:
    """Deep equality of states: tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def registered(name: str) -> Method:
    """With its defaults, but for how long a pretraining takes."""
    return build_method(name, **SHORT.get(name, {}))


def known(*args, **options):
    """A tiny cohort with what some methods need: cue, clean images, true labels, modality, masks."""
    cohort = tiny_cohort(*args, **options)
    patient = cohort.patient_codes()
    truth = pd.DataFrame({"cue": patient % 2 == 0, "clean": True, "flipped": False})
    if cohort.task != "multilabel":
        truth["true_label"] = cohort.labels
    masks = np.ones((len(cohort), *cohort.spatial), np.uint8)
    masks[..., cohort.spatial[-1] // 2 :] = 0
    return dataclasses.replace(cohort, truth=truth, modality="ct", masks=masks)


@pytest.mark.parametrize("name", REGISTERED)
class TestEveryMethod:
    def test_trains_and_its_state_comes_back_from_a_checkpoint(self, name, tmp_path):
        cohort, kept = known(n=100, share=0.2), {}
        method = registered(name)
        prepare = method.prepare
        method.prepare = lambda setup: (kept.update(setup=setup), prepare(setup))
        fitted = fit(cohort, method, tiny_config(), folder=tmp_path, quiet=True)
        assert np.isfinite(fitted.history["train_loss"]).all()
        assert fitted.ledger.loss.shape == (1, len(cohort.rows("train")))
        json.dumps(fitted.report)
        stored = io.BytesIO()
        torch.save(method.state(), stored)
        stored.seek(0)
        other = registered(name)
        other.load_state(torch.load(stored, weights_only=True), kept["setup"])
        assert equal(other.state(), method.state())
        assert equal(other.sampling(fitted.ledger), method.sampling(fitted.ledger))

    def test_gives_the_same_bits_twice_whatever_the_test_split_holds(self, name):
        cohort = known(n=60)
        images, labels = cohort.images.copy(), cohort.labels.copy()
        images[cohort.rows("test")] = 0
        labels[cohort.rows("test")] = 0
        poisoned = dataclasses.replace(cohort, images=images, labels=labels)
        runs = [fit(c, registered(name), tiny_config(augment="any"), quiet=True) for c in (cohort, poisoned)]
        assert equal(*(dict(r.classifier.network.state_dict()) for r in runs))
        assert runs[0].classifier.card.threshold == runs[1].classifier.card.threshold

    @pytest.mark.parametrize("task", ["multiclass", "multilabel"])
    def test_trains_other_tasks_or_says_why_not(self, name, task):
        cohort = known(task, n=100, share=0.2)
        try:
            fitted = fit(cohort, registered(name), tiny_config(), quiet=True)
        except InputError as error:
            assert task in str(error)  # noqa: PT017
            assert task == "multilabel", "every method knows several classes"
            return
        assert np.isfinite(fitted.history["train_loss"]).all()
        assert all(torch.isfinite(v).all() for v in fitted.classifier.network.state_dict().values())

    def test_introduces_itself(self, name):
        entry = METHODS.get(name)
        assert entry.source
        assert 20 < len(entry.summary) < 120
        assert name == name.lower().replace("_", "-")
        assert overrides(registered(name), "prepare") or not registered(name).state()
