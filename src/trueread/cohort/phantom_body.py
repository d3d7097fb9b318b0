"""The phantom's body: what a ray passes on its way from the tube to the detector.

Every function takes the parameters `p` of a batch (tensors `[B,1,1]` or `[B,K]`, see `phantom_anatomy`) and gives maps
`[B,S,S]`. Attenuations are natural logarithms, so that what lies along a ray adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from trueread.cohort.phantom_lungs import RADIUS
from trueread.cohort.phantom_shapes import (
    blobs,
    blur,
    cover,
    ellipse,
    follow,
    pixel_centres,
    row_of_tubes,
    splat,
    tube,
    union,
)


@dataclass(frozen=True)
class Chest:
    """The frame that all organs are drawn in. Maps are `[B,S,S]`."""

    size: int
    pixel: float  # side of a pixel, in half image sides
    across: Tensor  # [1,1,S] and
    down: Tensor  # [1,S,1]: the image's own coordinates
    x: Tensor  # the body's coordinates: the pose undone
    y: Tensor
    u: Tensor  # |x|
    left: Tensor  # 0 on the patient's right, 1 on the left, in between around the midline
    middle: Tensor  # x from the midline of spine and mediastinum
    wall: Tensor  # u of the chest wall's inside
    above: Tensor  # 1 above the diaphragm, 0 below
    lung: Tensor  # share of the pixel inside the lungs, what lies behind the heart included
    depth: Tensor  # of the air along the ray, 1 at the deepest

    def edge(self, width: float) -> float:
        """Width of a soft border, but no less than a pixel."""
        return max(self.pixel, width)


def chest(p: SimpleNamespace, size: int) -> Chest:
    """Where the lungs are: between chest wall, diaphragm and, later, mediastinum."""
    pixel = 2 / size
    across, down = pixel_centres(size)
    cosine, sine = torch.cos(p.rotation) / p.zoom, torch.sin(p.rotation) / p.zoom
    x = cosine * (across - p.shift_x) + sine * (down - p.shift_y)
    y = cosine * (down - p.shift_y) - sine * (across - p.shift_x)
    u, left = x.abs(), (x * 5).add_(0.5).clamp_(0, 1)

    height = p.lung_base - p.apex
    rise = (p.lung_base - y).clamp_(min=0)
    axis = p.lung_axis - p.lung_lean * rise
    v = rise / height
    wall = (1 - v.square()).clamp_(min=0).sqrt_().mul_(p.lung_out).add_(axis)
    lateral = u - axis
    half = torch.where(lateral > 0, p.lung_out, p.lung_in)
    lateral.div_(half)
    field = 1 - lateral.square() - v.square()  # an ellipse, wider on the outside, straight below its middle
    steepness = (lateral / half).square_().add_((v / height).square_()).add_(1e-4)
    inside = (field * 0.5).mul_(steepness.rsqrt_())

    arch = u - 0.40
    bend = torch.where(arch > 0, 1 + 1.5 * arch, 0.55).mul_(arch.square_())
    dome = p.dome + p.inspiration + p.dome_step * left + p.dome_curve * bend
    above = cover(dome - y, max(pixel, 0.02))
    return Chest(
        size=size,
        pixel=pixel,
        across=across,
        down=down,
        x=x,
        y=y,
        u=u,
        left=left,
        middle=x - (p.turn + p.scoliosis * (1 - 2 * y.square())),
        wall=wall,
        above=above,
        lung=cover(inside, max(pixel, 0.015)).mul_(above),
        depth=field.clamp_(min=0).mul_(0.28).add_(0.72),
    )


def attenuation(p: SimpleNamespace, c: Chest, disease: Tensor) -> Tensor:
    """Natural logarithm of the beam's loss, `[B,S,S]`."""
    texture = follow(p.texture.view(-1, 2, 8, 8), c.x, c.y)
    heart = _heart(p, c)
    mu, body = _soft_tissue(p, c)
    mu += 0.20 * heart * (0.3 + 0.7 * c.above)
    mu -= 0.80 * c.lung * c.depth * (1 - 0.70 * heart)
    mu += 0.06 * texture[:, 0] + 0.07 * texture[:, 1] * c.lung
    mu -= _windpipe_and_stomach(p, c)
    mu += _bones(p, c) * (0.5 + 0.5 * c.above)
    mu += _shadows(p, c) * (0.3 + 0.7 * c.lung)
    # in a consolidation vessels do not show, but bronchi, still full of air, do: the sign of the tree turns
    mu += _vessels(p, c) * (0.15 + 0.85 * c.lung) * (1 - 0.7 * heart) * (1 - 1.3 * disease.clamp(max=1))
    mu += 0.75 * disease * (1 - 0.4 * heart)
    mu += _catheter(p, c)
    return mu.clamp_(min=0).mul_(body)


def _heart(p: SimpleNamespace, c: Chest) -> Tensor:
    """Share of the pixel covered by heart and great vessels: one silhouette grown together from five shapes."""
    cosine, sine = torch.cos(p.heart_tilt), torch.sin(p.heart_tilt)
    x, y = c.middle - p.heart_x, c.y - (p.dome + p.inspiration - 0.12)
    ventricle = ellipse(cosine * x + sine * y, cosine * y - sine * x, p.heart_long, p.heart_short)
    atrium = ellipse(c.middle + 0.02, y + 0.03, p.atrium, p.atrium * 1.4)
    pedicle = p.mediastinum + 0.08 * (c.y + 0.40).square() + 0.03 * (c.left - 0.5) - c.middle.abs()
    knob = ellipse(c.middle - 0.075, c.y - p.knob_y, p.knob, p.knob * 1.15)
    trunk = ellipse(c.middle - 0.08, c.y - p.knob_y - 0.20, p.knob * 1.05, p.knob * 1.6)
    above = union(union(pedicle, knob, 0.02), trunk, 0.04)
    return cover(union(union(ventricle, atrium, 0.10), above, 0.16) - 0.012, c.edge(0.025))


def _soft_tissue(p: SimpleNamespace, c: Chest) -> tuple[Tensor, Tensor]:
    """Attenuation of a body without lungs, and the share of the pixel inside its outline."""
    neck = 0.50 / (1 + (c.u / 0.30).square_().square_())
    top = p.shoulder + 0.10 - neck + 0.5 * (c.u - 0.72).clamp_(min=0).square_()
    lift = (0.05 - c.y).clamp_(min=0)
    flank = p.body_width + 0.8 * lift.square() / (lift + 0.2) + 0.05 * c.y.clamp(min=0).square_()
    outline = cover(torch.minimum(flank - c.u, c.y - top), c.edge(0.02))
    depth = (1 - (c.u / (flank + 0.05)).square_()).clamp_(min=0).sqrt_().mul_(1.15).add_(0.45)
    tissue = depth * p.thickness * (1 - 0.25 * cover(top + 0.12 - c.y, 0.25))
    belly = (1 - c.above) * cover(c.wall + 0.03 - c.u, 0.06)
    fall = c.y - p.breast_y
    fall = torch.where(fall > 0, fall / 0.24, fall / 0.50)  # a breast ends below, and fades above
    breast = (1 - ((c.u - p.breast_x) / 0.36).square_().add_(fall.square_())).clamp_(min=0).mul_(2.2).clamp_(max=1)
    return tissue + 0.42 * belly + p.breast * breast, outline


def _windpipe_and_stomach(p: SimpleNamespace, c: Chest) -> Tensor:
    """What air outside the lungs takes away: trachea and main bronchi, and the bubble under the left diaphragm."""
    fork = (c.y + 0.26).clamp_(min=0).mul_(0.8)
    windpipe = cover(p.trachea - (c.middle.abs() - fork).abs_(), c.edge(0.02)) * cover(-0.12 - c.y, 0.05)
    rise = p.dome + p.dome_step + p.inspiration + 0.05 + p.gas - c.y  # above the fluid level
    bubble = torch.minimum(ellipse(c.x - 0.38, rise, p.gas * 1.5 + 1e-3, p.gas + 1e-3), rise)
    return 0.26 * windpipe + 0.34 * cover(bubble, c.edge(0.025)) * (p.gas > 0.02)


def _bones(p: SimpleNamespace, c: Chest) -> Tensor:
    """Attenuation of ribs, spine, clavicles, scapulae and the heads of the humeri."""
    y, u, edge = c.y, c.u, c.edge(0.008)
    q = (u / (c.wall + 0.04)).clamp_(max=1.1)  # 0 at the spine, 1 at the chest wall
    drop = p.rib_slope * (1.6 * q.square() - 0.45 * q)
    behind = row_of_tubes(y - drop, p.rib_radius, p.rib_spacing, p.rib_phase, edge) * cover(u - 0.07, 0.03)
    drop = p.rib_slope * 1.15 + p.rib_front_slope * (1 - q) * (1.25 - 0.25 * q)
    front = row_of_tubes(y - drop, p.rib_radius * 1.15, p.rib_spacing, p.rib_phase, edge) * cover(q - 0.45, 0.3)
    cage = cover(c.wall + 0.045 - u, c.edge(0.02)) * cover(y - p.apex + 0.02, 0.1)
    bones = (behind + 0.38 * front) * cage * p.rib_density
    bones += 0.16 * cover(0.045 - (u - c.wall - 0.02).abs_(), 0.03) * cover(y - p.apex - 0.05, 0.1)

    column = c.middle.abs()
    turns = (y + 1) / (0.145 + 0.02 * y)  # vertebrae, taller towards the loins
    disc = (turns - turns.round()).abs_()  # 0 in the middle of a disc, 0.5 in the middle of a vertebra
    vertebra = cover(p.spine * (0.9 + 0.2 * (disc - 0.25).abs()) - column, c.edge(0.015))
    pedicle = cover(ellipse(column - 0.045, (disc - 0.32) * 0.15, 0.013, 0.02), c.edge(0.01))
    marrow = cover(disc - 0.12, max(c.pixel / 0.15, 0.12))
    bones += p.spine_density * vertebra * (0.55 + 0.45 * marrow + 0.35 * pedicle)

    t = ((u - 0.07) / 0.72).clamp_(0, 1)  # along the clavicle, from sternum to shoulder
    bow = y - p.clavicle_y + p.clavicle_rise * t - 0.22 * t * (1 - t) * (1 - 2 * t)
    ends = cover(u - 0.07, 0.03) * cover(0.80 - u, 0.10)
    bones += 0.42 * tube(bow, 0.036 + 0.012 * (1 - 2 * t).square(), edge) * ends

    tilt = y + 0.65
    blade = torch.minimum(u - p.scapula_x - 0.20 * tilt, p.scapula_x + 0.34 - 0.30 * tilt - u)
    blade = torch.minimum(blade, y + 0.88 - 0.2 * u)
    bones += 0.12 * cover(blade, c.edge(0.015)) + 0.14 * (1 - (blade / 0.03 - 0.8).abs_()).clamp_(min=0)
    humerus = ellipse(u - p.scapula_x - 0.40, y + 0.66, 0.13, 0.13)
    return bones.add_(cover(humerus, c.edge(0.02)), alpha=0.35)


def _to_image(p: SimpleNamespace, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Body coordinates `[B,K]` as the image's own."""
    cosine, sine = torch.cos(p.rotation[:, 0]) * p.zoom[:, 0], torch.sin(p.rotation[:, 0]) * p.zoom[:, 0]
    return cosine * x - sine * y + p.shift_x[:, 0], sine * x + cosine * y + p.shift_y[:, 0]


def _to_pixels(p: SimpleNamespace, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Body coordinates `[B,K]` as column and row, 0 at the centre of the first pixel."""
    column, row = _to_image(p, x, y)
    return (column + 1) * (size / 2) - 0.5, (row + 1) * (size / 2) - 0.5


def _shadows(p: SimpleNamespace, c: Chest) -> Tensor:
    """Hila, small shadows and veils. What is smaller than a pixel loses contrast, not mass."""
    x, y = _to_image(p, p.shadow_x, p.shadow_y)
    radius = (p.shadow_radius.square() + (0.4 * c.pixel) ** 2).sqrt()
    return blobs(c.across, c.down, x, y, radius, p.shadow_weight * (p.shadow_radius / radius).square())


def _vessels(p: SimpleNamespace, c: Chest) -> Tensor:
    """Attenuation of the vessel trees against air: points along every vessel, blurred to about its width."""
    pixels = c.size / 2
    steps = max(4, int(0.31 * pixels))
    t = (torch.arange(steps, dtype=torch.float32) + 0.5) / steps
    x0, y0, x1, y1, bow = (getattr(p, f"vessel_{name}")[..., None] for name in ("x0", "y0", "x1", "y1", "bow"))
    along_x, along_y = x1 - x0, y1 - y0
    length = torch.hypot(along_x, along_y)
    sideways = bow * (4 * t * (1 - t)) / length
    x = x0 + along_x * t - along_y * sideways
    y = y0 + along_y * t + along_x * sideways
    radius = torch.from_numpy(RADIUS)[:, None] * (1.2 - 0.55 * t)
    # attenuation integrated over area, so that a vessel thinner than a pixel darkens it only in part
    mass = 3.2 * radius.pow(1.5) * length / steps * pixels**2
    wide = torch.from_numpy(RADIUS > 0.0155)
    trees = torch.zeros(())
    for group, sigma in ((wide, 0.018), (~wide, 0.007)):
        column, row = _to_pixels(p, x[:, group].flatten(1), y[:, group].flatten(1), c.size)
        trees = trees + blur(splat(column, row, mass[:, group].flatten(1), c.size), sigma * pixels)
    return trees


def _catheter(p: SimpleNamespace, c: Chest) -> Tensor:
    """A line from the right side of the neck into the superior vena cava, for those who have one."""
    if not p.catheter.any():
        return torch.zeros(())
    steps = c.size
    t = (torch.arange(steps, dtype=torch.float32) + 0.5) / steps
    x = (-0.36 * (1 - t).square() - 0.09 * (2 * t - t.square())).expand(len(p.catheter), -1)
    y = (t - 1.05).expand(len(p.catheter), -1)
    mass = (0.0066 / steps * (c.size / 2) ** 2 * p.catheter[:, 0]).expand(-1, steps)
    return splat(*_to_pixels(p, x, y, c.size), mass, c.size)


def opacity(p: SimpleNamespace, c: Chest) -> tuple[Tensor, Tensor]:
    """The disease: how much air it has replaced, 0 to about 1.5, and its extent, 0 to 1.

    Foci that run together, inside the lungs, cut off at a fissure; and mottled, because small airways stay open.
    """
    base, apex, dome = p.lung_base[:, 0], p.apex[:, 0], (p.dome + p.inspiration)[:, 0]
    y = apex + p.focus_down * (dome + p.dome_step[:, 0] * (p.focus_side > 0) - apex)
    rise = (base - y).clamp(min=0)
    wall = (
        p.lung_out[:, 0] * (1 - (rise / (base - apex)).square()).sqrt() + p.lung_axis[:, 0] - p.lung_lean[:, 0] * rise
    )
    x = p.focus_side * (0.12 + p.focus_across * (wall - 0.12))
    foci = blobs(c.across, c.down, *_to_image(p, x, y), p.focus_radius, p.focus_weight)
    fissure = p.apex + p.fissure * (p.dome + p.inspiration - p.apex) + 0.10 * (c.u - 0.4)
    lobe = torch.where(p.fissure < 9, cover(p.fissure_above * (fissure - c.y), c.edge(0.03)), 1.0)
    root = cover(c.u - 0.16, 0.12)  # the root of the lung stays free
    extent = (1 - torch.exp(-2.2 * foci)) * c.lung * lobe * root
    mottle = follow(p.mottle.view(-1, 1, 24, 24), c.x, c.y)[:, 0]
    return extent * (1 + p.mottling * mottle).clamp_(min=0) * p.opacity, extent
