"""CIFAR-10N: labels meet their images, wrong ones are known, and what is not there is one sentence."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from trueread.errors import InputError
from trueread.paper.cifar10n import CLASSES, GIVEN, IMAGES, SIDE, cifar10n
from trueread.shift.label_noise import NOISE


def write(folder, *, side=SIDE):
    """60 training and 20 test images, each as bright as its class and rank say; every fourth label is wrong."""
    clean = np.arange(60, dtype=np.uint8) % 10
    worse = np.where(np.arange(60) % 4 == 0, (clean + 1) % 10, clean).astype(np.uint8)
    np.savez(folder / GIVEN, clean_label=clean, worse_label=worse, random_label1=clean)
    with zipfile.ZipFile(folder / IMAGES, "w") as archive:
        for split, n in (("train", 6), ("test", 2)):
            for k, name in enumerate(CLASSES):
                for rank in range(n):
                    file = io.BytesIO()
                    Image.new("RGB", (side, side), (20 * k, 20 * rank, 0)).save(file, "JPEG", quality=95)
                    archive.writestr(f"{split}/{name}/{rank:04d}.jpg", file.getvalue())
    return clean, worse


def test_labels_meet_their_images(tmp_path):
    clean, worse = write(tmp_path)
    cohort = cifar10n(tmp_path, "worse", images=50)
    assert len(cohort) == 50 + 20
    np.testing.assert_array_equal(cohort.labels[:50], worse[:50])
    np.testing.assert_array_equal(cohort.truth["true_label"][:50], clean[:50])
    np.testing.assert_array_equal(cohort.truth["flipped"], cohort.labels != cohort.truth["true_label"])
    assert cohort.truth["flipped"][:50].mean() == pytest.approx(0.26)
    red = cohort.images[:, 0].mean((1, 2))
    np.testing.assert_allclose(red, 20 * cohort.truth["true_label"], atol=6)
    green = cohort.images[:50, 1].mean((1, 2))
    np.testing.assert_allclose(green, 20 * (np.arange(50) // 10), atol=6)
    assert [len(cohort.rows(s)) for s in ("train", "val", "test")] == [45, 5, 20]
    assert not cohort.truth["flipped"][cohort.rows("test")].any()
    assert cohort.origin[NOISE]["wrong"] == 13
    assert not cifar10n(tmp_path, "random1").truth["flipped"].any()


def test_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=f"no {IMAGES}"):
        cifar10n(tmp_path)
    with pytest.raises(InputError, match="Did you mean 'worse'"):
        cifar10n(tmp_path, "wrose")
    write(tmp_path, side=16)
    with pytest.raises(InputError, match="16"):
        cifar10n(tmp_path)
