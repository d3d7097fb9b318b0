"""DICOM files as pictures: decompressed, modality and VOI applied, bright where the reader sees bright, 16 bits.

Source: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT and the three window functions), C.7.6.3.1.2 (photometric
interpretation). Pixels are decompressed by pydicom, with GDCM for what it cannot (JPEG lossless, JPEG 2000).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_ENDINGS = (".dcm", ".dicom", ".dic")
PREAMBLE, MAGIC = 128, b"DICM"
DEFLATED = (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.95")  # the whole dataset is one compressed stream
HEAD, MOST_INFLATED, PIECE = 2**16, 2**28, 2**20  # bytes
MISSING = "DICOM files are read by pydicom; install it: pip install trueread[dicom]"


class NotADicomImage(Exception):
    """The text is the reason in a few words."""


def is_dicom(file: BinaryIO, ending: str) -> bool:
    """Whether an opened file has DICOM's mark, or, without one, its ending. The file is left at its start."""
    marked = file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    file.seek(0)
    return marked or ending.lower() in DICOM_ENDINGS


def dicom_image(file: BinaryIO, *, most_pixels: int) -> Image.Image:
    """The frame in the middle of an opened file as a picture: mode "I;16" of intensities 0 to 65535 over the file's
    own window, or "RGB". most_pixels: that a frame may have. Raises NotADicomImage, and whatever pydicom raises for
    broken bytes.
    """
    dataset = _dataset(file)
    if "PixelData" not in dataset or not (dataset.get("Rows") and dataset.get("Columns")):
        raise NotADicomImage("a DICOM file without an image")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > most_pixels:
        raise NotADicomImage(f"{columns} x {rows} is more than {most_pixels // 10**6} million pixels")
    index = int(dataset.get("NumberOfFrames") or 1) // 2
    pixels = _frame(dataset, index)
    _apply_groups(dataset, index)
    if pixels.ndim == 3:
        return Image.fromarray(_eight_bits(pixels, dataset))
    shown = shown_intensities(pixels, dataset)
    return Image.fromarray(np.rint(shown * 65535).astype(np.uint16))


def shown_intensities(stored: NDArray, dataset: Dataset) -> NDArray[np.float64]:
    """float64 [H,W] in [0,1] as a viewer shows a grey frame with the file's first window; 1 is bright.

    stored: [H,W], as it lies in the file. Without a window or a VOI LUT the values that occur are spread from 0 to 1,
    and a frame of a single value is 0.
    """
    from pydicom.pixels import apply_modality_lut

    values = np.asarray(apply_modality_lut(stored, dataset), np.float64)
    if dataset.get("VOILUTSequence"):
        shown = _by_table(values, dataset)
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        shown = windowed(
            values, float(_first(dataset.WindowCenter)), float(_first(dataset.WindowWidth)),
            function=str(dataset.get("VOILUTFunction") or "LINEAR"),
        )  # fmt: skip
    else:
        low, high = float(values.min()), float(values.max())
        shown = (values - low) / (high - low) if high > low else np.zeros_like(values)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1" or (
        dataset.get("PresentationLUTShape") == "INVERSE"
    )
    return 1 - shown if inverted else shown


def windowed(values: NDArray[np.float64], centre: float, width: float, *, function: str) -> NDArray[np.float64]:
    """Values through a window into [0,1]; function: "LINEAR", "LINEAR_EXACT" or "SIGMOID" (PS3.3 C.11.2.1.2 and .3).

    Raises NotADicomImage for a width that the function does not know.
    """
    least = 1.0 if function == "LINEAR" else 0.0
    if not width >= least or (function != "LINEAR" and width == 0):
        raise NotADicomImage(f"a window of width {width:g}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return ((values - centre) / width + 0.5).clip(0, 1)
    if function != "LINEAR":
        raise NotADicomImage(f"the window function '{function}'")
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _dataset(file: BinaryIO) -> Dataset:
    try:
        from pydicom import dcmread
    except ImportError:
        raise NotADicomImage(MISSING) from None
    refuse_bomb(file)
    return dcmread(file, force=True)


def refuse_bomb(file: BinaryIO) -> None:
    """Raise NotADicomImage where an opened file's dataset is deflated and would be very large, because pydicom inflates
    it whole before anything is known of it. The file is left at its start.
    """
    file.seek(PREAMBLE + len(MAGIC))
    head = file.read(HEAD)
    if any(uid in head for uid in DEFLATED):
        # the first element of the file meta group says how long the rest of it is
        meta = 12 + int.from_bytes(head[8:12], "little") if head[:4] == b"\x02\x00\x00\x00" else 0
        if not any(uid in head[:meta] for uid in DEFLATED):
            raise NotADicomImage("a deflated DICOM file with a broken head")
        file.seek(PREAMBLE + len(MAGIC) + meta)
        _inflate(file)
    file.seek(0)


def _inflate(file: BinaryIO) -> None:
    """Inflate what follows, a piece at a time, and keep none of it."""
    stream, size, given = zlib.decompressobj(-zlib.MAX_WBITS), 0, file.read(PIECE)
    while given and not stream.eof:
        try:
            size += len(stream.decompress(given, PIECE))
        except zlib.error as error:
            raise NotADicomImage("a deflated DICOM file that is broken") from error
        if size > MOST_INFLATED:
            raise NotADicomImage(f"a deflated DICOM file of more than {MOST_INFLATED >> 20} MB")
        given = stream.unconsumed_tail or file.read(PIECE)


def _apply_groups(dataset: Dataset, index: int) -> None:
    """Of an enhanced file, which says so for each frame, bring the rescaling and the window of one to the top."""
    shared, own = dataset.get("SharedFunctionalGroupsSequence"), dataset.get("PerFrameFunctionalGroupsSequence")
    groups = [*(shared or [])[:1], *(own or [])[index : index + 1]]
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or [])[:1]:
                dataset.update({element.tag: element for element in item})


def _frame(dataset: Dataset, index: int) -> NDArray:
    """[H,W], or uint [H,W,3] of colour."""
    from pydicom.pixels import apply_color_lut, pixel_array

    pixels: NDArray[Any] = pixel_array(dataset, index=index)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return np.asarray(apply_color_lut(pixels, dataset))
    return pixels


def _eight_bits(colour: NDArray, dataset: Dataset) -> NDArray[np.uint8]:
    """uint8 [H,W,3] of colour of 8 or 16 bits."""
    if colour.dtype == np.uint8:
        return colour[..., :3]
    bits = 16 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else int(dataset.BitsStored)
    return np.rint(colour[..., :3].astype(np.float64) * 255 / (2**bits - 1)).clip(0, 255).astype(np.uint8)


def _by_table(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    """Through the first VOI LUT, over its own range."""
    from pydicom.pixels import apply_voi

    item = dataset.VOILUTSequence[0]
    bits = int(item.LUTDescriptor[2])
    whole = np.rint(values).astype(np.int64)
    return np.asarray(apply_voi(whole, dataset, index=0), np.float64) / (2**bits - 1)


def _first(value: Any) -> Any:
    """Of several windows the first."""
    return value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value
