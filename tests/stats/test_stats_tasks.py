"""The guard in front of every metric: what passes, and the sentence for what does not."""

from __future__ import annotations

import numpy as np
import pytest

from trueread.errors import InputError
from trueread.stats import check_probabilities

P = np.array([[0.2, 0.8], [0.7, 0.3], [0.5, 0.5]])
Y = np.array([1, 0, 1])


def test_what_is_right_passes_in_double_precision():
    rounded = np.array([[1.0000002, -1e-8], [0.3333, 0.6671], [0.5, 0.5]], dtype=np.float32)  # as a softmax may end
    p, y = check_probabilities(rounded, Y.astype(np.uint8), "binary")
    assert (p.dtype, y.dtype) == (np.float64, np.int64)
    assert (p.min(), p.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(y, Y)
    p, y = check_probabilities(P[:, :1], np.array([[1], [np.nan], [0]]), "multilabel")
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, [[1], [np.nan], [0]])


@pytest.mark.parametrize(
    ("probabilities", "labels", "task", "sentence"),
    [
        (P[:, 1], Y, "binary", "stack 1 - p and p"),
        (P[:, :1], Y, "multiclass", "one column per class"),
        (P[:0], Y[:0], "binary", "at least one row"),
        (np.full((3, 3), 1 / 3), Y, "binary", "two columns"),
        (P.round().astype(int), Y, "binary", "not decided classes"),
        (np.where(P == 0.3, np.nan, P), Y, "binary", "nan in 1 of 3 rows, first in row 1"),
        (P * 8 - 4, Y, "binary", "look like logits"),
        (P * 1.01, Y, "multiclass", "row 0 sums to 1.0100"),
        (P, Y[:2], "binary", "one per row of probabilities"),
        (P, Y.astype(float), "binary", "found float64"),
        (P, Y + 1, "binary", "found 1..2"),
        (P, -Y, "binary", "found -1..0"),
        (P, Y, "multilabel", "one column per label"),
        (P, np.array([[0, 1], [2, 0], [1, 1.0]]), "multilabel", "0, 1 or nan"),
        (P, Y, "multi-class", "Did you mean 'multiclass'"),
    ],
)
def test_what_is_wrong_is_a_sentence(probabilities, labels, task, sentence):
    with pytest.raises(InputError) as error:
        check_probabilities(probabilities, labels, task)
    assert sentence in str(error.value)
    assert str(error.value).endswith(".")
