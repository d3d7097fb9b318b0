"""The scores of MedMNIST-C, worked by hand."""

from __future__ import annotations

import pytest

from trueread.errors import InputError
from trueread.shift.corruption import corruption_scores
from trueread.shift.corruption.lists import facts

ALEXNET = facts()["alexnet"]["breastmnist"]
PIXELATE = [0.3, 0.35, 0.4, 0.45, 0.5]


def test_by_hand():
    scores = corruption_scores({"pixelate": PIXELATE}, clean=0.1, reference="breastmnist")
    (score,) = scores.by_corruption.values()
    assert score.error == pytest.approx(0.4)
    assert score.be == pytest.approx(0.4 / 0.461278, rel=1e-5)
    assert score.rbe == pytest.approx((0.4 - 0.1) / (0.461278 - 0.145363), rel=1e-5)
    assert scores.mean == score
    assert scores.by_family == {"digital": score}


def test_alexnet_scores_one():
    for name, theirs in facts()["alexnet"].items():
        errors = {c: [e] * 5 for c, e in theirs["errors"].items()}
        scores = corruption_scores(errors, clean=theirs["clean"], reference=name)
        assert scores.mean.be == pytest.approx(1)
        assert scores.mean.rbe == pytest.approx(1)
        assert all(s.rbe == pytest.approx(1) for s in scores.by_family.values())


def test_means_are_over_corruptions_and_families_apart():
    errors = {"pixelate": [0.2] * 5, "jpeg-compression": [0.4] * 5, "speckle-noise": [0.6] * 5}
    scores = corruption_scores(errors, clean=0.1, reference="breastmnist")
    assert scores.by_family["digital"].error == pytest.approx(0.3)
    assert scores.by_family["noise"].error == pytest.approx(0.6)
    assert scores.mean.error == pytest.approx(0.4), "of the three corruptions, not of the two families"
    assert scores.mean.be == pytest.approx(sum(v[0] / ALEXNET["errors"][k] for k, v in errors.items()) / 3)


def test_without_a_reference_there_is_the_error_alone():
    scores = corruption_scores({"pixelate": PIXELATE}, clean=0.1)
    assert scores.mean.error == pytest.approx(0.4)
    assert scores.mean.be is None
    assert scores.mean.rbe is None


def test_where_alexnet_gains_by_corruption_rbe_turns_its_sign():
    theirs = facts()["alexnet"]["pneumoniamnist"]
    assert theirs["errors"]["contrast-up"] < theirs["clean"]
    assert corruption_scores({"contrast-up": [0.2] * 5}, clean=0.1, reference="pneumoniamnist").mean.rbe < 0


def test_mistakes():
    with pytest.raises(InputError, match=r"needs 5 balanced errors in .* one per level; found"):
        corruption_scores({"pixelate": [0.1] * 4}, clean=0.1)
    with pytest.raises(InputError, match="found"):
        corruption_scores({"pixelate": [30.0] * 5}, clean=0.1)
    with pytest.raises(InputError, match="'clean' needs"):
        corruption_scores({"pixelate": PIXELATE}, clean=float("nan"))
    with pytest.raises(InputError, match=r"'breast' is not a MedMNIST set.*Did you mean 'breastmnist'"):
        corruption_scores({"pixelate": PIXELATE}, clean=0.1, reference="breast")
    with pytest.raises(InputError, match="'bubble' is not a corruption of breastmnist"):
        corruption_scores({"bubble": PIXELATE}, clean=0.1, reference="breastmnist")
    with pytest.raises(InputError, match="no corruptions"):
        corruption_scores({}, clean=0.1)
