"""Every corruption of every list: more level is more change, and an image's corruption is its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from trueread.errors import InputError
from trueread.shift import SHIFTS
from trueread.shift.corruption import LEVELS, Corruption, corruption, corruptions_for, family_of, set_for
from trueread.shift.corruption.base import OPERATORS
from trueread.shift.corruption.lists import facts

COLOUR = ("path", "blood", "derma", "retina")
EVERY = [(s, name) for s in facts()["lists"] for name in corruptions_for(s)]
ONE_OF_EACH = list({name: (s, name) for s, name in EVERY}.values())
IDS = ["p1/a.png", "p1/b.png", "p2/a.png", "p3", "p4", "p5"]
# level -> the next, where the lists themselves do not grow
NOT_STRONGER = {("blood", "stain-deposit"): [3], ("derma", "black-corner"): [4]}
HARDLY = 1e-3  # of the change: motion of (10, 5) and (15, 5) differs by taps beyond four standard deviations


def scenes(channels: int, side: int, b: int = 6) -> torch.Tensor:
    """Soft shapes with a little grain, some of them dark or bright, float [B,C,side,side]."""
    g = torch.Generator().manual_seed(side)
    shapes = torch.rand(b, channels, max(4, side // 16), max(4, side // 16), generator=g)
    return (F.interpolate(shapes, size=side, mode="bicubic") + 0.03 * torch.randn(b, 1, side, side, generator=g)).clamp(
        0, 1
    )


def channels_of(set_name: str) -> int:
    return 3 if set_name in COLOUR else 1


@pytest.mark.parametrize(("set_name", "name"), EVERY)
def test_more_level_is_more_change(set_name, name):
    for side in (224, 28):
        x = scenes(channels_of(set_name), side, b=6 if side == 224 else 12)
        ids = [str(k) for k in range(len(x))]
        changed = [corruption(set_name, name, level)(x, ids) for level in LEVELS]
        for out in changed:
            assert out.shape == x.shape
            assert out.dtype == x.dtype
            assert out.min() >= 0
            assert out.max() <= 1
        sizes = [float((out - x).abs().mean()) for out in changed]
        assert sizes[0] > 0
        if name == "pixelate" and side == 28:
            continue  # a size that divides 28 keeps more than a larger one that does not
        for level in LEVELS[:-1]:
            if level not in NOT_STRONGER.get((set_name, name), []):
                assert sizes[level] > sizes[level - 1] * (1 - HARDLY), (side, sizes)


@pytest.mark.parametrize(("set_name", "name"), ONE_OF_EACH)
class TestEveryCorruption:
    @pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 28), (3, 64), (1, 64)])
    def test_is_the_same_in_any_batch(self, set_name, name, channels, side):
        if name == "saturate" and channels == 1:
            pytest.skip("needs colour")
        x, change = scenes(channels, side), corruption(set_name, name, 3, seed=1)
        together = change(x, IDS)
        assert torch.allclose(change(x.flip(0), IDS[::-1]).flip(0), together, atol=1e-5)
        assert torch.allclose(change(x[2:3], IDS[2:3]), together[2:3], atol=1e-5)
        state = torch.get_rng_state()
        assert torch.equal(change(x, IDS), together)
        assert torch.equal(torch.get_rng_state(), state), "the global random numbers are taken"

    def test_a_volume_is_its_slices_with_one_draw(self, set_name, name):
        x = torch.stack([scenes(3, 28), scenes(3, 28).flip(0), 1 - scenes(3, 28)], 2)
        change = corruption(set_name, name, 4)
        out = change(x, IDS)
        assert out.shape == x.shape
        for d in range(3):
            alone = change(x[:, :, d], IDS)
            apart = float((out[:, :, d] - alone).abs().max())
            assert (apart > 0.01) if family_of(name) == "noise" else (apart <= 1e-5)

    def test_depends_on_the_id_and_the_seed_where_it_is_random(self, set_name, name):
        x = scenes(3, 64, 1).expand(6, -1, -1, -1)
        out = corruption(set_name, name, 5)(x, IDS)
        other = corruption(set_name, name, 5, seed=1)(x, IDS)
        random = OPERATORS[name].random != 0
        assert torch.equal(out, corruption(set_name, name, 5)(x, IDS))
        assert torch.allclose(out, other, atol=1e-5) != random
        assert torch.allclose(out[0], out[1], atol=1e-5) != random

    def test_leaves_the_given_images_alone(self, set_name, name):
        x = scenes(3, 28)
        before = x.clone()
        corruption(set_name, name, 5)(x, IDS)
        assert torch.equal(x, before)

    def test_takes_images_that_are_not_square(self, set_name, name):
        x = scenes(3, 64)[..., :49]
        out = corruption(set_name, name, 2)(x, IDS)
        assert out.shape == x.shape
        assert (out - x).abs().mean() > 0

    def test_stays_on_the_device_of_the_images(self, set_name, name):
        with FakeTensorMode():  # refuses operations between devices, and needs none
            x, operator = torch.empty(2, 3, 64, 64, device="cuda"), OPERATORS[name]
            per_image = operator.random if isinstance(operator.random, int) else 0
            random = [x.new_empty(2, per_image)] if per_image else [x] * bool(operator.random)
            scale = {"scale": 0.3} if operator.scaled else {}
            out = operator.apply(x, *corruption(set_name, name, 3).parameters, *random, **scale)
        assert out.device == x.device
        assert out.shape == x.shape


class TestLists:
    def test_every_corruption_has_an_operator_a_family_and_five_levels(self):
        assert {name for _, name in EVERY} == set(OPERATORS)
        for s, name in EVERY:
            assert family_of(name) in facts()["families"]
            assert len({len(corruption(s, name, level).parameters) for level in LEVELS}) == 1
            assert len(facts()["lists"][s][name]) == 5

    def test_modalities_and_cohorts_name_a_set(self):
        assert set_for("radiograph") == "chest"
        assert set_for("pneumoniamnist") == set_for("pneumonia") == "pneumonia"
        assert set_for("organsmnist") == set_for("ct") == "organ"
        assert corruptions_for("fundus") == corruptions_for("retinamnist")
        assert corruptions_for("oct") == (
            "pixelate", "jpeg-compression", "speckle-noise", "defocus-blur", "motion-blur", "contrast-down",
        )  # fmt: skip

    def test_needs_no_colour_where_the_modality_is_grey(self):
        for modality in ("radiograph", "ct", "ultrasound", "oct", "microscopy"):
            assert "saturate" not in corruptions_for(modality)

    def test_alexnet_was_measured_on_the_corruptions_of_the_list(self):
        for name, theirs in facts()["alexnet"].items():
            assert set_for(name) == theirs["list"]
            assert tuple(theirs["errors"]) == corruptions_for(name)

    def test_the_registry_of_shifts_does_not_know_them(self):
        names = {e.name for e in SHIFTS.entries()}
        assert not names & {"pixelate", "motion-blur", "characters"}
        assert all("corruption" not in e.factory.__module__ for e in SHIFTS.entries())


class TestMistakes:
    def test_unknown_names_come_with_the_nearest(self):
        with pytest.raises(InputError, match=r"'jpeg_compresion' is not a corruption of 'path'.*'jpeg-compression'"):
            corruption("path", "jpeg_compresion", 1)
        with pytest.raises(InputError, match="Did you mean 'dermatoscopy'"):
            corruptions_for("dermoscopy")
        with pytest.raises(InputError, match="not a set or modality with a list of corruptions"):
            corruption("any", "pixelate", 1)
        with pytest.raises(InputError, match="Did you mean 'organ'"):
            Corruption("organs", "pixelate", 1)
        with pytest.raises(InputError, match="'zoom' is not a corruption"):
            family_of("zoom")

    @pytest.mark.parametrize("level", [0, 6, 2.5, "3"])
    def test_another_level(self, level):
        with pytest.raises(InputError, match="level of a corruption is 1, 2, 3, 4 or 5; found"):
            corruption("path", "pixelate", level)

    def test_other_images_and_ids(self):
        change = corruption("organ", "gaussian-noise", 1)
        with pytest.raises(InputError, match="6 images need as many ids; found 2"):
            change(scenes(1, 28), IDS[:2])
        with pytest.raises(InputError, match=r"float .* found torch.uint8"):
            change(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), IDS)
        with pytest.raises(InputError, match=r"shape \(1, 8, 8\)"):
            change(torch.zeros(1, 8, 8), IDS[:1])
        with pytest.raises(InputError, match="needs colour"):
            corruption("path", "saturate", 1)(scenes(1, 28), IDS)
