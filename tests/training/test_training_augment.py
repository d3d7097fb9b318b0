"""Augmentation: each change is the one it is named, per image, reproducible, and stays in [0,1]."""

from __future__ import annotations

import math

import pytest
import torch

from trueread.errors import InputError
from trueread.training import augment
from trueread.training.augment import Recipe, augment_batch, recipe_for, recipes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed))


@pytest.fixture
def draw_the_most(monkeypatch):
    """Every uniform draw is its upper end."""
    monkeypatch.setattr(augment.Draws, "around_zero", lambda self, half: torch.full((self.total,), half))


SHAPES = [(4, 1, 12, 12), (4, 3, 12, 12), (4, 1, 5, 12, 12)]


class TestRecipes:
    def test_chest_radiographs_and_ct_are_never_mirrored(self):
        for name in ("radiograph", "ct", "any"):
            assert recipes()[name].flip_horizontal == recipes()[name].flip_vertical == 0, name

    def test_auto_is_the_modalitys_own_and_any_for_one_without(self):
        assert recipe_for("auto", "radiograph") == ("radiograph", recipes()["radiograph"])
        assert recipe_for("auto", "thermography") == ("any", recipes()["any"])
        assert recipe_for("none", "radiograph") == ("none", Recipe())

    def test_unknown_recipe_names_the_nearest(self):
        with pytest.raises(InputError, match="Did you mean 'dermatoscopy'"):
            recipe_for("dermoscopy", "any")


class TestEveryRecipe:
    @pytest.mark.parametrize("shape", SHAPES, ids=["grey", "colour", "volume"])
    def test_stays_in_range_and_changes_images_each_its_own_way(self, shape):
        same = batch(1, *shape[1:]).expand(*shape).clone()
        for name, recipe in recipes().items():
            changed = augment_batch(same, recipe, generator())
            assert changed.shape == same.shape
            assert changed.min() >= 0
            assert changed.max() <= 1
            if name == "none":
                assert torch.equal(changed, same)
                continue
            if name == "pneumonia":
                continue  # which leaves some images alone
            differences = [(changed[a] - changed[b]).abs().max() for a in range(4) for b in range(a)]
            assert min(differences) > 1e-3, f"{name}: two images got the same parameters"

    def test_the_generator_decides_and_nothing_else(self):
        x = batch(4, 3, 12, 12)
        before = x.clone()
        for recipe in recipes().values():
            torch.manual_seed(1)
            a = augment_batch(x, recipe, generator(5))
            torch.manual_seed(2)
            assert torch.equal(a, augment_batch(x, recipe, generator(5)))
            assert torch.equal(x, before), "the stored images must not be changed"
        assert not torch.equal(a, augment_batch(x, recipes()["any"], generator(6)))

    def test_black_and_white_stay_in_range_at_the_ends(self):
        ends = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
        for recipe in recipes().values():
            changed = augment_batch(ends, recipe, generator())
            assert torch.isfinite(changed).all()
            assert changed.min() >= 0
            assert changed.max() <= 1


class TestMoves:
    """With the draw held at its end, a move is an exact array operation."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_quarter_turn_is_counter_clockwise(self, shape, draw_the_most):
        x = batch(*shape)
        turned = augment_batch(x, Recipe(rotate_degrees=90), generator())
        assert torch.allclose(turned, torch.rot90(x, 1, (-2, -1)), atol=1e-5)

    def test_a_half_turn_of_an_oblong_image(self, draw_the_most):
        x = batch(2, 1, 6, 14)
        assert torch.allclose(
            augment_batch(x, Recipe(rotate_degrees=180), generator()), torch.rot90(x, 2, (-2, -1)), atol=1e-5
        )

    def test_an_oblong_image_turns_without_shear(self, draw_the_most):
        """A quarter turn keeps distances in pixels: two points six columns apart end six rows apart."""
        x = torch.zeros(1, 1, 9, 21)
        x[0, 0, 4, 7] = x[0, 0, 4, 13] = 1.0
        turned = augment_batch(x, Recipe(rotate_degrees=90), generator())[0, 0]
        assert turned[1, 10] == pytest.approx(1.0, abs=1e-4)
        assert turned[7, 10] == pytest.approx(1.0, abs=1e-4)
        assert turned[4, 10] == pytest.approx(0.0, abs=1e-4)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_flips(self, shape):
        x = batch(*shape)
        assert torch.allclose(augment_batch(x, Recipe(flip_horizontal=1), generator()), x.flip(-1), atol=1e-5)
        assert torch.allclose(augment_batch(x, Recipe(flip_vertical=1), generator()), x.flip(-2), atol=1e-5)
        both = Recipe(flip_horizontal=1, flip_vertical=1)
        assert torch.allclose(augment_batch(x, both, generator()), x.flip(-1, -2), atol=1e-5)

    def test_half_of_the_images_are_flipped(self):
        x = torch.zeros(400, 1, 4, 4)
        x[..., 0] = 1.0
        flipped = augment_batch(x, Recipe(flip_horizontal=0.5), generator())[:, 0, 0, 3] > 0.5
        assert abs(int(flipped.sum()) - 200) < 4 * math.sqrt(400 / 4)

    def test_translation_is_a_share_of_the_side(self, draw_the_most):
        x = batch(2, 1, 10, 20)
        moved = augment_batch(x, Recipe(translate=0.1), generator())  # one row, two columns
        assert torch.allclose(moved[..., :9, :18], x[..., 1:, 2:], atol=1e-5)

    def test_scale_above_one_magnifies(self, draw_the_most):
        x = torch.zeros(1, 1, 20, 20)
        x[..., 8:12, 8:12] = 1.0
        large = augment_batch(x, Recipe(scale=0.5), generator())
        assert float(large.sum()) == pytest.approx(16 * 1.5**2, rel=0.1)

    def test_volumes_move_alike_in_every_slice(self):
        x = batch(3, 1, 1, 12, 12).expand(3, 1, 4, 12, 12).clone()
        moved = augment_batch(x, Recipe(rotate_degrees=30, translate=0.1, flip_horizontal=0.5), generator())
        for k in range(1, 4):
            assert torch.allclose(moved[:, :, k], moved[:, :, 0], atol=1e-5)


class TestIntensities:
    def test_brightness_is_added(self, draw_the_most):
        x = batch(2, 1, 6, 6) * 0.5
        assert torch.allclose(augment_batch(x, Recipe(brightness=0.2), generator()), x + 0.2, atol=1e-6)

    def test_contrast_is_about_the_images_own_mean(self, draw_the_most):
        x = batch(2, 3, 6, 6) * 0.4 + 0.3
        mean = x.mean((1, 2, 3), keepdim=True)
        changed = augment_batch(x, Recipe(contrast=0.25), generator())
        assert torch.allclose(changed, (mean + 1.25 * (x - mean)).clamp(0, 1), atol=1e-6)

    def test_gamma(self, draw_the_most):
        x = batch(2, 1, 6, 6)
        assert torch.allclose(augment_batch(x, Recipe(gamma=0.5), generator()), x**1.5, atol=1e-5)

    def test_saturation_moves_away_from_grey_and_leaves_grey_alone(self, draw_the_most):
        x = torch.tensor([0.6, 0.4, 0.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4).clone()
        grey = 0.299 * 0.6 + 0.587 * 0.4 + 0.114 * 0.2
        expected = grey + 1.5 * (x - grey)
        assert torch.allclose(augment_batch(x, Recipe(saturation=0.5), generator()), expected, atol=1e-6)
        same = torch.full((1, 3, 4, 4), 0.3)
        assert torch.allclose(augment_batch(same, Recipe(saturation=0.5), generator()), same, atol=1e-6)

    def test_noise_has_at_most_its_standard_deviation_and_none_of_it_twice(self):
        x = torch.full((64, 1, 32, 32), 0.5)
        noise = augment_batch(x, Recipe(noise=0.1), generator()) - x
        spread = noise.flatten(1).std(1)
        assert spread.max() < 0.11
        assert spread.min() < 0.02
        assert abs(float(spread.mean()) - 0.05) < 0.015
        assert abs(float(noise.mean())) < 0.001
        assert abs(float((noise[0] * noise[1]).mean())) < 0.001


class TestShares:
    def test_what_is_done_to_some_is_done_to_that_share(self):
        x = batch(1, 1, 16, 16).expand(600, 1, 16, 16).clone()
        for recipe, share in (
            (Recipe(brightness=0.3, intensity_share=0.25), 0.25),
            (Recipe(gamma=0.5, gamma_share=0.3), 0.3),
            (Recipe(noise=0.2, noise_share=0.2), 0.2),
            (Recipe(rotate_degrees=40, rotate_share=0.5), 0.5),
            (Recipe(translate=0.2, scale=0.2, shift_share=0.5), 0.5),
            (Recipe(clahe=0.3), 0.3),
            (Recipe(motion_blur=0.4), 0.4),
            (Recipe(median_blur=0.1), 0.1),
            (Recipe(holes=0.6), 0.6),
        ):
            changed = (augment_batch(x, recipe, generator()) - x).flatten(1).abs().amax(1) > 1e-4
            spread = math.sqrt(600 * share * (1 - share))
            assert abs(int(changed.sum()) - 600 * share) < 4 * spread, recipe

    def test_a_recipe_without_shares_draws_what_it_drew_before(self):
        x = batch(3, 1, 8, 8)
        left, right = generator(), generator()
        augment_batch(x, Recipe(brightness=0.1, gamma=0.1), left)
        torch.rand(9, generator=right)  # contrast, brightness, gamma
        assert torch.rand(1, generator=left) == torch.rand(1, generator=right)


class TestNeighbourhood:
    def test_clahe_stretches_a_flat_part(self):
        x = 0.5 + 0.02 * batch(2, 1, 64, 64)
        assert augment_batch(x, Recipe(clahe=1), generator()).std() > 1.5 * x.std()

    def test_blur_takes_away_what_is_small(self):
        x = torch.zeros(2, 1, 48, 48)
        x[:, :, 24, 24] = 1.0
        assert augment_batch(x, Recipe(median_blur=1), generator()).max() == 0
        smeared = augment_batch(x, Recipe(motion_blur=1), generator())
        assert smeared.flatten(1).amax(1).max() < 0.6
        assert smeared.flatten(1).sum(1) == pytest.approx(1, abs=0.05)

    def test_holes_are_black_squares_of_a_share_of_the_side(self):
        x = torch.ones(50, 1, 112, 112)
        black = (augment_batch(x, Recipe(holes=1), generator()) == 0).flatten(1).sum(1)
        assert black.max() <= 8 * 4 * 4
        assert black.min() >= 4 * 4
        assert len(black.unique()) > 4

    @pytest.mark.parametrize("shape", SHAPES)
    def test_colour_and_volumes(self, shape):
        x = batch(*shape)
        recipe = Recipe(clahe=1, motion_blur=1, median_blur=1, holes=1)
        changed = augment_batch(x, recipe, generator())
        assert changed.shape == x.shape
        assert not torch.equal(changed, x)
