"""Real images, from the file to the report: each of the real studies on a small part of its data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from trueread import commands
from trueread.cells import cell_folder
from trueread.cohort.cohort import Cohort
from trueread.cohort.source import load_cohort
from trueread.cohort.split import assign_splits
from trueread.study import load_study

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.usefixtures("quiet_and_on_one_thread")]

STUDIES = Path(__file__).resolve().parents[1] / "studies" / "real"
QUICK = {"epochs": 1, "precision": "fp32", "threads": 1, "device": "cpu"}
CUT = "half copied"  # in the name of the planted broken file


def options_of(name: str) -> dict:
    """The options that the study of this name gives its source."""
    return load_study(STUDIES / f"{name}.yaml").data.options


def run_study(
    name: str, out: Path, *, source: str | None = None, batch_size: int = 32, audits: object = "all",
    check: bool = True, **data: object,
) -> Path:  # fmt: skip
    """The study of this name with one epoch and one seed, on another source and with other options of it."""
    study = load_study(STUDIES / f"{name}.yaml").model_dump(mode="json", exclude_unset=True)
    study["data"] = {**study["data"], **({"source": source} if source else {}), **data}
    study |= {
        "train": {**study["train"], **QUICK, "batch_size": batch_size},
        "seeds": 1,
        "resamples": 100,
        "audits": audits,
        "check": check,
    }
    return commands.run(study, out=out)


def cut_short(path: Path) -> None:
    """A JPEG whose copying was interrupted, beside a whole one."""
    (path.parent / f"{path.stem} {CUT}{path.suffix}").write_bytes(path.read_bytes()[:900])


def check_folder(folder: Path, *, n_images: int, n_omitted: int = 0, patients_known: bool = True) -> dict:
    """A complete and honest run folder: every file, nobody on both sides, and the numbers those of the predictions."""
    for name in ("study.yaml", "split.csv", "history.csv", "findings.json", "metrics.csv", "report.html",
                 "environment.json", "summary.json", "model_card-erm.md"):  # fmt: skip
        assert (folder / name).stat().st_size > 50, name
    assert (folder / "report.html").stat().st_size < 5_000_000
    assert list((folder / "figures").rglob("*.png"))
    summary = json.loads((folder / "summary.json").read_text())
    facts = summary["cohort"]
    assert (facts["images"], facts["n_omitted"], facts["patients_known"]) == (n_images, n_omitted, patients_known)
    split = pd.read_csv(folder / "split.csv", dtype=str)
    assert split.groupby("patient")["split"].nunique().max() == 1
    for name in ("train", "val", "test"):
        assert min(facts["split"][name]["classes"].values()) > 0, "every class is in every split"
    predicted = pd.read_csv(cell_folder(folder, "erm", 0) / "predictions.csv", dtype={"label": str})
    predicted = predicted[predicted["split"] == "test"]
    columns = [predicted[f"p:{c}"] for c in facts["classes"]]
    if len(columns) == 2:
        auroc = sk.roc_auc_score(predicted["label"] == facts["classes"][1], columns[1])
    else:
        auroc = np.mean([sk.roc_auc_score(predicted["label"] == c, p)
                         for c, p in zip(facts["classes"], columns, strict=True)])  # fmt: skip
    performance = next(f for f in summary["methods"][0]["findings"] if f["audit"] == "performance")
    assert performance["measures"]["auroc"]["estimate"]["value"] == pytest.approx(auroc, abs=1e-6)
    return summary


def assert_patients_whole(cohort: Cohort) -> None:
    split = assign_splits(cohort).table
    assert split.groupby("patient")["split"].nunique().max() == 1
    shares = split["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.15, abs=0.03)


class TestKermany:
    @pytest.fixture
    def part(self, real_data, tmp_path):
        """The first 60 normal and 100 pneumonia images, copied, and one that is broken."""
        for name, count in (("NORMAL", 60), ("PNEUMONIA", 100)):
            (tmp_path / "kermany" / name).mkdir(parents=True)
            for file in sorted((real_data / "kermany" / name).iterdir())[:count]:
                shutil.copyfile(file, tmp_path / "kermany" / name / file.name)
        cut_short(tmp_path / "kermany" / "PNEUMONIA" / file.name)
        return tmp_path / "kermany"

    def test_from_files_to_report(self, part, tmp_path):
        folder = run_study("kermany", tmp_path / "run", source=f"folder:{part}", size=28)
        summary = check_folder(folder, n_images=160, n_omitted=1)
        assert summary["cohort"]["classes"] == ["NORMAL", "PNEUMONIA"]
        assert summary["cohort"]["channels"] == 1
        assert CUT in pd.read_csv(folder / "omitted.csv")["path"][0]
        for page in ("report.html", "summary.json", "model_card-erm.md"):
            text = (folder / page).read_text()
            assert not re.search(r"person\d|IM-\d|half copied", text)
            assert str(tmp_path) not in text
        split = pd.read_csv(folder / "split.csv")
        people = split["id"].str.extract(r"(person\d+|IM-\d+)")[0]
        assert split.groupby(people)["split"].nunique().max() == 1

    def test_the_whole_of_it_can_be_read_and_split(self, real_data):
        cohort = load_cohort(f"folder:{real_data / 'kermany'}", **options_of("kermany") | {"size": 28})
        assert cohort.class_counts().tolist() == [1341, 3875]
        assert len(cohort.omitted) == 0
        assert cohort.channels == 1
        names = cohort.table["id"].str.extract(r"(person\d+)_")[0].dropna()
        assert cohort.table["patient"][names.index].tolist() == names.tolist()
        assert 1 < len(cohort) / cohort.n_patients < 5
        assert_patients_whole(cohort)
        spread = cohort.images.std(axis=(1, 2, 3))
        assert spread.min() > 5  # no image is blank


class TestHam10000:
    @pytest.fixture
    def part(self, real_data, tmp_path):
        """Of each of the seven diagnoses the first 12 lesions with all their images, copied with their masks."""
        rows = pd.read_csv(real_data / "ham10000" / "metadata.csv")
        lesions = rows.groupby("label")["lesion_id"].unique().map(lambda ids: set(ids[:12]))
        rows = rows[[lesion in lesions[label] for lesion, label in zip(rows["lesion_id"], rows["label"], strict=True)]]
        for name in pd.concat([rows["image"], rows["mask"].dropna()]):
            target = tmp_path / "ham" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(real_data / "ham10000" / name, target)
        broken = tmp_path / "ham" / rows["image"].iloc[5]
        broken.write_bytes(broken.read_bytes()[:900])
        rows.to_csv(tmp_path / "ham" / "metadata.csv", index=False)
        return tmp_path / "ham"

    def test_from_table_and_masks_to_report(self, part, tmp_path):
        rows = pd.read_csv(part / "metadata.csv")
        folder = run_study("ham10000", tmp_path / "run", source=f"csv:{part / 'metadata.csv'}", size=28, batch_size=16)
        summary = check_folder(folder, n_images=len(rows) - 1, n_omitted=1)
        assert len(summary["cohort"]["classes"]) == 7
        assert summary["cohort"]["channels"] == 3
        assert set(summary["cohort"]["attributes"]) >= {"age", "sex", "site"}
        assert summary["cohort"]["patients"] == rows["lesion_id"].nunique() - (
            (rows["lesion_id"] == rows["lesion_id"].iloc[5]).sum() == 1
        )
        split = pd.read_csv(folder / "split.csv").set_index("id")["split"]
        by_lesion = rows.set_index("image")["lesion_id"].loc[split.index]
        assert split.groupby(by_lesion.to_numpy()).nunique().max() == 1
        assert any(entry["outline"] for entry in summary["gallery"])
        assert "HAM_" not in (folder / "report.html").read_text()
        assert "ISIC_" not in (folder / "summary.json").read_text()

    def test_the_whole_of_it_can_be_read_and_split(self, real_data):
        path = real_data / "ham10000" / "metadata.csv"
        cohort = load_cohort(f"csv:{path}", **options_of("ham10000") | {"size": 28})
        rows = pd.read_csv(path)
        assert len(cohort) == len(rows) == 5671
        assert dict(zip(cohort.classes, cohort.class_counts(), strict=True)) == rows["label"].value_counts().to_dict()
        assert cohort.n_patients == rows["lesion_id"].nunique()
        assert len(cohort.omitted) == 0
        assert cohort.masks is not None
        marked = cohort.masks.any(axis=(1, 2))
        assert marked.tolist() == rows["mask"].notna().tolist()
        share = cohort.masks[marked].mean(axis=(1, 2))
        assert 0.05 < np.median(share) < 0.6  # a lesion fills a part of its image
        some = np.flatnonzero(marked & ~cohort.masks.all(axis=(1, 2)))[:300]
        pictures = zip(cohort.images[some].mean(axis=1), cohort.masks[some] > 0, strict=True)
        darker = [image[~mask].mean() - image[mask].mean() for image, mask in pictures]
        assert np.mean(np.array(darker) > 0) > 0.9  # the mask lies on the lesion, which is darker than the skin
        assert_patients_whole(cohort)


class TestMedmnist:
    @pytest.mark.parametrize(
        ("name", "counts", "task", "shape"),
        [
            ("breastmnist", (546, 78, 156), "binary", (1, 28, 28)),
            ("retinamnist", (1080, 120, 400), "ordinal", (3, 28, 28)),
            ("adrenalmnist3d", (1188, 98, 298), "binary", (1, 28, 28, 28)),
        ],
    )
    def test_from_the_official_file_to_report(self, real_data, tmp_path, name, counts, task, shape):
        audits = (
            "all" if name == "breastmnist" else ["performance", "calibration"]
        )  # each of 300 volumes takes its time
        folder = run_study(name, tmp_path / "run", root=str(real_data / "medmnist"), batch_size=64, audits=audits)
        summary = check_folder(folder, n_images=sum(counts), patients_known=False)
        facts = summary["cohort"]
        assert tuple(facts["split"][s]["images"] for s in ("train", "val", "test")) == counts
        assert facts["split"]["how"] == "official"
        assert (facts["task"], facts["channels"], *facts["size"]) == (task, *shape)
        assert summary["methods"][0]["card"]["size"] == list(shape[1:])

    def test_a_model_of_one_set_is_refused_for_another(self, real_data, tmp_path):
        from trueread.errors import InputError

        root = str(real_data / "medmnist")
        breast = load_cohort("medmnist:breastmnist", root=root)
        classifier = commands.train(breast, out=tmp_path, **QUICK)
        with pytest.raises(InputError, match="differ in task: the model has binary, the cohort ordinal"):
            commands.audit(classifier, load_cohort("medmnist:retinamnist", root=root))
        found = commands.audit(classifier, breast, audits="performance")[0].headline.estimate
        assert found.n == 156
