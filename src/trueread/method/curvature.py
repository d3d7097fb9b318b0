"""How a point's neighbours lie around it: one number for each embedding, and what two views' numbers should have in
common.

Source: Ghojogh, Sepanj and Fieguth 2025, CurvSSL, arXiv 2511.17426. The score of a point is the sum of the cosines
between all pairs of edges to its k nearest neighbours; that of the kernel version, the off-diagonal sum of the
normalised Gram matrix of these edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["none", "linear", "rbf", "laplacian", "polynomial"]
Form = Literal["outer", "corr", "multi"]
SCALES = (3, 5, 8, 12, 16)  # neighbours, of the form "multi"
SMALLEST = 1e-5  # variance below which scores are not spread further: those of random embeddings are nearly alike
DEGREE = 3  # of the polynomial kernel
ROUNDING = 16  # times the precision, of squared lengths: two points nearer than that are one


@torch.no_grad()
def nearest(z: Tensor, k: int) -> Tensor:
    """int64 [b,k]: for each row of z, float [b,d], the k nearest other rows, the nearest first; k < b."""
    z = z - z.mean(0)  # distances of many rows are computed from squares, which lose their digits far from 0
    apart = torch.cdist(z, z)
    apart.fill_diagonal_(torch.inf)
    return apart.topk(k, dim=1, largest=False).indices


def edges(z: Tensor, neighbours: Tensor) -> Tensor:
    """float [b,k,d]: from each row of z to its neighbours int64 [b,k]."""
    return z[neighbours] - z[:, None]


def unit_edges(z: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """The edges at length 1, float [b,k,d], and bool [b,k] which of them have a direction. One to a duplicate is 0 and
    without a gradient, that of a direction growing beyond all bounds as the edge becomes short.
    """
    drawn = edges(z, neighbours)
    lengths = drawn.norm(dim=2)
    squares = (z.detach() - z.detach().mean(0)).square().sum(1)
    there = lengths.detach().square() > rounding(squares[:, None] + squares[neighbours])
    return drawn * torch.where(there, lengths.where(there, 1.0).reciprocal(), 0.0)[..., None], there


def rounding(both: Tensor) -> Tensor:
    """The squared distance from which on two points are not one. both: the sum of their squared lengths."""
    return ROUNDING * torch.finfo(both.dtype).eps * both


def curvature(z: Tensor, neighbours: Tensor, *, kernel: Kernel = "none") -> Tensor:
    """Score float [b] of each row of z, float [b,d], in [-k/2, k(k-1)/2]: large where its neighbours all lie on one
    side. neighbours: int64 [b,k].

    Without a kernel in O(b k d), for the sum over pairs of unit edges is half of (the squared length of their sum less
    k). An edge to a duplicate has no direction and adds nothing.
    """
    k = neighbours.shape[1]
    if kernel == "none":
        return curvatures(z, neighbours, (k,))[:, 0]
    if kernel == "rbf":
        apart = between(z, neighbours)
        return ((-apart / _median(apart)).exp().sum((1, 2)) - k) / 2  # its diagonal is 1
    gram = _gram(unit_edges(z, neighbours)[0] if kernel == "linear" else edges(z, neighbours), kernel)
    own = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-12).rsqrt()
    gram = gram * own[:, :, None] * own[:, None]
    return (gram.sum((1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)) / 2


def curvatures(z: Tensor, neighbours: Tensor, scales: Sequence[int], *, kernel: Kernel = "none") -> Tensor:
    """Scores float [b,m], those of `curvature` with the first k neighbours for each k of the m scales, in rising order.

    Without a kernel every edge is drawn once, for all scales.
    """
    if kernel != "none":
        return torch.stack([curvature(z, neighbours[:, :k], kernel=kernel) for k in scales], dim=1)
    units, there = unit_edges(z, neighbours[:, : scales[-1]])
    between = [b - a for a, b in pairwise((0, *scales))]
    sums = torch.stack([part.sum(1) for part in units.split(between, dim=1)], dim=1).cumsum(1)  # [b,m,d]
    own = there.cumsum(1)[:, torch.as_tensor(scales, device=z.device) - 1]
    return (sums.square().sum(2) - own) / 2


def _gram(e: Tensor, kernel: Kernel) -> Tensor:
    """float [b,k,k] of edges float [b,k,d]. Widths are the median over the batch (Laplacian: of L1 distances between
    edges of a point; polynomial: of squared lengths), as constants.
    """
    if kernel == "linear":
        return e @ e.mT
    if kernel == "polynomial":
        return (e @ e.mT / _median(e.square().sum(2)) + 1) ** DEGREE
    apart = torch.cdist(e, e, p=1)
    return (-apart / _median(apart)).exp()


def between(z: Tensor, neighbours: Tensor) -> Tensor:
    """Squared distances float [b,k,k] between the edges of each point, which are those between its neighbours: read off
    the batch's own [b,b], so that no edge is drawn. What is as small as rounding is 0.
    """
    z = z - z.mean(0)
    squares = z.square().sum(1)
    both = squares[:, None] + squares
    apart = both - 2 * z @ z.T
    apart = apart.masked_fill(apart <= rounding(both), 0.0)
    return apart[neighbours[:, :, None], neighbours[:, None]]


def _median(values: Tensor) -> Tensor:
    """Of those above 0, and 1 where there are none."""
    above = values.detach()[values.detach() > 0]
    return above.median() if len(above) else values.new_ones(())


def standardised(scores: Tensor) -> Tensor:
    """float [b,...] with mean 0 and variance 1 over the batch."""
    centred = scores - scores.mean(0)
    return centred * (centred.square().mean(0) + SMALLEST).rsqrt()


def curvature_loss(first: Tensor, second: Tensor, *, form: Form, redundancy: float) -> Tensor:
    """How far the curvature of two views' embeddings is from agreeing: a scalar, from scores float [b], or [b,m] of m
    scales for "multi".

    "outer": with R the outer product of both standardised scores, the mean of (1 - R_ii)^2, and `redundancy` times the
    sum over the others of R_ij^2 / b (the published matrix, as we read it). "corr": (1 - mean of c c')^2. "multi": the
    Barlow Twins loss of the scales' [m,m] correlation.
    """
    c, other = standardised(first), standardised(second)
    if form == "corr":
        return (1 - (c * other).mean()) ** 2
    if form == "multi":
        return cross_correlation_loss(c.T @ other / len(c), redundancy=redundancy)
    r = c[:, None] * other
    own = r.diagonal()
    return (1 - own).square().mean() + redundancy * (r.square().sum() - own.square().sum()) / len(c)


def cross_correlation_loss(matrix: Tensor, *, redundancy: float) -> Tensor:
    """sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2 of a matrix float [d,d]."""
    own = matrix.diagonal()
    return (1 - own).square().sum() + redundancy * (matrix.square().sum() - own.square().sum())
