"""The source "dicom": patients, attributes and labels from headers and tables, and nobody's name in what comes out."""

from __future__ import annotations

import sys

import pydicom
import pytest

from dicoms import RAMP, dicom_file
from trueread import load_cohort
from trueread.errors import InputError

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
N = 8


@pytest.fixture
def folder(tmp_path):
    """Two classes of four files, two of each patient, in folders of their own."""
    for i in range(N):
        place = tmp_path / "scans" / ("normal" if i % 2 else "ill") / f"study{i // 2}"
        place.mkdir(parents=True, exist_ok=True)
        dicom_file(
            place / f"{i}.dcm", RAMP[:, ::-1] if i % 2 else RAMP, PatientID=f"MRN{i // 2}", PatientAge="045Y",
            StudyInstanceUID=f"1.2.{i // 2}", PatientSex="F" if i < 4 else "", Manufacturer="ACME",
            SOPInstanceUID=f"1.2.3.{i}", PatientName="Doe^Jane", AccessionNumber=f"A{i}",
        )  # fmt: skip
    return tmp_path / "scans"


class TestHeaders:
    def test_patients_and_attributes_are_the_headers(self, folder):
        cohort = load_cohort(f"dicom:{folder}", identifiers=True, size=16)
        table = cohort.table
        assert len(cohort) == N
        assert cohort.white == 65535
        assert cohort.classes == ("ill", "normal")
        assert set(table["patient"]) == {f"MRN{k}" for k in range(4)}
        assert set(table["id"]) == {f"1.2.3.{i}" for i in range(N)}
        assert (table["age"] == 45).all()
        assert table["sex"].isna().sum() == 4
        assert set(table["manufacturer"]) == {"ACME"}
        assert "view" not in table
        assert cohort.patients_known

    def test_nobody_is_named_by_default(self, folder):
        cohort = load_cohort(f"dicom:{folder}", size=16)
        text = cohort.table.to_csv()
        assert not any(name in text for name in ("MRN", "Doe", "1.2.3"))
        assert cohort.table["patient"].nunique() == 4
        assert cohort.table["id"].nunique() == N
        again = load_cohort(f"dicom:{folder}", size=16)
        assert again.table["id"].tolist() == cohort.table["id"].tolist()
        salted = load_cohort(f"dicom:{folder}", size=16, salt="ours")
        assert not set(salted.table["patient"]) & set(cohort.table["patient"])
        assert "ours" not in str(salted.origin)

    def test_without_a_patient_the_study_is(self, folder):
        for path in folder.rglob("*.dcm"):
            one = pydicom.dcmread(path)
            one.PatientID = ""
            one.save_as(path)
        cohort = load_cohort(f"dicom:{folder}", identifiers=True, size=16)
        assert set(cohort.table["patient"]) == {f"1.2.{k}" for k in range(4)}


class TestLabels:
    def test_from_a_table(self, folder, tmp_path):
        rows = [f"A{i},{'c' if i % 3 else 'd'}" for i in range(N - 1)]
        (tmp_path / "t.csv").write_text("AccessionNumber,finding\n" + "\n".join(rows))
        cohort = load_cohort(
            f"dicom:{folder}", labels=str(tmp_path / "t.csv"), key="AccessionNumber", label="finding", size=16,
            identifiers=True,
        )  # fmt: skip
        assert len(cohort) == N - 1  # the one that is not named is left out
        found = dict(zip(cohort.table["id"], cohort.labels, strict=True))
        assert found == {f"1.2.3.{i}": int(i % 3 == 0) for i in range(N - 1)}

    def test_slips_are_one_sentence(self, folder, tmp_path):
        table = tmp_path / "t.csv"
        table.write_text("SOPInstanceUID,label\n1.2.3.0,a\n1.2.3.0,b\n")
        with pytest.raises(InputError, match="the SOPInstanceUID of row 3 is in an earlier row too"):
            load_cohort(f"dicom:{folder}", labels=str(table), size=16)
        table.write_text("SOPInstanceUID,label\n9,a\n")
        with pytest.raises(InputError, match=r"no row of .* has a SOPInstanceUID of the scans headers"):
            load_cohort(f"dicom:{folder}", labels=str(table), size=16)
        with pytest.raises(InputError, match="has no column 'PatientID' for the key"):
            load_cohort(f"dicom:{folder}", labels=str(table), key="PatientID", size=16)


class TestFolder:
    def test_what_is_no_image_is_passed_over_and_what_is_broken_is_listed(self, folder):
        (folder / "ill" / "notes.txt").write_text("hello")
        whole = (folder / "ill" / "study0" / "0.dcm").read_bytes()
        broken = folder / "ill" / "study0" / "broken.dcm"
        broken.write_bytes(whole.replace(b"1.2.3.0", b"1.2.3.9")[: len(whole) - 300])
        cohort = load_cohort(f"dicom:{folder}", size=16)
        assert len(cohort) == N
        [name] = cohort.omitted["path"]  # it may be a patient's
        assert "broken" not in name
        cohort = load_cohort(f"dicom:{folder}", size=16, identifiers=True)
        assert cohort.omitted["path"].tolist() == ["ill/study0/broken.dcm"]

    def test_slips_are_one_sentence(self, folder, tmp_path, monkeypatch):
        with pytest.raises(InputError, match="is not a folder"):
            load_cohort(f"dicom:{tmp_path / 'nowhere'}")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="there is no DICOM image in"):
            load_cohort(f"dicom:{tmp_path / 'empty'}")
        copy = folder / "ill" / "copy.dcm"
        copy.write_bytes((folder / "ill" / "study0" / "0.dcm").read_bytes())
        with pytest.raises(InputError, match=r"ill/copy.dcm and ill/study0/0.dcm are one instance"):
            load_cohort(f"dicom:{folder}", size=16)
        copy.unlink()
        dicom_file(folder / "beside.dcm", RAMP)
        with pytest.raises(InputError, match=r"'beside.dcm' lies in scans itself and so has no class"):
            load_cohort(f"dicom:{folder}", size=16)
        monkeypatch.setitem(sys.modules, "pydicom", None)
        with pytest.raises(InputError, match=r"pip install trueread\[dicom\]"):
            load_cohort(f"dicom:{folder}")

    def test_tables_name_such_files_too(self, folder):
        lines = [f"{path.relative_to(folder).as_posix()},{path.parts[-3]}" for path in folder.rglob("*.dcm")]
        (folder / "t.csv").write_text("image,label\n" + "\n".join(lines))
        theirs, ours = load_cohort(f"csv:{folder / 't.csv'}", size=16), load_cohort(f"dicom:{folder}", size=16)
        assert len(theirs) == N
        assert sorted(image.tobytes() for image in theirs.images) == sorted(i.tobytes() for i in ours.images)
