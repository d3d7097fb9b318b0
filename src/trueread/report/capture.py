"""A picture as a DICOM file that a viewer files beside the study it came from.

Source: DICOM PS3.3 A.8.1 (secondary capture image), C.7.1.1 and C.7.2.1 (patient and study), C.8.6 (SC equipment).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trueread._version import __version__
from trueread.errors import InputError
from trueread.files import whole
from trueread.imagefile.dicom import MISSING, NotADicomImage, is_dicom, refuse_bomb

if TYPE_CHECKING:
    from pydicom import Dataset

SIDE = 512  # pixels of the longer side
OF_THE_STUDY = (  # what files it with its patient
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "SeriesNumber",
)  # fmt: skip


class Captures:
    """Secondary captures of many images in one folder, one series for each study."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError without pydicom."""
        try:
            import pydicom  # noqa: F401
        except ImportError:
            raise InputError(f"{MISSING}.") from None
        self.folder = folder
        self.series: dict[str, str] = {}

    def write(self, picture: Image.Image, name: str, *, source: Path, said: str) -> Path:
        """A picture RGB as `name`.dcm; patient and study are those of the source, when that is a DICOM file, or empty.
        said: what it shows, in one line, as the image's comment.
        """
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

        head = _head(source)
        made = Dataset()
        for tag in MAY_BE_EMPTY:
            setattr(made, tag, None)
        for tag in OF_THE_STUDY:
            if head.get(tag):
                setattr(made, tag, str(head.get(tag)))
        if not made.get("StudyInstanceUID"):
            made.StudyInstanceUID = generate_uid()
        made.SeriesInstanceUID = self.series.setdefault(str(made.StudyInstanceUID), generate_uid())
        made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
        if head.get("SOPInstanceUID"):
            original = Dataset()
            original.ReferencedSOPClassUID = head.get("SOPClassUID")
            original.ReferencedSOPInstanceUID = head.SOPInstanceUID
            made.SourceImageSequence = [original]
        made.Modality, made.ConversionType = "OT", "WSD"
        if head.get("BurnedInAnnotation"):  # its pixels are in the picture; unknown where it does not say
            made.BurnedInAnnotation = str(head.BurnedInAnnotation)
        made.ImageType = ["DERIVED", "SECONDARY"]
        made.Manufacturer = made.SecondaryCaptureDeviceManufacturer = "trueread"
        made.SoftwareVersions = __version__
        made.SeriesDescription = "trueread: evidence"
        made.ImageComments = said
        made.InstanceNumber = None
        made.PatientOrientation = head.get("PatientOrientation")
        made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8
        pixels = np.asarray(picture.convert("RGB"))
        made.Rows, made.Columns = pixels.shape[:2]
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit, made.PixelRepresentation = 7, 0
        made.PixelData = pixels.tobytes()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        path = self.folder / f"{name}.dcm"
        with whole(path) as part:
            made.save_as(part, enforce_file_format=True)
        return path


def _head(source: Path) -> Dataset:
    """What the source's header says of its patient and study; nothing when it is no DICOM file."""
    from pydicom import Dataset, dcmread

    with source.open("rb") as file:
        if not is_dicom(file, source.suffix):
            return Dataset()
        try:
            refuse_bomb(file)
        except NotADicomImage:  # decoding said why
            return Dataset()
    wanted = [
        *OF_THE_STUDY,
        "SOPClassUID",
        "SOPInstanceUID",
        "SpecificCharacterSet",
        "PatientOrientation",
        "BurnedInAnnotation",
    ]
    return dcmread(source, force=True, stop_before_pixels=True, specific_tags=wanted)
