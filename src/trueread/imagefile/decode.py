"""One image or mask file to pixels of the requested side. Every failure becomes `Unreadable` with a short reason."""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from trueread.imagefile.dicom import NotADicomImage, dicom_image, is_dicom
from trueread.imagefile.filestate import CONTENT_BYTES, content, settled, stamp

Fit = Literal["crop", "pad", "stretch"]
Job = tuple[str, str | None]  # an image file, and its mask if it has one

MAX_PIXELS = 100_000_000  # a whole-slide image or a decompression bomb; neither may be decoded as one picture
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")  # not EPS: Pillow hands it to Ghostscript
MASK_SHAPE_TOLERANCE = 0.05  # relative difference in aspect ratio between a mask and its image: rounding of small sizes
IN_MEMORY_BYTES = 2**26  # files up to this are read at once, which is also faster than piece by piece
DRAFT_RATIO = 1.5  # a JPEG is decoded at no less than this times the final size: 51 dB from decoding it in full
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """One file that cannot be used; the text is the reason in a few words."""


class Picture(NamedTuple):
    """One decoded file: pixels [C,S,S], width and height of the upright original, and its mask [S,S] if any."""

    pixels: np.ndarray
    width: int
    height: int
    mask: np.ndarray | None = None

    @property
    def aspect(self) -> float:
        """Width / height."""
        return self.width / self.height


@dataclass(frozen=True)
class Recipe:
    """How files become rows of an array: uint8 or uint16 [C,S,S], and uint8 [S,S] of masks when there are any."""

    size: int
    channels: Literal[1, 3]
    fit: Fit
    masks: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    @property
    def row_bytes(self) -> int:
        """Of an image at 8 bits and its mask."""
        return self.size**2 * (self.channels + self.masks)


class Seen(NamedTuple):
    """What the two files of a job were like when they were decoded: stamps int64 [2,3], contents uint8 [2,16]; zeros
    for a file that is not there, and no content of one that changed meanwhile.
    """

    stamps: np.ndarray
    contents: np.ndarray


Outcome = tuple[Picture | Unreadable, Seen | None]


def decode(job: Job, recipe: Recipe) -> Picture | Unreadable:
    """An image, with its mask when the recipe has masks, or why not. Call it inside `pillow_ready`."""
    try:
        image, mask = job
        size, fit = recipe.size, recipe.fit
        picture = decode_image(Path(image), size=size, channels=recipe.channels, fit=fit)
        if not recipe.masks:
            return picture
        try:
            marked = decode_mask(None if mask is None else Path(mask), size=size, fit=fit, aspect=picture.aspect)
        except Unreadable as reason:  # an unread mask is no empty mask
            return Unreadable(f"mask: {reason}")
        return picture._replace(mask=marked)
    except Unreadable as reason:
        return reason


def watched(job: Job, recipe: Recipe) -> tuple[Picture | Unreadable, Seen]:
    """As `decode`, and what the files were like. The content is hashed after the pixels were decoded, and the stamps
    frame both.
    """
    seen = Seen(np.zeros((2, 3), np.int64), np.zeros((2, CONTENT_BYTES), np.uint8))
    files = [name for name in job if name is not None]
    before = [stamp(name) for name in files]
    result = decode(job, recipe)
    for part, (name, was) in enumerate(zip(files, before, strict=True)):
        seen.stamps[part] = settled(was)
        hashed = content(name)
        if stamp(name) == was:  # else it was written to while it was read, and is read again next time
            seen.contents[part] = np.frombuffer(hashed, np.uint8)
    return result, seen


def decoded(jobs: Sequence[Job], recipe: Recipe, *, watch: bool) -> list[Outcome]:
    """What came of each job, and with `watch` what its files were like. Call it inside `pillow_ready`."""
    return [watched(job, recipe) if watch else (decode(job, recipe), None) for job in jobs]


def decode_image(path: Path, *, size: int, channels: Literal[1, 3], fit: Fit) -> Picture:
    """uint8 or uint16 [C,S,S]; see `read.read_image`. Call it inside `pillow_ready`. Raises Unreadable."""
    with _opened(path) as file:
        width, height = file.size
        file.draft("L" if channels == 1 else None, _draft_size(file.size, size, fit))
        image, swapped = _upright(file)
        small = _fitted(_grey16(image) if _is_16_bit(image) else _grey8_or_rgb(image, channels), size, fit)
        pixels = np.asarray(small)
        if small.mode == "F":
            pixels = np.rint(pixels).clip(0, 65535).astype(np.uint16)
        if pixels.ndim == 3:
            pixels = np.moveaxis(pixels, -1, 0)
        else:
            pixels = pixels[None] if channels == 1 else np.broadcast_to(pixels, (channels, size, size))
        return Picture(pixels, height, width) if swapped else Picture(pixels, width, height)


def decode_mask(path: Path | None, *, size: int, fit: Fit, aspect: float) -> np.ndarray:
    """uint8 [S,S] in {0, 1}: 1 where at least half of the pixel is marked. Call it inside `pillow_ready`.

    path: None stands for an image on which nothing is marked (all zero).
    aspect: width / height of the image the mask belongs to; nan when it need not be compared.
    Marked is what is brighter than half of white or, in a file of label numbers (nothing above half of white), not 0:
    half, because resized and JPEG-compressed masks have faint ringing around the edge. A mask too small to cover half
    of any pixel keeps the pixels it covers most. Raises Unreadable, also for a mask of another shape than its image.
    """
    if path is None:
        return np.zeros((size, size), np.uint8)
    with _opened(path) as file:
        image, _ = _upright(file)
        own_aspect = image.width / image.height
        if abs(own_aspect / aspect - 1) > MASK_SHAPE_TOLERANCE:  # never true for nan
            raise Unreadable(f"the mask is {image.width} x {image.height}, another shape than its image")
        marked = Image.fromarray(_marked(image).astype(np.float32))
        covered = np.asarray(_fitted(marked, size, fit))  # share of each new pixel that is marked
        threshold = min(0.5, covered.max()) if covered.any() else 1.0
        return (covered >= threshold).astype(np.uint8)


@contextmanager
def pillow_ready() -> Iterator[None]:
    """Plug-ins loaded and warnings off before threads start: neither is safe to do inside one."""
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is either readable or raised
        yield


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The first frame, not yet decoded. Whatever fails, here or in the body, becomes `Unreadable`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not a file")  # a pipe would wait for ever
        if status.st_size == 0:
            raise Unreadable("the file is empty (0 bytes)")
        # An open file and not a path: from a path Pillow 13 maps plain TIFFs into memory, and garbles the turned ones.
        with _bounded(path, status.st_size) as file, _picture(file, path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(f"{image.width} x {image.height} is more than {MAX_PIXELS // 10**6} million pixels")
            yield image
    except Unreadable:
        raise
    except NotADicomImage as lacking:
        raise Unreadable(str(lacking)) from None
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except PermissionError:
        raise Unreadable("no permission to read it") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise Unreadable("not an image of a known format") from None
    except Exception as error:  # a decoder that is fed broken bytes raises nearly anything
        told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        text = told.partition("\n")[0].strip(" .:")
        reason = "the file is cut short" if "truncated" in text.lower() else f"broken image data ({text})"
        raise Unreadable(reason) from None


def _picture(file: BinaryIO, path: Path) -> Image.Image:
    """The picture in an opened file, of a DICOM file its frame in the middle."""
    if is_dicom(file, path.suffix):
        return dicom_image(file, most_pixels=MAX_PIXELS)
    return Image.open(file, formats=FORMATS)


def _bounded(path: Path, n_bytes: int) -> BinaryIO:
    """The opened file, which is never asked for more than it has: Python sets aside what a broken length asks for."""
    if n_bytes <= IN_MEMORY_BYTES:
        return io.BytesIO(path.read_bytes())
    return _BoundedReader(io.FileIO(path))


class _BoundedReader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > IN_MEMORY_BYTES:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The decoded image as its EXIF orientation wants it shown, and whether that swapped width and height."""
    image.load()
    try:
        turn = int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF says nothing about the pixels
        turn = 1
    return (image.transpose(UPRIGHT[turn]), turn >= 5) if turn in UPRIGHT else (image, False)


def _draft_size(original: tuple[int, int], size: int, fit: Fit) -> tuple[int, int]:
    """(width, height) below which a JPEG may not be decoded, so that the filter still has work to do."""
    if fit != "pad":
        return round(DRAFT_RATIO * size), round(DRAFT_RATIO * size)
    scale = DRAFT_RATIO * size / max(original)
    return max(1, round(original[0] * scale)), max(1, round(original[1] * scale))


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _grey16(image: Image.Image) -> Image.Image:
    """Modes I and I;16 as float32, which holds 16 bits exactly and which Pillow can resize."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise Unreadable(f"intensities from {values.min()} to {values.max()}; 16-bit images hold 0 to 65535")
    return Image.fromarray(values.astype(np.float32))


def _grey8_or_rgb(image: Image.Image, channels: Literal[1, 3]) -> Image.Image:
    """Mode L, or RGB when `channels` is 3 and the file is not plain grey. Transparent pixels are shown over black."""
    if image.mode == "F":
        raise Unreadable("float intensities without a known range; save as 8 or 16 bits")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.new("RGB", image.size)
        image.paste(shown, mask=shown.getchannel("A"))
    mode = "L" if channels == 1 or image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _marked(mask: Image.Image) -> np.ndarray:
    """bool [H,W]: brighter than half of white; or, in a file of label numbers (nothing above half), not 0."""
    sixteen = _is_16_bit(mask)
    values = np.asarray(_grey16(mask) if sixteen else _grey8_or_rgb(mask, 3))
    values = values if values.ndim == 2 else values.max(axis=2)
    half = 32767 if sixteen else 127
    return values > (half if values.max() > half else 0)


def on_original(
    place: tuple[float, float, float, float], *, size: int, fit: Fit, width: int, height: int
) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) of the fitted picture, size x size, in pixels of its original of width x height;
    ends excluded, rounded outwards, inside the original.
    """
    scale, shift = _way_back(size, fit, width, height)
    left, top, right, bottom = (place[i] * scale[i % 2] + shift[i % 2] for i in range(4))
    slack = 1e-6  # of rounding, that should not cost a pixel
    low = max(0, math.floor(left + slack)), max(0, math.floor(top + slack))
    return (*low, min(width, math.ceil(right - slack)), min(height, math.ceil(bottom - slack)))


def on_fitted(
    place: tuple[float, float, float, float], *, size: int, fit: Fit, width: int, height: int
) -> tuple[float, float, float, float]:
    """The inverse of `on_original`, not rounded: a box of the original in pixels of the fitted picture, in parts or
    wholly outside where it was cut off.
    """
    scale, shift = _way_back(size, fit, width, height)
    left, top, right, bottom = ((place[i] - shift[i % 2]) / scale[i % 2] for i in range(4))
    return left, top, right, bottom


def _way_back(size: int, fit: Fit, width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """(scale, shift) in x and y that take a fitted picture's pixels to those of its original."""
    if fit == "stretch":
        return (width / size, height / size), (0.0, 0.0)
    side = max(width, height) if fit == "pad" else min(width, height)
    return (side / size, side / size), ((width - side) / 2, (height - side) / 2)


def _fitted(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Size x size. Crops before it resizes, so that an image of 1 x 1,000,000 never grows to 64 x 64,000,000."""
    width, height = image.size
    if fit == "pad":
        scale = size / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = Image.new(image.mode, (size, size))
        small = image.resize(inner, Image.Resampling.BILINEAR, reducing_gap=2.0)
        canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return canvas
    side = min(width, height)
    centre = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    box = centre if fit == "crop" else None
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
