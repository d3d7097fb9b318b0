"""Learning without labels: losses beside lightly's, curvature by hand, and an encoder that learned something."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tiny import tiny_cohort, tiny_config
from trueread.errors import InputError
from trueread.method import build_method
from trueread.method.barlow_twins import barlow_twins_loss
from trueread.method.base import Composite, Method
from trueread.method.curvature import SCALES, curvature, curvature_loss, curvatures, edges, nearest, standardised
from trueread.method.curvssl import CurvatureObjective
from trueread.method.two_views import TwoViews, even_batch
from trueread.method.vicreg import vicreg_terms
from trueread.training.augment import Recipe, augment_batch, recipes
from trueread.training.loop import fit

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
KERNELS = ("none", "linear", "rbf", "laplacian", "polynomial")
FORMS = ("outer", "corr", "multi")


def points(b=24, d=6, *, seed=0) -> torch.Tensor:
    return torch.randn(b, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestPeers:
    @pytest.mark.parametrize(("b", "d"), [(16, 8), (64, 128)])
    def test_both_losses_are_those_of_lightly(self, b, d):
        from lightly.loss import BarlowTwinsLoss, VICRegLoss

        first, second = points(b, d), 0.5 * points(b, d) + 0.7 * points(b, d, seed=1) + 2
        theirs = BarlowTwinsLoss(lambda_param=0.005)(first, second)
        assert barlow_twins_loss(first, second, redundancy=0.005) == pytest.approx(theirs.item(), rel=1e-9)
        ours = sum(w * t for w, t in zip((25, 25, 1), vicreg_terms(first, second), strict=True))
        assert ours == pytest.approx(VICRegLoss()(first, second).item(), rel=1e-9)

    def test_their_gradients_too(self):
        from lightly.loss import BarlowTwinsLoss, VICRegLoss

        first, second = points(20, 8).requires_grad_(), points(20, 8, seed=1)
        for ours, theirs in (
            (barlow_twins_loss(first, second, redundancy=0.005), BarlowTwinsLoss(lambda_param=0.005)),
            (sum(w * t for w, t in zip((25, 25, 1), vicreg_terms(first, second), strict=True)), VICRegLoss()),
        ):
            [a] = torch.autograd.grad(ours, first)
            [b] = torch.autograd.grad(theirs(first, second), first)
            assert torch.allclose(a, b, rtol=1e-7, atol=1e-12)


class TestCurvature:
    def test_neighbours_are_the_nearest_and_never_oneself(self):
        z = points()
        apart = (z[:, None] - z[None]).square().sum(2)
        for i, row in enumerate(nearest(z, 5)):
            assert row.tolist() == [j for j in apart[i].argsort().tolist() if j != i][:5]

    def test_is_the_sum_over_pairs_of_cosines(self):
        z, k = points(), 7
        near = nearest(z, k)
        expected = [
            sum(
                float(F.cosine_similarity(z[a] - z[i], z[b] - z[i], dim=0))
                for a, b in combinations(near[i].tolist(), 2)
            )
            for i in range(len(z))
        ]
        assert curvature(z, near).tolist() == pytest.approx(expected)
        assert curvature(z, near, kernel="linear").tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("kernel", KERNELS[2:])
    def test_kernels_by_a_loop(self, kernel):
        z, k = points(), 5
        near = nearest(z, k)
        e = edges(z, near)
        squares = torch.stack([(a - b).square().sum() for i in range(len(z)) for a in e[i] for b in e[i]])
        city = torch.stack([(a - b).abs().sum() for i in range(len(z)) for a in e[i] for b in e[i]])
        lengths = e.square().sum(2).flatten()

        def k_of(a, b):
            if kernel == "rbf":
                return torch.exp(-(a - b).square().sum() / squares[squares > 1e-12].median())
            if kernel == "laplacian":
                return torch.exp(-(a - b).abs().sum() / city[city > 0].median())
            return (a @ b / lengths.median() + 1) ** 3

        for i in range(4):
            total = sum(
                float(k_of(e[i, a], e[i, b]) / (k_of(e[i, a], e[i, a]) * k_of(e[i, b], e[i, b])).sqrt())
                for a, b in combinations(range(k), 2)
            )
            assert curvature(z, near, kernel=kernel)[i].item() == pytest.approx(total, rel=1e-6)

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_several_scales_at_once_are_each_by_itself(self, kernel):
        z = points()
        near = nearest(z, 9)
        each = [curvature(z, near[:, :k], kernel=kernel) for k in (2, 5, 9)]
        assert torch.allclose(curvatures(z, near, (2, 5, 9), kernel=kernel), torch.stack(each, dim=1))

    @pytest.mark.parametrize("kernel", ["none", "linear"])
    def test_an_edge_to_a_duplicate_has_no_direction_and_adds_nothing(self, kernel):
        z = points(10, 4)
        z[1] = z[2] = z[0]
        near = nearest(z, 5)
        units = F.normalize(edges(z, near)[0], dim=1)
        expected = sum(float(units[a] @ units[b]) for a, b in combinations(range(5), 2))
        assert curvature(z, near, kernel=kernel)[0].item() == pytest.approx(expected, abs=1e-6)
        assert curvatures(z, near, (3, 5), kernel=kernel)[0, 1].item() == pytest.approx(expected, abs=1e-6)

    def test_duplicates_among_many_single_precision_dimensions(self):
        """Distances from squares have lost their digits there: what is left must not pass for a distance."""
        z = torch.randn(32, 1024, generator=torch.Generator().manual_seed(0)) + 3
        z[16:] = z[:16]
        near = nearest(z, 6)
        e = edges(z.double(), near)
        apart = torch.cdist(e, e, compute_mode="donot_use_mm_for_euclid_dist").square()
        expected = ((-apart / apart[apart > 0].median()).exp().sum((1, 2)) - 6) / 2
        assert torch.allclose(curvature(z, near, kernel="rbf").double(), expected, rtol=1e-4)
        z[:] = z[0]
        z.requires_grad_()
        scores = curvature(z, near, kernel="rbf")
        assert scores.tolist() == [15.0] * 32
        assert torch.autograd.grad(scores.square().sum(), z)[0].abs().max() == 0

    @pytest.mark.parametrize("kernel", KERNELS)
    @pytest.mark.parametrize("apart", [0.0, 1e-7])
    def test_a_duplicate_does_not_drive_the_gradient(self, kernel, apart):
        """White tiles give the same embedding, or nearly: the direction between them is nothing to learn from."""
        z = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
        z[1] = z[0] + apart
        z.requires_grad_()
        scores = curvature(z, nearest(z, 8), kernel=kernel)
        [gradient] = torch.autograd.grad(scores.square().sum(), z)
        sizes = gradient.norm(dim=1)
        assert sizes[:2].max() < 10 * sizes[2:].max()

    def test_neighbours_far_from_the_origin_are_still_the_nearest(self):
        z = 1e-3 * points(64, 8)
        far = (z + 5).float()
        expected = nearest(far.double(), 10)
        assert (nearest(far, 10) == expected).float().mean() > 0.99

    def test_a_corner_is_more_curved_than_the_middle_of_a_line(self):
        line = torch.arange(9, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 2.0]], dtype=torch.float64)
        scores = curvature(line, nearest(line, 2))
        assert scores[4] == pytest.approx(-1)  # one to either side
        assert scores[0] == pytest.approx(1)  # both on one side

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_gradients_are_those_of_finite_differences(self, kernel):
        z = points(12, 4).requires_grad_()
        near = nearest(z, 4)
        if kernel in ("none", "linear"):
            assert torch.autograd.gradcheck(lambda x: curvature(x, near, kernel=kernel), z)
            return
        with pytest.MonkeyPatch.context() as patched:  # widths are constants to the gradient
            patched.setattr("trueread.method.curvature._median", lambda values: values.new_tensor(2.0))
            assert torch.autograd.gradcheck(lambda x: curvature(x, near, kernel=kernel), z)

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_permuting_the_batch_permutes_the_scores(self, kernel):
        z = points()
        order = torch.randperm(len(z), generator=torch.Generator().manual_seed(3))
        scores = curvature(z, nearest(z, 6), kernel=kernel)
        assert torch.allclose(curvature(z[order], nearest(z[order], 6), kernel=kernel), scores[order])

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_points_that_are_all_alike_have_a_number(self, kernel):
        z = torch.ones(12, 4, requires_grad=True)
        scores = curvature(z, nearest(z, 4), kernel=kernel)
        loss = curvature_loss(scores, scores, form="corr", redundancy=0.005)
        [gradient] = torch.autograd.grad(loss, z, allow_unused=True)
        assert torch.isfinite(scores).all()
        assert gradient is None or torch.isfinite(gradient).all()


class TestForms:
    def test_by_hand(self):
        c, other = standardised(points(8, 1)[:, 0]), standardised(points(8, 1, seed=1)[:, 0])
        assert c.mean().item() == pytest.approx(0, abs=1e-9)
        assert c.square().mean().item() == pytest.approx(1, abs=1e-4)
        r = torch.outer(c, other)
        off = sum(float(r[i, j] ** 2) for i in range(8) for j in range(8) if i != j)
        expected = float((1 - r.diagonal()).square().mean()) + 0.005 * off / 8
        given = (points(8, 1)[:, 0], points(8, 1, seed=1)[:, 0])
        assert curvature_loss(*given, form="outer", redundancy=0.005).item() == pytest.approx(expected, rel=1e-4)
        expected = (1 - float((c * other).mean())) ** 2
        assert curvature_loss(*given, form="corr", redundancy=0.005).item() == pytest.approx(expected, rel=1e-4)

    def test_equal_scores_are_what_corr_and_multi_want_and_outer_does_not(self):
        c = points(64, 3)
        assert curvature_loss(c[:, 0], c[:, 0], form="corr", redundancy=0.0).item() == pytest.approx(0, abs=1e-6)
        assert curvature_loss(c, c, form="multi", redundancy=0.0).item() == pytest.approx(0, abs=1e-6)
        assert curvature_loss(c[:, 0], c[:, 0], form="outer", redundancy=0.0).item() > 0.5
        sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(32)
        assert curvature_loss(sign, sign, form="outer", redundancy=0.0).item() == pytest.approx(0, abs=1e-4)

    def test_what_outer_wants_instead(self):
        """Plus or minus one and the same; of normal scores half of the agreement."""

        def of(a, b):
            return curvature_loss(a, b, form="outer", redundancy=0.0).item()

        sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(500)
        assert of(sign, -sign) == pytest.approx(4, abs=1e-3)
        assert of(sign, sign.roll(1).repeat_interleave(2)[:1000]) == pytest.approx(2, abs=1e-2)
        a, b = points(3000, 2).T
        at = {r: of(a, r * a + (1 - r**2) ** 0.5 * b) for r in (0.0, 0.5, 1.0)}
        assert at[0.5] < at[0.0] - 0.3
        assert at[0.5] < at[1.0] - 0.3
        c, other = standardised(a), standardised(b)
        by_moments = 1 - 2 * (c * other).mean() + (c * other).square().mean()
        assert of(a, b) == pytest.approx(float(by_moments), rel=1e-9)

    def test_without_a_share_it_is_barlow_twins(self):
        objective = CurvatureObjective(form="corr", kernel="none", k=6, neighbours="own", share=0.0, redundancy=0.005)
        for n in (20, 6):
            assert list(objective(points(n), points(n, seed=1))) == ["barlow"]

    def test_too_many_neighbours_are_refused_before_anything_starts(self):
        with pytest.raises(InputError, match="16 neighbours are asked for in batches of 16 images"):
            build_method("curvssl", form="multi", batch_size=16)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("neighbours", ["own", "first"])
    def test_its_weight_is_a_share_of_barlow_twins_at_the_first_batch(self, form, neighbours):
        objective = CurvatureObjective(
            form=form, kernel="none", k=5, neighbours=neighbours, share=0.1, redundancy=0.005
        )  # fmt: skip
        first, second = points(32, 8), points(32, 8) + 0.3 * points(32, 8, seed=1)
        terms = objective(first, second)
        assert terms["curvature"].item() == pytest.approx(0.1 * terms["barlow"].item())
        other = CurvatureObjective(form=form, kernel="none", k=5, neighbours=neighbours, share=0.1, redundancy=0.005)
        other.load_state(objective.state())
        later = points(32, 8, seed=5), points(32, 8, seed=6)
        assert other(*later)["curvature"].item() == pytest.approx(objective(*later)["curvature"].item())

    def test_batches_that_are_too_small_are_refused(self):
        objective = CurvatureObjective(form="multi", kernel="none", k=5, neighbours="own", share=0.1, redundancy=0.0)
        with pytest.raises(InputError, match=f"{max(SCALES)} neighbours are asked for in batches of 10"):
            objective(points(10), points(10))

    def test_a_last_small_batch_goes_without_curvature(self):
        objective = CurvatureObjective(form="corr", kernel="none", k=5, neighbours="own", share=0.1, redundancy=0.0)
        assert set(objective(points(32), points(32, seed=1))) == {"barlow", "curvature"}
        assert set(objective(points(4), points(4, seed=1))) == {"barlow"}


class TestViews:
    def test_every_modality_has_one_and_radiographs_are_never_mirrored(self):
        assert set(recipes("views")) >= set(recipes()) - {"none", "pneumonia"}
        for name in ("radiograph", "ct", "any"):
            assert recipes("views")[name].flip_horizontal == recipes("views")[name].flip_vertical == 0
        assert all(recipe.crop >= 0.5 for name, recipe in recipes("views").items() if name != "natural")

    def test_no_batch_is_much_smaller_than_the_others(self):
        for n, most in ((770, 256), (1001, 10), (257, 256), (48, 32), (7, 8), (1024, 256), (3, 2)):
            size = even_batch(n, most)
            assert size <= most
            assert 2 * (n % size or size) >= size
        assert even_batch(1024, 256) == 256
        assert even_batch(770, 256) == 193

    def test_a_crop_keeps_what_it_says(self):
        """Of a picture that is bright where x is large, the range that is left is the crop's side."""
        x = torch.linspace(0, 1, 64).expand(200, 1, 64, 64).clone()
        cropped = augment_batch(x, Recipe(crop=0.25), torch.Generator().manual_seed(0))
        side = cropped.amax((1, 2, 3)) - cropped.amin((1, 2, 3))
        assert 0.45 < side.min() < 0.55
        assert 0.9 < side.max() <= 1
        assert side.square().mean() == pytest.approx(0.625, abs=0.04)  # uniform in area

    def test_grey_solarised_and_blurred(self):
        x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        grey = augment_batch(x, Recipe(grey=1), torch.Generator())
        assert torch.allclose(grey[:, 0], grey[:, 1])
        assert augment_batch(x, Recipe(solarise=1), torch.Generator()).max() <= 0.5
        assert augment_batch(x, Recipe(blur=1), torch.Generator()).std() < x.std()


class TestPretraining:
    SMALL: ClassVar = {"epochs": 3, "batch_size": 32, "width": 32}

    @pytest.mark.parametrize("name", ["curvssl", "barlow-twins", "vicreg"])
    def test_the_encoder_takes_the_place_of_random_weights(self, name):
        cohort = tiny_cohort(n=80)
        fitted = fit(cohort, build_method(name, **self.SMALL), tiny_config(epochs=1), quiet=True)
        plain = fit(cohort, build_method("erm"), tiny_config(epochs=1), quiet=True)
        weights = [next(iter(f.classifier.network.state_dict().values())) for f in (fitted, plain)]
        assert not torch.equal(*weights)
        assert fitted.report["warnings"] == []
        assert fitted.classifier.card.weights.endswith("3 epochs on 48 images")
        told = fitted.report
        assert [w["epoch"] for w in told["watched"]] == [1, 2, 3]
        assert {"rank", "spread", "nearest"} <= set(told["watched"][0])
        assert told["views"] == "any"

    def test_labels_do_not_teach_the_encoder(self):
        """Labels of other images, the same features: the probe's gradient stops before them."""
        cohort = tiny_cohort(n=80)
        other = replace(cohort, labels=1 - cohort.labels)
        made = []
        for c in (cohort, other):
            hooks = TwoViews(build_method("barlow-twins").objective(), width=16, recipe=Recipe(noise=0.1))
            fitted = fit(c, hooks, tiny_config(epochs=2, augment="none", select="last"), quiet=True)
            made.append(fitted.classifier.network.get_submodule("backbone").state_dict())
        assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])

    def test_collapse_is_said(self, monkeypatch):
        flat = lambda _network, _cohort, rows: torch.ones(len(rows), 160) + 1e-6 * torch.rand(len(rows), 160)  # noqa: E731
        monkeypatch.setattr("trueread.method.two_views.features_of", flat)
        fitted = fit(tiny_cohort(n=80), build_method("barlow-twins", **self.SMALL), tiny_config(epochs=1), quiet=True)
        assert "collapsed" in fitted.report["warnings"][0]

    def test_an_interrupted_one_ends_in_the_same_bits(self, tmp_path):
        cohort, made = tiny_cohort(n=80), []

        class Stop(Exception):
            pass

        for place in ("whole", "broken"):
            folder = tmp_path / place
            method = build_method("curvssl", **self.SMALL, k=3)
            if place == "broken":
                with pytest.MonkeyPatch.context() as patched:

                    def stop(self, step, _old=TwoViews.penalty):
                        if step.epoch == 2:
                            raise Stop
                        return _old(self, step)

                    patched.setattr(TwoViews, "penalty", stop)
                    with pytest.raises(Stop):
                        fit(cohort, build_method("curvssl", **self.SMALL, k=3), tiny_config(epochs=1), folder=folder,
                            quiet=True)  # fmt: skip
            made.append(fit(cohort, method, tiny_config(epochs=1), folder=folder, quiet=True))
        states = [m.classifier.network.state_dict() for m in made]
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
        assert made[0].report == made[1].report

    def test_dimensions_that_may_repeat_each_other_collapse(self):
        """VICReg without what keeps dimensions apart: all say the same, which the features do not show."""
        method = build_method("vicreg", **self.SMALL | {"epochs": 12}, covariance=0.0, learning_rate=0.01)
        fitted = fit(tiny_cohort(n=80), method, tiny_config(epochs=1), quiet=True)
        assert fitted.report["watched"][-1]["rank"] > 3
        assert fitted.report["warnings"][0].startswith("the embeddings have collapsed: effective rank 1.")

    def test_what_it_starts_from_is_what_was_learned(self):
        cohort, config = tiny_cohort(n=80), tiny_config(epochs=1)
        learned = build_method("vicreg", **self.SMALL).learn(cohort, config, fit=fit, seed=0, folder=None)
        begun = {}

        class Look(Method):
            def perturb(self, step):
                if not begun:
                    begun.update({k: v.clone() for k, v in step.classifier.network.state_dict().items()})

        fit(cohort, Composite([build_method("vicreg", **self.SMALL), Look()]), config, quiet=True)
        state = learned.network.state_dict()
        assert all(torch.equal(begun[k], v) for k, v in state.items() if k.startswith("backbone."))

    def test_of_two_only_one_would_count(self):
        with pytest.raises(InputError, match="both give the encoder its first weights"):
            build_method("barlow-twins+vicreg")

    def test_what_comes_after_is_replayed_on_a_gpu_as_without(self):
        assert build_method("vicreg+erm").replayable

    def test_more_neighbours_than_even_batches_hold_are_refused_before_it_starts(self):
        with pytest.raises(InputError, match="26 neighbours are asked for in batches of 24 images"):
            fit(tiny_cohort(n=80), build_method("curvssl", epochs=1, batch_size=30, k=26), tiny_config(), quiet=True)

    def test_composes_with_a_loss(self):
        fitted = fit(
            tiny_cohort(n=80),
            build_method("barlow-twins+focal", **{"barlow-twins": self.SMALL}),
            tiny_config(epochs=1),
            quiet=True,
        )
        assert "barlow-twins" in fitted.report


def test_colour_and_volumes():
    for more in ({"channels": 3}, {"depth": 8}):
        fitted = fit(
            tiny_cohort(n=60, **more), build_method("vicreg", epochs=1, batch_size=16, width=16), tiny_config(epochs=1),
            quiet=True,
        )  # fmt: skip
        assert np.isfinite(fitted.history["train_loss"]).all()
