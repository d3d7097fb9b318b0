"""What is in the phantom's lungs: vessels, opacities, and the small shadows that are no disease.

Drawn once per patient. Lengths are in half image sides, as in `phantom_anatomy`.
"""

from __future__ import annotations

import numpy as np

from trueread.cohort.phantom_anatomy import Draws, Parameters

VISIBLE = 0.2  # severity from which an opacity is marked in the mask; below it is haze

FAN = np.radians([-74, -45, -12, 20, 46, 70])  # directions of the vessels that leave a hilum, downwards from lateral
CALIBRE = np.array([0.9, 0.9, 0.8, 0.9, 1.05, 1.2])  # an upright patient's lower vessels are wider
# each vessel forks twice: segment k of its seven comes from segment (k - 1) // 2
LEVEL = np.array([0, 1, 1, 2, 2, 2, 2])
LENGTH = np.array([0.20, 0.22, 0.22])[LEVEL]
RADIUS = (np.array([0.020, 0.013, 0.009])[LEVEL] * CALIBRE[:, None] * np.ones((2, 1, 1))).ravel().astype(np.float32)


def vessels(draws: Draws, n: int) -> Parameters:
    """The segments of the vessel trees of both lungs: ends, and how far they bow out. `[P,V]`, V = len(RADIUS)."""
    shape = (n, 2, len(FAN), len(LEVEL))
    bent, longer, bow = (draws.spread(f"vessel {what}", *shape) for what in ("angle", "length", "bow"))
    angle = np.empty(shape)
    x0, y0, x1, y1 = (np.empty(shape) for _ in range(4))
    reach = LENGTH * CALIBRE[:, None] * (1 + 0.15 * longer)
    for k in range(len(LEVEL)):
        parent = (k - 1) // 2
        if k == 0:
            angle[..., k] = FAN + 0.12 * bent[..., k]
            x0[..., k] = 0.15 + 0.03 * np.cos(FAN)
            y0[..., k] = np.array([[-0.08], [-0.13]]) + 0.05 * np.sin(FAN)  # the left hilum stands higher
        else:
            angle[..., k] = angle[..., parent] + (0.26 + 0.06 * bent[..., k]) * (1 if k % 2 else -1)
            x0[..., k], y0[..., k] = x1[..., parent], y1[..., parent]
        x1[..., k] = x0[..., k] + reach[..., k] * np.cos(angle[..., k])
        y1[..., k] = y0[..., k] + reach[..., k] * np.sin(angle[..., k])
    side = np.array([-1.0, 1.0])[:, None, None]
    segments = {
        "vessel_x0": side * x0,
        "vessel_y0": y0,
        "vessel_x1": side * x1,
        "vessel_y1": y1,
        "vessel_bow": 0.05 * bow * reach,
    }
    return {name: values.reshape(n, -1) for name, values in segments.items()}


def opacities(draws: Draws, severity: np.ndarray, *, difficulty: float) -> Parameters:
    """Where each patient's opacity is, or would be, and how much it shows.

    Eight foci `[P,8]` in coordinates of the lung: `focus_across` from mediastinum (0) to chest wall (1), `focus_down`
    from apex to diaphragm, `focus_side` -1 for the patient's right. Three patterns: lobar (one dense area that ends at
    a fissure), patchy (scattered, often in both lungs), retrocardiac (behind the heart).

    severity: `[P]`, 0..1; sets contrast and extent. difficulty: 0..1; lowers the contrast.
    """
    n = len(severity)
    pattern = draws.uniform("opacity pattern", n)
    patchy, retrocardiac = (pattern >= 0.45) & (pattern < 0.9), pattern >= 0.9
    lobar = ~patchy & ~retrocardiac
    side = np.where(retrocardiac | (draws.uniform("opacity side", n) < 0.5), 1.0, -1.0)
    both = patchy & (draws.uniform("opacity both", n) < 0.45)
    across = np.where(retrocardiac, 0.22, draws.uniform("opacity across", n, low=0.25, high=0.75))
    down = np.where(retrocardiac, 0.80, draws.uniform("opacity down", n, low=0.2, high=0.95))
    spread_across = np.where(patchy, 0.26, 0.11)[:, None] * draws.spread("focus across", n, 8)
    spread_down = np.where(patchy, 0.20, 0.09)[:, None] * draws.spread("focus down", n, 8)
    radius = np.where(patchy, 0.09, 0.13)[:, None] * (1 + 0.22 * draws.spread("focus radius", n, 8))
    weight = np.where(patchy, 1.0, 0.62)[:, None] * draws.uniform("focus weight", n, 8, low=0.55, high=1.1)
    return {
        "severity": severity,
        "opacity": severity * (2.3 - 1.2 * difficulty),
        "focus_across": (across[:, None] + spread_across).clip(0.08, 0.92),
        "focus_down": (down[:, None] + spread_down).clip(0.10, 0.97),
        "focus_side": side[:, None] * np.where(both[:, None] & (np.arange(8) >= 4), -1, 1),
        "focus_radius": radius * (0.75 + 0.5 * severity)[:, None],
        "focus_weight": weight,
        # an upper lobe ends below at a fissure, a lower one above; 9 is nowhere
        "fissure": np.where(lobar, down + np.where(down < 0.5, 0.14, -0.14), 9.0),
        "fissure_above": np.where(down < 0.5, 1.0, -1.0),
        "mottling": np.where(patchy, 0.45, 0.32),
        "mottle": draws.spread("mottle", n, 24 * 24),
    }


def shadows(draws: Draws, n: int, *, difficulty: float) -> Parameters:
    """Hila, nipples, a calcified granuloma, a scar, and three wide veils of overlying tissue: blobs `[P,9]`.

    Independent of the disease. They keep a bright spot or a bright lung from being proof of an opacity.
    """
    nipples, granuloma, scar = (
        draws.uniform(name, n) < share for name, share in (("nipples", 0.25), ("granuloma", 0.25), ("scar", 0.35))
    )
    nipple_x, nipple_y = (draws.spread("nipple place", n, 2) * 0.04 + (0.47, 0.25)).T
    found_x = np.where(draws.uniform("shadow side", n, 2) < 0.5, -1.0, 1.0) * draws.uniform(
        "shadow x", n, 2, low=0.22, high=0.67
    )
    found_y = draws.uniform("shadow y", n, 2, low=-0.55, high=0.30)
    veil = draws.uniform("veil", n, 3, 4)
    one = np.ones(n)
    x = [-0.17 * one, 0.17 * one, -nipple_x, nipple_x, *found_x.T]
    y = [-0.06 * one, -0.11 * one, nipple_y, nipple_y, *found_y.T]
    radius = [0.055 * one, 0.055 * one, 0.022 * one, 0.022 * one, 0.013 * one, 0.04 * one]
    weight = [0.13 * one, 0.13 * one, 0.14 * nipples, 0.14 * nipples, 0.5 * granuloma, 0.2 * scar]
    haze = (0.05 + 0.30 * difficulty) * (2 * veil[:, :, 3] - 1)
    return {
        "shadow_x": np.column_stack([*x, -0.7 + 1.4 * veil[:, :, 0]]),
        "shadow_y": np.column_stack([*y, -0.6 + 1.1 * veil[:, :, 1]]),
        "shadow_radius": np.column_stack([*radius, 0.18 + 0.17 * veil[:, :, 2]]),
        "shadow_weight": np.column_stack([*weight, haze]),
        "texture": draws.spread("texture", n, 2 * 8 * 8),
    }
