"""The Square attack: random search over square changes, for any function of images, differentiable or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from trueread.shift.attack.balls import Ball, lengths
from trueread.shift.attack.checks import check_count, check_draw
from trueread.shift.attack.search import Attacked, Forward, Search
from trueread.shift.base import Draw

FIRST_SHARE = 0.8  # of the image's pixels that a square covers at first
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10000 queries
DRAWN_AT_ONCE = 64


def square_attack(
    forward: Forward, images: Tensor, labels: Tensor, *, ball: Ball, draw: Draw, queries: int = 5000
) -> Attacked:
    """Changes one random square of the image after the other and keeps those that raise the margin.

    forward may be any function without gradients. In volumes the squares are cubes; where a side is larger than the
    image, the image cuts it. The images as given are tried first; fooled images leave. queries: after the start.
    Arguments, result and errors as those of `pgd`.
    Source: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 to 3; the shares as in AutoAttack.
    """
    check_count("queries", queries)
    search = Search(forward, images, labels, objective="margin")
    check_draw(draw, images)
    search.look(search.center)
    search.drop_fooled()
    if not len(search):
        return search.result()
    channels, *spatial = images.shape[1:]
    start, move = (_stripes, _paint) if ball.norm == "linf" else (_tiles, _shift_mass)
    numbers = search.draw(draw).uniform("square, start", n=channels * math.prod(spatial), like=search.center)
    search.look(ball.project_(start(search.center, ball.radius(images), numbers), search.center))
    per_query = channels + 2 * len(spatial) + 1
    for query in range(queries):
        stay = search.drop_fooled()
        if not len(search):
            break
        if query % DRAWN_AT_ONCE == 0:
            purpose, n = f"square, from query {query}", DRAWN_AT_ONCE * per_query
            numbers = search.draw(draw).uniform(purpose, n=n, like=search.center).view(-1, DRAWN_AT_ONCE, per_query)
        elif stay is not None:
            numbers = numbers[stay]
        side = square_side(query, queries, spatial, least=1 if ball.norm == "linf" else 3)
        sides = [min(side, n) for n in spatial]
        best = search.found[search.rows]
        moved = move(best, search.center, ball.radius(images), sides, numbers[:, query % DRAWN_AT_ONCE])
        search.look(ball.project_(moved, search.center))
    return search.result()


def square_side(query: int, queries: int, spatial: Sequence[int], *, least: int = 1) -> int:
    """Side of the square tried at this query: its share of the image starts at 0.8 and is halved nine times."""
    share = FIRST_SHARE / 2 ** sum(query * 10000 > after * queries for after in HALVED_AFTER)
    return max(round((share * math.prod(spatial)) ** (1 / len(spatial))), least)


def hills(sides: Sequence[int], axis: int) -> Tensor:
    """float [*sides] of unit length: a positive hill beside a negative one along `axis`, both steepest in the middle.

    Source: eta of the paper, with the largest of the distances along the axes, however many they are.
    """
    half = sides[axis] // 2
    steps = [torch.arange(n) for n in sides]
    away = [(step - n // 2).abs() for step, n in zip(steps, sides, strict=True)]
    second = steps[axis] >= half
    away[axis] = torch.where(second, steps[axis] - half - (sides[axis] - half) // 2, steps[axis] - half // 2).abs()
    distance = torch.stack(torch.meshgrid(*away, indexing="ij")).amax(0)
    heights = (1 / (torch.arange(int(distance.max()) + 1) + 1.0) ** 2).flip(0).cumsum(0).flip(0)
    along = [n if a == axis else 1 for a, n in enumerate(sides)]
    signed = heights[distance] * torch.where(second, -1.0, 1.0).view(along)
    return signed / signed.norm()


@lru_cache(maxsize=16)  # the side stays the same for hundreds of queries
def _all_hills(sides: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The hills along each axis, flattened: float [dims, pixels]."""
    return torch.stack([hills(sides, axis).flatten() for axis in range(len(sides))]).to(device, dtype)


def _stripes(images: Tensor, radius: float, numbers: Tensor) -> Tensor:
    """Every column of every channel goes up or down by the radius."""
    columns = numbers[:, : images.shape[1] * images.shape[-1]]
    signs = _signs(columns).view(len(images), images.shape[1], *[1] * (images.ndim - 3), images.shape[-1])
    return images + radius * signs


def _paint(best: Tensor, images: Tensor, radius: float, sides: list[int], numbers: Tensor) -> Tensor:
    """In one square, every channel is the image's plus or minus the radius."""
    channels = images.shape[1]
    inside, _ = _window(images, sides, numbers[:, channels : channels + len(sides)])
    return torch.where(inside, images + radius * _per_channel(_signs(numbers[:, :channels]), images), best)


def _tiles(images: Tensor, radius: float, numbers: Tensor) -> Tensor:
    """Hills on every tile of a fifth of the shortest side, with a sign of its own in every channel."""
    channels, *spatial = images.shape[1:]
    side = max(min(spatial) // 5, 1)
    pattern = hills([side] * len(spatial), len(spatial) - 1).to(images)
    for axis, n in enumerate(spatial):
        pattern = pattern.index_select(axis, torch.arange(n, device=images.device) % side)
    signs = _signs(numbers).view(-1, channels, *spatial)
    for axis, n in enumerate(spatial):
        place = torch.arange(n, device=images.device) // side * side
        signs = signs.index_select(2 + axis, place)
    delta = signs * pattern
    return images + radius * delta / lengths(delta)


def _shift_mass(best: Tensor, images: Tensor, radius: float, sides: list[int], numbers: Tensor) -> Tensor:
    """Takes the change out of one square and puts it, and what the ball has left, as hills into another."""
    channels, dims = images.shape[1], len(sides)
    delta = best - images
    signs, places, turn = numbers.split([channels, 2 * dims, 1], dim=1)
    inside, index = _window(images, sides, places[:, :dims])
    emptied, _ = _window(images, sides, places[:, dims:])
    chosen = _all_hills(tuple(sides), images.device, images.dtype)[_whole(turn.squeeze(1), dims)]
    hill = chosen.gather(1, index.flatten(1)).view_as(inside) * inside
    old = delta * inside
    new = _per_channel(_signs(signs), images) * hill + old / _channel_lengths(old).clamp_min(1e-30)
    new = new / _channel_lengths(new).clamp_min(1e-30)
    unused = (radius**2 - lengths(delta) ** 2).clamp_min(0) / channels
    both = inside | emptied
    return images + delta * ~both + new * (_channel_lengths(delta * both) ** 2 + unused).sqrt()


def _window(images: Tensor, sides: list[int], places: Tensor) -> tuple[Tensor, Tensor]:
    """A window of these sides at a random place of each image.

    places: float [B,dims] in [0,1). Returns bool and int64 [B,1,*spatial]: the pixels inside, and their position within
    the flattened window (0 outside).
    """
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    index = torch.zeros((), dtype=torch.int64, device=images.device)
    spatial = images.shape[2:]
    for axis, (n, side) in enumerate(zip(spatial, sides, strict=True)):
        first = _whole(places[:, axis], n - side + 1)
        local = torch.arange(n, device=images.device) - first[:, None]
        local = local.view(-1, 1, *(n if a == axis else 1 for a in range(len(spatial))))
        inside = inside & (local >= 0) & (local < side)
        index = index * side + local
    return inside, torch.where(inside, index, 0)


def _whole(numbers: Tensor, n: int) -> Tensor:
    """Numbers in [0,1) as integers in [0,n)."""
    return (numbers * n).long().clamp_max(n - 1)


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers.dtype)


def _per_channel(values: Tensor, images: Tensor) -> Tensor:
    """Values [B,C] shaped [B,C,1,...]."""
    return values.view(*values.shape, *(1 for _ in images.shape[2:]))


def _channel_lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=tuple(range(2, x.ndim)), keepdim=True)
