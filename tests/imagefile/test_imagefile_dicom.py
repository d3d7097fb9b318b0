"""DICOM files to pictures: windows by the standard's formulas, inversion, frames, colour, compression, broken bytes."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from dicoms import RAMP, dicom_file
from trueread.cohort.read import read_image
from trueread.errors import InputError
from trueread.imagefile.dicom import NotADicomImage, is_dicom, shown_intensities, windowed


def read(path, *, size=16, channels=1, fit="stretch"):
    return read_image(path, size=size, channels=channels, fit=fit)


class TestWindow:
    def test_linear_is_the_standards_formula(self):
        values = np.array([-1000.0, 0, 40, 41, 100, 1000])
        centre, width = 40.0, 400.0
        expected = []
        for x in values:
            if x <= centre - 0.5 - (width - 1) / 2:
                expected.append(0.0)
            elif x > centre - 0.5 + (width - 1) / 2:
                expected.append(1.0)
            else:
                expected.append((x - (centre - 0.5)) / (width - 1) + 0.5)
        assert windowed(values, centre, width, function="LINEAR") == pytest.approx(expected)

    def test_pydicom_windows_the_same(self):
        head = Dataset()
        head.WindowCenter, head.WindowWidth, head.BitsStored = 2000, 1500, 12
        head.PhotometricInterpretation, head.PixelRepresentation = "MONOCHROME2", 0
        theirs = pydicom.pixels.apply_windowing(RAMP, head) / 4095
        assert windowed(RAMP.astype(float), 2000, 1500, function="LINEAR") == pytest.approx(theirs, abs=1e-9)
        head.VOILUTFunction = "SIGMOID"
        theirs = pydicom.pixels.apply_windowing(RAMP, head) / 4095
        assert windowed(RAMP.astype(float), 2000, 1500, function="SIGMOID") == pytest.approx(theirs, abs=1e-9)

    def test_the_other_functions_and_what_they_refuse(self):
        assert windowed(np.array([0.0, 5, 10]), 5, 10, function="LINEAR_EXACT").tolist() == [0, 0.5, 1]
        assert windowed(np.array([4.4, 4.6]), 5, 1, function="LINEAR").tolist() == [0, 1]
        for width, function in ((0.5, "LINEAR"), (0, "SIGMOID"), (float("nan"), "LINEAR"), (10, "CUBIC")):
            with pytest.raises(NotADicomImage, match="window"):
                windowed(np.zeros(2), 0, width, function=function)


def deflated(path, whole: bytes, *, uid="1.2.840.10008.1.2.1.99"):
    """A file whose dataset is one compressed stream of the bytes `whole`."""
    element = b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid.encode()
    meta = b"\x02\x00\x00\x00UL\x04\x00" + len(element).to_bytes(4, "little") + element
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(bytes(128) + b"DICM" + meta + packer.compress(whole) + packer.flush())
    return path


class TestDeflated:
    def test_what_is_small_is_read(self, tmp_path):
        plain = dicom_file(tmp_path / "a.dcm", RAMP)
        meta = int.from_bytes(plain.read_bytes()[140:144], "little")
        path = deflated(tmp_path / "b.dcm", plain.read_bytes()[144 + meta :])
        assert (read(path) == read(plain)).all()

    def test_what_would_be_large_is_refused_before_it_is(self, tmp_path):
        path = deflated(tmp_path / "a.dcm", bytes(2**28 + 2**20))
        assert path.stat().st_size < 2**20
        with pytest.raises(InputError, match="a deflated DICOM file of more than 256 MB"):
            read(path)

    def test_a_head_that_lies_and_a_broken_stream_are_refused(self, tmp_path):
        path = deflated(tmp_path / "a.dcm", bytes(100))
        raw = path.read_bytes()
        path.write_bytes(raw[:140] + (2).to_bytes(4, "little") + raw[144:])
        with pytest.raises(InputError, match="with a broken head"):
            read(path)
        first = 144 + int.from_bytes(raw[140:144], "little")
        path.write_bytes(raw[:first] + b"\xff" * 20)
        with pytest.raises(InputError, match="broken"):
            read(path)


class TestEnhanced:
    def test_rescaling_and_window_of_the_frame_are_taken(self, tmp_path):
        def group(slope, centre, width):
            made, rescale, window = Dataset(), Dataset(), Dataset()
            rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = slope, 0, "US"
            window.WindowCenter, window.WindowWidth = centre, width
            made.PixelValueTransformationSequence, made.FrameVOILUTSequence = [rescale], [window]
            return made

        frames = np.stack([RAMP, RAMP, RAMP])
        path = dicom_file(
            tmp_path / "a.dcm", frames,
            PerFrameFunctionalGroupsSequence=[group(1, 10, 20), group(2, 4000, 2000), group(1, 10, 20)],
        )  # fmt: skip
        expected = windowed(2.0 * RAMP, 4000, 2000, function="LINEAR")
        assert read(path)[0] == pytest.approx(np.rint(expected * 65535), abs=1)


class TestPicture:
    def test_without_a_window_the_values_are_spread(self, tmp_path):
        found = read(dicom_file(tmp_path / "a.dcm", RAMP + 100))
        assert found.dtype == np.uint16
        assert found[0] == pytest.approx(np.rint(RAMP / 4080 * 65535), abs=1)
        flat = dicom_file(tmp_path / "b.dcm", np.full((16, 16), 7, np.uint16))
        assert not read(flat).any()

    def test_the_modality_comes_before_the_window(self, tmp_path):
        path = dicom_file(
            tmp_path / "ct.dcm", RAMP, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 600],
            WindowWidth=[400, 1500],
        )  # fmt: skip
        hu = RAMP.astype(float) - 1024
        assert read(path)[0] == pytest.approx(np.rint(65535 * windowed(hu, 40, 400, function="LINEAR")), abs=1)

    def test_bright_is_what_the_reader_sees_bright(self, tmp_path):
        plain, inverted, lut = (
            read(dicom_file(tmp_path / f"{k}.dcm", RAMP, **tags)).astype(int)
            for k, tags in enumerate((
                {}, {"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}
            ))
        )  # fmt: skip
        assert (plain + inverted == 65535).all()
        assert (inverted == lut).all()

    def test_a_voi_lut_is_preferred(self):
        head = Dataset()
        item = Dataset()
        item.LUTDescriptor, item.LUTData = [4, 0, 8], [0, 10, 200, 255]
        head.VOILUTSequence, head.BitsStored, head.PixelRepresentation = [item], 16, 0
        head.WindowCenter, head.WindowWidth, head.PhotometricInterpretation = 2, 2, "MONOCHROME2"
        item["LUTDescriptor"].VR = "US"
        item["LUTData"].VR = "US"
        found = shown_intensities(np.array([[0, 1], [2, 3]]), head)
        assert found == pytest.approx(np.array([[0, 10], [200, 255]]) / 255)

    def test_the_frame_in_the_middle(self, tmp_path):
        frames = np.stack([np.full((16, 16), k, np.uint16) for k in range(5)])
        frames[:, 0, 0] = 4
        frames[:, 0, 1] = 0
        found = read(dicom_file(tmp_path / "m.dcm", frames))
        assert found[0, 8, 8] == round(65535 * 2 / 4)

    def test_colour_stays_colour(self, tmp_path):
        colour = np.zeros((16, 16, 3), np.uint8)
        colour[..., 0], colour[..., 2] = 200, 50
        found = read(dicom_file(tmp_path / "c.dcm", colour), channels=3)
        assert found.dtype == np.uint8
        assert found[:, 3, 3].tolist() == [200, 0, 50]

    def test_compressed_is_what_it_was(self, tmp_path):
        path = dicom_file(tmp_path / "r.dcm", RAMP)
        plain = read(path)
        packed = pydicom.dcmread(path)
        packed.compress(RLELossless)
        packed.save_as(tmp_path / "rle.dcm")
        assert (read(tmp_path / "rle.dcm") == plain).all()

    def test_one_scan_in_five_syntaxes_is_one_picture(self):
        kinds = ("", "_RLE", "_jp2klossless", "_bigendian", "_jpeg_ls_lossless")
        pictures = [read(get_testdata_file(f"MR_small{kind}.dcm"), size=64) for kind in kinds]
        assert pictures[0].std() > 100
        assert all((p == pictures[0]).all() for p in pictures[1:])

    def test_a_lossy_one_of_somebody_else(self):
        assert read(get_testdata_file("JPEG2000.dcm"), size=64).std() > 100


class TestTold:
    def test_a_file_is_told_by_its_mark_or_its_ending(self, tmp_path):
        path = dicom_file(tmp_path / "noending", RAMP)
        with path.open("rb") as file:
            assert is_dicom(file, "")
            assert file.tell() == 0
        assert not is_dicom(io.BytesIO(b"\x89PNG"), ".png")
        assert read(path).any()

    @pytest.mark.parametrize("cut", [100, 200, 600])
    def test_a_file_that_is_cut_short_is_one_sentence(self, tmp_path, cut):
        path = dicom_file(tmp_path / "a.dcm", RAMP)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError, match="cannot be read"):
            read(path)

    def test_what_has_no_image_or_too_large_a_one(self, tmp_path):
        for name in ("rtplan.dcm", "test-SR.dcm"):
            with pytest.raises(InputError, match="a DICOM file without an image"):
                read(get_testdata_file(name))
        huge = dicom_file(tmp_path / "h.dcm", RAMP, Rows=20_000, Columns=20_000)
        with pytest.raises(InputError, match="more than 100 million pixels"):
            read(huge)

    def test_without_pydicom_it_says_what_to_install(self, tmp_path, monkeypatch):
        path = dicom_file(tmp_path / "a.dcm", RAMP)
        monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
        with pytest.raises(InputError, match=r"pip install trueread\[dicom\]"):
            read(path)
