"""Corruption augmentation: what is changed is a corruption of the list, the rest stays, and draws repeat."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread import fit
from trueread.errors import InputError
from trueread.method.corruption_augment import CorruptionAugment
from trueread.shift.corruption import LEVELS, corruption, corruptions_for

SIDE = 28


def prepared(*, modality="radiograph", channels=1, **options):
    cohort = replace(tiny_cohort(n=60, side=SIDE, channels=channels), modality=modality)
    method = CorruptionAugment(**options)
    method.prepare(tiny_setup(cohort))
    return method


def batch(n=32, *, seed=0, channels=1):
    images = torch.rand(n, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    return tiny_step(torch.zeros(n, 2), torch.arange(n) % 2, images=images, seed=seed)


def test_a_share_is_corrupted_and_the_rest_stays():
    method, step = prepared(share=0.25), batch()
    before = step.images
    kept = before.clone()
    method.perturb(step)
    changed = (step.images != before).flatten(1).any(1)
    assert 0 < changed.sum() <= 8
    assert torch.equal(before, kept)  # the store's batch is nobody's to change
    assert step.images.min() >= 0
    assert step.images.max() <= 1


def test_every_changed_image_is_one_of_the_list_at_one_of_its_levels():
    method, step = prepared(share=1.0), batch(16, seed=3)
    before = step.images
    method.perturb(step)
    ids = [f"3/{i}" for i in range(16)]
    every = torch.stack([corruption("radiograph", n, s)(before, ids) for n in method.names for s in LEVELS])
    nearest = (every - step.images).abs().flatten(2).amax(2).amin(0)
    assert nearest.max() < 1e-5


def test_the_same_step_draws_the_same_and_another_something_else():
    method = prepared(share=1.0)
    a, b, c = batch(seed=1), batch(seed=1), batch(seed=2)
    for step in (a, b, c):
        method.perturb(step)
    assert torch.equal(a.images, b.images)
    assert not torch.equal(a.images, c.images)


def test_all_corruptions_come_up():
    method = prepared(share=1.0)
    names, kept = set(), list(method.names)
    for seed in range(60):
        method.names = kept
        step = batch(4, seed=seed)
        before = step.images
        method.perturb(step)
        for name in kept:
            made = torch.stack(
                [corruption("radiograph", name, s)(before, [f"{seed}/{i}" for i in range(4)]) for s in LEVELS]
            )
            if ((made - step.images).abs().flatten(2).amax(2).amin(0) < 1e-5).any():
                names.add(name)
    assert names == set(kept)


def test_left_out_and_unfit_ones_are_not_used():
    listed = corruptions_for("histology")
    grey = prepared(modality="histology", leave_out=["pixelate"])
    assert "pixelate" not in grey.names
    assert "saturate" not in grey.names
    assert "saturate" in prepared(modality="histology", channels=3).names
    assert set(grey.names) < set(listed)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="'fog' is not in the list for 'radiograph'"):
        prepared(leave_out=["fog"])
    with pytest.raises(InputError, match="'any'"):
        prepared(modality="any")
    with pytest.raises(InputError, match="no corruption of the list"):
        prepared(modality="oct", leave_out=list(corruptions_for("oct")))


def test_it_trains_and_goes_on_from_its_state(tmp_path):
    cohort = replace(tiny_cohort(n=60, side=SIDE), modality="fundus")
    fitted = fit(cohort, CorruptionAugment(), tiny_config(), folder=tmp_path, quiet=True)
    assert fitted.report["corruptions_of"] == "fundus"
    method = prepared(modality="fundus")
    again = CorruptionAugment()
    again.load_state(method.state(), tiny_setup(cohort))
    assert again.report() == method.report()
