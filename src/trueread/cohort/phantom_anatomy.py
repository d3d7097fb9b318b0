"""Who is on the phantom's radiographs: every patient's and every image's parameters, drawn before anything is rendered.

Lengths are in half image sides (about 17 cm): the image spans -1..1, x to the right (the patient's left), y down.
The shapes are our own drawing, after the proportions of an adult chest; they are no measurement of a population.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

# name: (mean, standard deviation between patients, standard deviation between the images of one patient)
RANGES: dict[str, tuple[float, float, float]] = {
    # how the patient stands
    "rotation": (0.0, 0.0, 0.03),  # radians
    "shift_x": (0.0, 0.0, 0.035),
    "shift_y": (0.02, 0.0, 0.035),
    "zoom": (1.0, 0.03, 0.02),
    "turn": (0.0, 0.0, 0.02),  # about the long axis: the mediastinum slides against the ribs
    "scoliosis": (0.0, 0.02, 0.0),
    "inspiration": (0.0, 0.03, 0.035),  # positive: the diaphragm stands lower
    # soft tissue
    "body_width": (0.97, 0.05, 0.01),
    "thickness": (1.0, 0.08, 0.02),  # relative depth of the soft tissue
    "shoulder": (-0.93, 0.05, 0.02),
    "breast_x": (0.46, 0.03, 0.01),
    "breast_y": (0.27, 0.06, 0.02),
    "gas": (0.08, 0.04, 0.015),  # radius of the bubble in the stomach
    # lungs
    "lung_axis": (0.42, 0.015, 0.0),  # x of the line from which a lung widens to both sides
    "lung_out": (0.39, 0.025, 0.0),
    "lung_in": (0.30, 0.02, 0.0),
    "lung_base": (0.33, 0.03, 0.0),  # y below which the chest wall runs straight down
    "lung_lean": (0.11, 0.02, 0.0),  # the apices lean towards each other
    "apex": (-0.80, 0.035, 0.0),
    "dome": (0.44, 0.035, 0.0),  # y of the top of the right diaphragm
    "dome_step": (0.06, 0.02, 0.0),  # the left one stands lower
    "dome_curve": (0.75, 0.12, 0.0),
    # mediastinum
    "mediastinum": (0.115, 0.010, 0.0),
    "heart_x": (0.10, 0.02, 0.0),
    "heart_long": (0.44, 0.035, 0.005),
    "heart_short": (0.29, 0.025, 0.005),
    "heart_tilt": (0.68, 0.10, 0.02),  # radians; small when the heart lies
    "atrium": (0.18, 0.02, 0.0),
    "knob": (0.085, 0.010, 0.0),  # of the aorta
    "knob_y": (-0.36, 0.025, 0.0),
    "trachea": (0.042, 0.004, 0.0),
    # bones
    "rib_spacing": (0.168, 0.008, 0.0),
    "rib_phase": (0.0, 0.25, 0.03),  # of a spacing
    "rib_radius": (0.036, 0.003, 0.0),
    "rib_slope": (0.30, 0.05, 0.03),
    "rib_front_slope": (0.62, 0.06, 0.03),
    "rib_density": (0.26, 0.04, 0.0),
    "spine": (0.078, 0.005, 0.0),
    "spine_density": (0.24, 0.04, 0.0),
    "clavicle_y": (-0.60, 0.03, 0.02),
    "clavicle_rise": (0.17, 0.04, 0.02),
    "scapula_x": (0.68, 0.04, 0.02),
    # film
    "exposure": (0.0, 0.0, 0.16),
    "contrast": (1.0, 0.0, 0.10),
    "scatter": (0.06, 0.0, 0.015),
    "noise": (1.0, 0.0, 0.12),
}

MARKER_ASPECT = 0.84  # width of the lead marker by its height

Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Draws:
    """Random numbers by name. Each name has its own stream, filled in the order of its rows.

    So the patients of a large cohort begin with those of a small one, and a new parameter leaves the others alone.
    """

    seed: int

    def stream(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def uniform(self, name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return self.stream(name).uniform(low, high, shape)

    def spread(self, name: str, *shape: int) -> np.ndarray:
        """Standard normal, clipped at 2: people differ, but their parts still fit together."""
        return self.stream(name).standard_normal(shape).clip(-2, 2)


@dataclass(frozen=True)
class Patients:
    """Who they are, one entry per patient `[P]`."""

    site: np.ndarray  # int64, 0 is the first site
    female: np.ndarray  # bool
    age: np.ndarray  # years
    severity: np.ndarray  # of the opacity, 0..1


@dataclass(frozen=True)
class Scene:
    """All that is needed to render the images, float32.

    patient: int64 `[N]`, whose image it is. of_image: `[N]` each. of_patient: `[P]` or `[P,K]` each.
    """

    patient: np.ndarray
    of_image: Parameters
    of_patient: Parameters

    def __len__(self) -> int:
        return len(self.patient)

    def rows(self, start: int, stop: int) -> Parameters:
        """The parameters of a run of images: `[B]` or `[B,K]`."""
        chunk = {name: values[start:stop] for name, values in self.of_image.items()}
        return chunk | {name: values[self.patient[start:stop]] for name, values in self.of_patient.items()}


def bodies(draws: Draws, patients: Patients, *, patient: np.ndarray, ap: np.ndarray) -> Parameters:
    """What differs from image to image, `[N]` each: pose, anatomy as age, sex and view change it, and film.

    patient: int `[N]`, whose image it is. ap: bool `[N]`, taken from the front on a patient who sits or lies (else PA).
    """
    n_patients, n = len(patients.site), len(patient)
    p = {
        name: mean + own * draws.spread(name, n_patients)[patient] + image * draws.spread(f"{name}, image", n)
        for name, (mean, own, image) in RANGES.items()
    }
    decades = (patients.age[patient] - 55) / 10
    female = patients.female[patient]
    p["knob"] += 0.006 * decades  # the aorta unfolds
    p["rib_density"] *= 1 - 0.03 * decades
    p["heart_long"] *= (1 + 0.012 * decades) * np.where(ap, 1.10, 1.0)  # nearer to the tube, so it looks larger
    p["heart_short"] *= np.where(ap, 1.10, 1.0)
    p["mediastinum"] *= np.where(ap, 1.12, 1.0)
    p["breast"] = np.where(female, 0.30, 0.07) * (1 + 3 * (p["thickness"] - 1))
    p["body_width"] += 0.25 * (p["thickness"] - 1)
    p["inspiration"] -= 0.07 * ap  # who lies down breathes in less
    p["gas"] = np.where(ap, 0.0, p["gas"].clip(0))  # and has no fluid level
    p["clavicle_y"] -= 0.06 * ap
    p["clavicle_rise"] -= 0.07 * ap
    p["scapula_x"] -= 0.13 * ap  # not turned out of the lungs
    p["scatter"] *= np.where(ap, 1.3, 1.0)
    p["noise"] *= np.where(ap, 1.25, 1.0)
    p["catheter"] = (ap & (draws.uniform("catheter, image", n) < 0.4)).astype(float)
    _look_of_site(p, patients.site[patient])
    return p


def _look_of_site(p: Parameters, site: np.ndarray) -> None:
    """The first site is the reference; every further one has its own tube, detector and processing."""
    p["exposure"] += np.array([0.0, 0.14, -0.10, 0.08, -0.16])[site % 5]
    p["contrast"] *= np.array([1.0, 0.86, 1.12, 0.92, 1.06])[site % 5]
    p["scatter"] *= np.array([1.0, 1.4, 0.8, 1.2, 1.0])[site % 5]
    p["noise"] *= np.array([1.0, 1.4, 1.2, 0.8, 1.6])[site % 5]
