"""Simple properties of images: what can be told without knowing what is in them. A few numbers per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.cohort.cohort import Cohort
from trueread.errors import NotMeasured
from trueread.progress import track

Pixels = NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as the readers make grey of colour
NEAR = 0.05  # of white: what is as dark as the darkest pixel
FLAT = 0.02  # of white: an edge row that varies less than this is empty
FRAME = 16  # the frame around an image is one sixteenth of its side wide
CORNER = 5  # a corner is a square of one fifth of the side
BLOCK = 8  # JPEG compresses squares of 8 x 8 pixels
SMALLEST = 8  # side in pixels: below, corners and borders are the whole image
SMALLEST_FOR_BLOCKS = 32  # with fewer than four squares a side their edges cannot be told from anatomy
FAINT = 1e-4  # of white, squared below: keeps logarithms of empty images finite
FILE_FACTS = ("width", "height", "aspect", "bytes", "bits")  # columns that describe the file
PIXELS_AT_A_TIME = 1 << 22

_MEASURED: WeakKeyDictionary[Cohort, pd.DataFrame] = WeakKeyDictionary()


def measure(cohort: Cohort) -> pd.DataFrame:
    """The simple properties of every image: float64, a row per image and a column for each name in `PROPERTIES`.

    Intensities are shares of white. A property that this kind of image cannot have (colour of grey images, depth of
    flat ones) has no column. A volume's properties are means over its slices, but for the balance along its depth.
    Measured once per cohort: three checks ask for them, and on large images this is their longest part. Raises
    NotMeasured for images with a side below 8 pixels.
    """
    if min(cohort.spatial[-2:]) < SMALLEST:
        raise NotMeasured(f"the images are smaller than {SMALLEST} x {SMALLEST} pixels.")
    if cohort not in _MEASURED:
        chunks = track(grey_and_colour(cohort), what=f"measuring {cohort.name}", total=n_chunks(cohort), unit="parts")
        columns = pd.concat([_of_chunk(grey, colour, cohort.is_volume) for grey, colour in chunks], ignore_index=True)
        _MEASURED[cohort] = columns
    return _MEASURED[cohort]


def varying_properties(cohort: Cohort) -> pd.DataFrame:
    """The simple properties and those of the files, float64, without missing values (they take the median) and without
    those that do not vary."""
    values = pd.concat([measure(cohort), file_properties(cohort)], axis=1)
    varying = values.columns[np.ptp(values.to_numpy(), axis=0) > 1e-6]
    if len(varying) == 0:
        raise NotMeasured("all images have the same brightness, contrast and every other property.")
    return values[varying]


def file_properties(cohort: Cohort) -> pd.DataFrame:
    """What is known of the files: numbers under the names in `FILE_FACTS`, and for each ending but the commonest
    whether the file has it. Columns of the table that have such a name count before what was read off the files.
    """
    known = cohort.files if cohort.files is not None else pd.DataFrame(index=range(len(cohort)))
    told = {c.lower(): cohort.table[c] for c in cohort.attributes if c.lower() in FILE_FACTS}
    columns = {c: known[c] for c in known if c in FILE_FACTS} | told
    found = {
        name: column.fillna(column.median()).to_numpy(np.float64)
        for name, column in columns.items()
        if pd.api.types.is_numeric_dtype(column) and column.notna().any()
    }
    if {"width", "height"} <= set(found) and "aspect" not in found:
        found["aspect"] = found["width"] / np.maximum(found["height"], 1)
    if "ending" in known:
        endings = known["ending"].value_counts().index
        found |= {
            f"saved as {e or 'a file without ending'}": (known["ending"] == e).to_numpy(float) for e in endings[1:]
        }
    return pd.DataFrame(found, index=range(len(cohort)))


def n_chunks(cohort: Cohort) -> int:
    """How many parts `grey_and_colour` gives."""
    return -(-len(cohort) // _images_at_a_time(cohort))


def grey_and_colour(cohort: Cohort) -> Iterator[tuple[Pixels, Pixels | None]]:
    """A few images at a time: grey float32 [n,D,H,W] in [0,1] (D = 1 for flat images), and colour [n,D,H,W,3] or
    None."""
    at_a_time = _images_at_a_time(cohort)
    for start in range(0, len(cohort), at_a_time):
        stored = cohort.images[start : start + at_a_time]
        stored = stored if stored.ndim == 5 else stored[:, :, None]
        scaled = np.divide(stored, cohort.white, dtype=np.float32)
        if scaled.shape[1] == 1:
            yield scaled[:, 0], None
        else:
            yield np.tensordot(np.asarray(LUMA, np.float32), scaled, axes=(0, 1)), np.moveaxis(scaled, 1, -1)


def thumbnails(cohort: Cohort, *, side: int) -> Pixels:
    """float32 [N,C,S,S] in [0,1], volumes [N,C,S,S,S]: every pixel the mean of the area that it covers."""
    shape = cohort.images.shape[2:]
    small = np.empty((len(cohort), cohort.channels, *(side for _ in shape)), np.float32)
    at_a_time = _images_at_a_time(cohort)
    for start in range(0, len(cohort), at_a_time):
        part = np.divide(cohort.images[start : start + at_a_time], cohort.white, dtype=np.float32)
        for axis, length in enumerate(shape, start=2):
            part = np.moveaxis(np.moveaxis(part, axis, -1) @ area_means(length, side).T, -1, axis)
        small[start : start + at_a_time] = part
    return small


def area_means(length: int, side: int) -> Pixels:
    """float32 [side,length]: row k averages the k-th of `side` equal parts of `length` pixels, shared ones by share."""
    edges = np.arange(side + 1) * length / side
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(covered, 0) * side / length).astype(np.float32)


def _images_at_a_time(cohort: Cohort) -> int:
    return max(1, PIXELS_AT_A_TIME // int(np.prod(cohort.images.shape[1:])))


def _of_chunk(grey: Pixels, colour: Pixels | None, is_volume: bool) -> pd.DataFrame:
    n, depth, height, width = grey.shape
    slices = grey.reshape(n * depth, height, width)
    values = {name: of(slices) for name, (_, of) in OF_GREY.items()}
    if min(height, width) >= SMALLEST_FOR_BLOCKS:
        values["blockiness"] = blockiness(slices)
    if colour is not None:
        of_slices = colour.reshape(n * depth, height * width, 3)
        values |= dict(zip(OF_COLOUR, _colours(of_slices), strict=True))
    columns = {name: column.reshape(n, depth).mean(axis=1) for name, column in values.items()}
    if is_volume:
        half = depth // 2
        columns["depth balance"] = grey[:, :half].mean(axis=(1, 2, 3)) - grey[:, depth - half :].mean(axis=(1, 2, 3))
    return pd.DataFrame({name: columns[name].astype(np.float64) for name in PROPERTIES if name in columns})


def brightness(grey: Pixels) -> Pixels:
    return grey.mean(axis=(1, 2))


def contrast(grey: Pixels) -> Pixels:
    return grey.std(axis=(1, 2))


def sharpness(grey: Pixels) -> Pixels:
    """log of the variance of the Laplacian over that of the image: fine detail, whatever the contrast."""
    laplacian = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    )
    return np.log((laplacian.var(axis=(1, 2)) + FAINT**2) / (grey.var(axis=(1, 2)) + FAINT**2))


def noise(grey: Pixels) -> Pixels:
    """log of the noise's standard deviation by a mask that smooth areas and straight edges do not excite
    (Immerkaer, Computer Vision and Image Understanding 64 (1996) 300)."""
    along = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    both = along[:, :, :-2] - 2 * along[:, :, 1:-1] + along[:, :, 2:]
    return np.log(np.abs(both).mean(axis=(1, 2)) * np.float32((np.pi / 2) ** 0.5 / 6) + FAINT)


def border_brightness(grey: Pixels) -> Pixels:
    """Mean of the frame minus that of the whole."""
    _, height, width = grey.shape
    h, w = -(-height // FRAME), -(-width // FRAME)
    inside = grey[:, h:-h, w:-w]
    total, inner = grey.sum(axis=(1, 2)), inside.sum(axis=(1, 2))
    return (total - inner) / (height * width - inside[0].size) - total / (height * width)


def empty_border(grey: Pixels) -> Pixels:
    """Share of the side that is rows of one value at the edge, mean of four sides: bars, collimation, padding."""
    widths = []
    for axis in (1, 2):
        empty = grey.max(axis=3 - axis) - grey.min(axis=3 - axis) <= FLAT
        widths += [np.cumprod(side, axis=1, dtype=np.int32).mean(axis=1) for side in (empty, empty[:, ::-1])]
    return np.mean(widths, axis=0, dtype=np.float32)


def centre_corner_difference(grey: Pixels) -> Pixels:
    """Mean of the centre minus that of the four corners."""
    _, height, width = grey.shape
    centre = grey[:, height // 4 : -(height // 4), width // 4 : -(width // 4)].mean(axis=(1, 2))
    return centre - np.mean([grey[:, rows, columns].mean(axis=(1, 2)) for rows, columns in _corners(grey)], axis=0)


def detail_in_corner(k: int) -> Callable[[Pixels], Pixels]:
    """Standard deviation in a corner (upper left, upper right, lower left, lower right): letters, markers, scales."""

    def detail(grey: Pixels) -> Pixels:
        rows, columns = _corners(grey)[k]
        return grey[:, rows, columns].std(axis=(1, 2))

    return detail


def _corners(grey: Pixels) -> list[tuple[slice, slice]]:
    h, w = -(-grey.shape[1] // CORNER), -(-grey.shape[2] // CORNER)
    return [(rows, columns) for rows in (slice(h), slice(-h, None)) for columns in (slice(w), slice(-w, None))]


def background_share(grey: Pixels) -> Pixels:
    """From the darkest pixel and not from black: more exposure makes the background brighter and not smaller."""
    return (grey <= grey.min(axis=(1, 2), keepdims=True) + NEAR).mean(axis=(1, 2), dtype=np.float32)


def left_right_balance(grey: Pixels) -> Pixels:
    half = grey.shape[2] // 2
    return grey[:, :, :half].mean(axis=(1, 2)) - grey[:, :, -half:].mean(axis=(1, 2))


def up_down_balance(grey: Pixels) -> Pixels:
    half = grey.shape[1] // 2
    return grey[:, :half].mean(axis=(1, 2)) - grey[:, -half:].mean(axis=(1, 2))


def mirror_difference(grey: Pixels) -> Pixels:
    """Mean absolute difference between the image and its mirror image, left to right."""
    half = grey.shape[2] // 2
    return np.abs(grey[:, :, :half] - grey[:, :, ::-1][:, :, :half]).mean(axis=(1, 2))


def blockiness(grey: Pixels) -> Pixels:
    """log of the steps across the edges of 8 x 8 squares over the steps elsewhere: strong JPEG compression.

    Only seen when the images were not resized after they were compressed.
    """
    ratios = []
    for axis in (1, 2):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=3 - axis)
        at_edge = np.arange(1, grey.shape[axis]) % BLOCK == 0
        ratios.append(np.log((steps[:, at_edge].mean(axis=1) + FAINT) / (steps[:, ~at_edge].mean(axis=1) + FAINT)))
    return np.mean(ratios, axis=0)


def _colours(pixels: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Of pixels [n,HW,3]: red minus green, blue minus green, and (max - min) / max, all means."""
    red, green, blue = pixels.mean(axis=1).T
    largest = pixels.max(axis=2)
    saturation = (largest - pixels.min(axis=2)) / np.maximum(largest, FAINT)
    return red - green, blue - green, saturation.mean(axis=1)


OF_GREY: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "brightness": ("mean intensity", brightness),
    "contrast": ("standard deviation of the intensities", contrast),
    "sharpness": ("fine detail: log variance of the Laplacian over that of the image", sharpness),
    "noise": ("log of the noise level", noise),
    "border brightness": ("the outermost sixteenth of the side minus the whole", border_brightness),
    "empty border": ("share of the side that is rows of one value at the edge", empty_border),
    "centre-corner difference": ("mean of the centre minus that of the four corners", centre_corner_difference),
    "upper-left detail": ("standard deviation in that corner: letters, markers, scales", detail_in_corner(0)),
    "upper-right detail": ("standard deviation in that corner", detail_in_corner(1)),
    "lower-left detail": ("standard deviation in that corner", detail_in_corner(2)),
    "lower-right detail": ("standard deviation in that corner", detail_in_corner(3)),
    "background share": ("share of pixels within 5 % of white of the darkest one", background_share),
    "left-right balance": ("left half minus right half", left_right_balance),
    "up-down balance": ("upper half minus lower half", up_down_balance),
    "mirror difference": ("mean difference from the image's own mirror image", mirror_difference),
}
OF_COLOUR = {
    "redness": "red minus green",
    "blueness": "blue minus green",
    "saturation": "how far from grey",
}
PROPERTIES: dict[str, str] = {
    **{name: meaning for name, (meaning, _) in OF_GREY.items()},
    "blockiness": "steps across the edges of JPEG's 8 x 8 squares over steps elsewhere",
    **OF_COLOUR,
    "depth balance": "first half of a volume's slices minus the last half",
}
