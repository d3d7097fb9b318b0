"""New images: what is said of them is what was measured, and where the evidence lies is where it is in the file."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydicom import dcmread

from dicoms import dicom_file
from tiny import tiny_cohort, tiny_config
from tiny_runs import write_pictures
from trueread import commands, predicting
from trueread.cohort.read import list_images, read_image
from trueread.cohort.source import load_cohort
from trueread.cohort.split import apply_split, assign_splits
from trueread.errors import InputError, NotMeasured
from trueread.exporting import export
from trueread.imagefile.decode import on_original
from trueread.model.card import Card, MapCheck
from trueread.model.classifier import Classifier
from trueread.model.limits import abstentions, distances, margins
from trueread.model.predictor import ProbabilityFunction
from trueread.predicting import decisions
from trueread.training.evaluate import predict_probabilities
from trueread.training.limits import features_of
from trueread.training.loop import fit

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "hospital")


@pytest.fixture(scope="module")
def model(tmp_path_factory, pictures):
    """A classifier trained on those pictures, saved."""
    cohort = assign_splits(load_cohort(f"folder:{pictures}", size=16, patient=r"patient\d+"))
    return fit(cohort, None, tiny_config(), quiet=True).classifier.save(tmp_path_factory.mktemp("model"))


class TestPredict:
    def test_it_says_what_the_cohort_path_says_of_the_same_files(self, model, pictures):
        table = predicting.predict(model, [pictures])
        cohort = load_cohort(f"folder:{pictures}", size=16)
        classifier = Classifier.load(model)
        expected = pd.DataFrame(predict_probabilities(classifier, cohort), index=cohort.table["id"])
        by_id = table.set_index(table["file"].map(lambda f: Path(f).relative_to(pictures).as_posix()))
        assert len(by_id) == 120
        stated = by_id.loc[expected.index, ["p:mild", "p:normal"]].to_numpy()
        assert stated == pytest.approx(expected.to_numpy(), abs=1e-6)
        assert stated.std() > 0.01
        cut = classifier.card.threshold
        assert (by_id.loc[expected.index, "decision"] == np.where(expected[1] >= cut, "normal", "mild")).all()
        assert (table["reason"] == "").all()

    def test_broken_files_have_a_row_with_the_reason_in_their_place(self, model, pictures, tmp_path):
        good = sorted(pictures.rglob("*.png"))[:3]
        (tmp_path / "empty.png").write_bytes(b"")
        (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:70])
        table = predicting.predict(model, [good[0], tmp_path / "empty.png", good[1], tmp_path / "cut.png", good[2]])
        assert [Path(f).name for f in table["file"]] == [
            good[0].name, "empty.png", good[1].name, "cut.png", good[2].name,
        ]  # fmt: skip
        assert table["reason"].str.contains("empty")[1]
        assert table["reason"].map(bool).tolist() == [False, True, False, True, False]
        assert table.loc[[1, 3], ["p:mild", "p:normal", "decision"]].isna().all(axis=None)
        alone = predicting.predict(model, good)
        assert table.loc[[0, 2, 4], "p:mild"].tolist() == pytest.approx(alone["p:mild"].tolist(), abs=1e-7)

    def test_an_image_does_not_depend_on_the_others(self, model, pictures, tmp_path):
        eight = sorted(pictures.rglob("*.png"))[:3]
        pixels = np.asarray(Image.open(eight[0])).astype(np.uint16)
        for name, factor in (("deep", 257), ("dim", 16)):
            Image.fromarray(pixels * factor).save(tmp_path / f"{name}.png")
        files = [*eight, tmp_path / "deep.png", tmp_path / "dim.png"]
        for white in (255, 4095, 65535):
            classifier = Classifier.load(model)
            classifier.card.white = white
            together = predicting.predict(classifier, files)
            alone = pd.concat(
                [predicting.predict(classifier, [f]) for f in files if f.name != "deep.png" or white != 4095]
            )
            read = together[together["reason"] == ""]
            assert read["p:mild"].tolist() == pytest.approx(alone["p:mild"].tolist(), abs=1e-6)
            assert len(read) == (4 if white == 4095 else 5)
        classifier.card.white = 4095
        bright = predicting.predict(classifier, files).iloc[3]
        assert bright["reason"] == f"brighter ({int(pixels.max()) * 257}) than the model's white (4095)"
        with pytest.raises(InputError, match=r"none of 1 files can be predicted \(.*deep.png: brighter"):
            predicting.predict(classifier, [tmp_path / "deep.png"])

    def test_mostly_broken_files_still_give_rows_and_only_broken_ones_are_an_error(self, model, pictures, tmp_path):
        (tmp_path / "x.png").write_bytes(b"no image")
        table = predicting.predict(model, [tmp_path / "x.png", next(pictures.rglob("*.png")), tmp_path / "x.png"])
        assert table["reason"].map(bool).tolist() == [True, False, True]
        with pytest.raises(InputError, match=r"none of 1 files can be predicted .*not an image"):
            predicting.predict(model, [tmp_path / "x.png"])

    def test_folders_are_searched_in_the_order_of_reading(self, model, pictures, tmp_path):
        source = next(pictures.rglob("*.png"))
        for name in ("deep/er/scan10.png", "deep/er/scan2.PNG", "scan1.png", ".hidden.png", "notes.txt"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)
        found = list_images([tmp_path])
        assert [str(p.relative_to(tmp_path)) for p in found] == ["deep/er/scan2.PNG", "deep/er/scan10.png", "scan1.png"]
        table = predicting.predict(model, [tmp_path, source])
        assert len(table) == 4
        assert table["p:mild"].nunique() == 1

    def test_one_overlay_per_image_that_can_be_opened_and_shows_evidence(self, model, pictures, tmp_path):
        same_name = tmp_path / "other"
        source = sorted(pictures.rglob("*.png"))[0]
        same_name.mkdir()
        shutil.copy(source, same_name / source.name)
        (tmp_path / "broken.png").write_bytes(b"")
        table = predicting.predict(
            model, [source, tmp_path / "broken.png", same_name, pictures / "normal"], explain=tmp_path / "overlays"
        )
        overlays = sorted((tmp_path / "overlays").glob("*.png"))
        assert len(overlays) == len(table) - 1
        assert overlays[0].name == f"00000-{source.stem}.png"
        assert overlays[1].name == f"00002-{source.stem}.png"  # numbered like the rows
        assert overlays[0].read_bytes() == overlays[1].read_bytes()
        coloured = 0
        for path in overlays:
            with Image.open(path) as image:
                assert image.size == (208, 208)
                pixels = np.asarray(image.convert("RGB")).astype(int)
                coloured += np.ptp(pixels, axis=2).max() > 20
        assert coloured > 0
        assert np.isnan(table["evidence"][1])
        assert table["evidence"].drop(1).min() >= 0
        assert table["evidence"].max() > 0

    def test_sixteen_bits_are_the_same_picture(self, model, pictures, tmp_path):
        source = sorted(pictures.rglob("*.png"))[0]
        deep = np.asarray(Image.open(source)).astype(np.uint16) * 257
        Image.fromarray(deep).save(tmp_path / "deep.png")
        one, other = predicting.predict(model, [source]), predicting.predict(model, [tmp_path / "deep.png"])
        assert one["p:mild"][0] == pytest.approx(other["p:mild"][0], abs=1e-6)

    def test_what_cannot_be_predicted_is_said(self, model, tmp_path):
        with pytest.raises(InputError, match=r"no file or folder .*nothing\.png"):
            predicting.predict(model, [tmp_path / "nothing.png"])
        with pytest.raises(InputError, match="there is no image in"):
            predicting.predict(model, [tmp_path])
        with pytest.raises(InputError, match=r"no saved classifier in .* \(no card\.json\)"):
            predicting.predict(tmp_path, [tmp_path])

    def test_thousands_are_read_piece_by_piece(self, model, pictures, tmp_path, monkeypatch):
        good = sorted(pictures.rglob("*.png"))[:5]
        bad = [tmp_path / f"{i}.png" for i in range(3)]
        for path in bad:
            path.write_bytes(b"x")
        files = [good[0], good[1], good[2], *bad, good[3], bad[0], good[4]]
        whole = predicting.predict(model, files)
        monkeypatch.setattr(predicting, "READ_AT_ONCE", 3)  # the second piece is all broken
        pd.testing.assert_frame_equal(predicting.predict(model, files), whole)

    def test_an_exported_file_answers_too(self, model, pictures, tmp_path):
        export(model, tmp_path / "model.onnx")
        files = sorted(pictures.rglob("*.png"))[:3]
        one = predicting.predict(tmp_path / "model.onnx", files, explain=tmp_path / "overlays", how="occlusion")
        assert one["p:mild"].tolist() == pytest.approx(predicting.predict(model, files)["p:mild"].tolist(), abs=1e-5)
        assert len(list((tmp_path / "overlays").iterdir())) == 3
        with pytest.raises(NotMeasured, match="needs its gradients"):
            predicting.predict(tmp_path / "model.onnx", files, explain=tmp_path / "overlays")


class TestPlaces:
    def service(self) -> ProbabilityFunction:
        """Says "bright" of what is bright in the upper left quarter."""

        def function(images):
            p = images[:, 0, :8, :8].mean(axis=(1, 2))
            return np.stack([1 - p, p], axis=1)

        return ProbabilityFunction(function, classes=("dark", "bright"), size=(16, 16), channels=1)

    def picture(self, path: Path) -> Path:
        """640 x 320, of which the middle 320 are read: bright from 160 to 240 across and 0 to 80 down."""
        pixels = np.zeros((320, 640), np.uint8)
        pixels[:80, 160:240] = 255
        pixels[:160, 160:320] = np.maximum(pixels[:160, 160:320], 150)  # or the decision would be dark
        Image.fromarray(pixels).save(path)
        return path

    def test_boxes_are_where_they_are_in_the_file(self, tmp_path):
        table = predicting.predict(
            self.service(), [self.picture(tmp_path / "x.png")], explain=tmp_path / "o", how="occlusion"
        )
        assert table["decision"][0] == "bright"
        [box] = table["boxes"][0]
        assert box["score"] > 0
        assert box["score"] == pytest.approx(table["evidence"][0], abs=1e-4)
        assert 160 <= box["left"] < box["right"] <= 320
        assert 0 <= box["top"] < box["bottom"] <= 160
        assert (tmp_path / "o" / "00000-x.png").is_file()

    def test_a_picture_without_evidence_has_no_box_and_no_colour(self, tmp_path):
        flat = ProbabilityFunction(
            lambda x: np.full((len(x), 2), 0.5), classes=("dark", "bright"), size=(16, 16), channels=1
        )
        table = predicting.predict(flat, [self.picture(tmp_path / "x.png")], explain=tmp_path / "o", how="occlusion")
        assert table["boxes"][0] == []
        assert table["evidence"][0] == 0
        assert np.ptp(np.asarray(Image.open(tmp_path / "o" / "00000-x.png")).astype(int), axis=2).max() == 0

    @pytest.mark.parametrize(("fit", "width", "height"), [("crop", 90, 60), ("pad", 60, 90), ("stretch", 30, 90)])
    def test_the_way_back_to_the_original(self, fit, width, height, tmp_path):
        pixels = np.zeros((height, width), np.uint8)
        pixels[30:42, 12:24] = 255
        if fit == "crop":
            pixels = np.roll(pixels, 15, axis=1)
        Image.fromarray(pixels).save(tmp_path / "x.png")
        seen = read_image(tmp_path / "x.png", size=30, channels=1, fit=fit)[0] > 127
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        place = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        left, top, right, bottom = on_original(place, size=30, fit=fit, width=width, height=height)
        first = 27 if fit == "crop" else 12
        assert (left, right) == pytest.approx((first, first + 12), abs=3)
        assert (top, bottom) == pytest.approx((30, 42), abs=3)

    def test_the_whole_picture_is_the_whole_original(self):
        assert on_original((0, 0, 7, 7), size=7, fit="pad", width=10, height=20) == (0, 0, 10, 20)
        assert on_original((0, 0, 7, 7), size=7, fit="crop", width=10, height=20) == (0, 5, 10, 15)
        assert on_original((0, 0, 7, 7), size=7, fit="stretch", width=10, height=20) == (0, 0, 10, 20)

    def test_captures_are_filed_with_the_study_they_came_from(self, tmp_path):
        pixels = np.zeros((32, 32), np.uint16)
        pixels[:16, :16] = 4000
        known = {
            "PatientID": "77",
            "PatientName": "Müller^A",
            "StudyInstanceUID": "1.2.3",
            "SpecificCharacterSet": "ISO_IR 100",
            "BurnedInAnnotation": "YES",
        }
        files = [dicom_file(tmp_path / f"{i}.dcm", pixels, SOPInstanceUID=f"1.2.3.{i}", **known) for i in range(2)]
        table = predicting.predict(
            self.service(), [*files, self.picture(tmp_path / "x.png")], dicom=tmp_path / "out", how="occlusion"
        )
        assert len(table["boxes"][0]) == 1
        made = [dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
        assert [m.get("PatientID") for m in made] == ["77", "77", ""]
        assert str(made[0].PatientName) == "Müller^A"
        assert [m.StudyInstanceUID == "1.2.3" for m in made] == [True, True, False]
        assert made[0].SeriesInstanceUID == made[1].SeriesInstanceUID != made[2].SeriesInstanceUID
        assert len({m.SOPInstanceUID for m in made}) == 3
        assert made[1].SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
        assert "SourceImageSequence" not in made[2]
        assert [m.get("BurnedInAnnotation") for m in made] == ["YES", "YES", None]  # pixels as they were
        assert made[0].ImageType == ["DERIVED", "SECONDARY"]
        assert made[0].ImageComments.startswith("Evidence for bright, probability ")
        assert "was not checked" in made[0].ImageComments
        shown = made[0].pixel_array
        assert shown.shape == (512, 512, 3)
        assert np.ptp(shown.astype(int), axis=2).max() > 20  # coloured

    def test_what_was_found_of_its_maps_is_said_beside_them(self, model, pictures, tmp_path, monkeypatch):
        """By the name of a picture, the comment of a capture, and aloud."""
        one = sorted(pictures.rglob("*.png"))[:1]
        for k, (checked, said, ending) in enumerate((
            (None, "was not checked", ""),
            (MapCheck(how="grad-cam", warnings=["Warning: maps move."]), "maps move", "-unfit"),
            (MapCheck(how="grad-cam++", warnings=["Warning: maps move."]), "was not checked", ""),
            (MapCheck(how="grad-cam", warnings=[]), "", ""),
        )):  # fmt: skip
            heard: list[str] = []
            monkeypatch.setattr(predicting, "say", heard.append)
            asked = Classifier.load(model)
            asked.card.maps = checked
            asked.save(tmp_path / "model")
            predicting.predict(tmp_path / "model", one, explain=tmp_path / f"{k}", dicom=tmp_path / f"{k}")
            [capture], [picture] = (list((tmp_path / f"{k}").glob(p)) for p in ("*.dcm", "*.png"))
            comment = dcmread(capture).ImageComments
            assert said in " ".join(heard)
            assert said in comment
            assert bool(said) == ("maps" in comment)
            assert picture.stem == f"00000-{one[0].stem}{ending}"

    def test_dicom_files_of_a_folder_need_no_ending(self, tmp_path):
        (tmp_path / "in").mkdir()
        dicom_file(tmp_path / "in" / "IM000001", np.zeros((32, 32), np.uint16))
        (tmp_path / "in" / "notes").write_text("hello")
        assert [Path(f).name for f in predicting.predict(self.service(), [tmp_path / "in"])["file"]] == ["IM000001"]

    @pytest.mark.parametrize(
        ("given", "message"), [({"how": "magic"}, "magic"), ({"cut": 1.0}, "cut must lie between 0 and 1")]
    )
    def test_mistakes(self, given, message, tmp_path):
        with pytest.raises(InputError, match=message):
            predicting.predict(self.service(), [self.picture(tmp_path / "x.png")], explain=tmp_path / "o", **given)


class TestAbstain:
    def card(self, **changed) -> Card:
        facts = {
            "backbone": "x", "classes": ["a", "b"], "task": "binary", "channels": 1, "size": [4, 4], "mean": [0.0],
            "std": [1.0], **changed,
        }  # fmt: skip
        return Card(**facts)

    def test_margins_by_hand(self):
        p = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
        expected = [abs(math.log(q / (1 - q)) - math.log(0.25)) for q in (0.2, 0.5, 0.9)]
        assert margins(p, self.card(threshold=0.2)) == pytest.approx(expected)
        three = np.array([[0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]])
        assert margins(three, self.card(classes=list("abc"), task="multiclass")) == pytest.approx([math.log(5 / 3), 0])
        labels = self.card(classes=list("abc"), task="multilabel", threshold=[0.5, 0.1, 0.5])
        assert margins(np.array([[0.9, 0.1, 0.01]]), labels) == pytest.approx([0])
        assert np.isfinite(margins(np.array([[0.0, 1.0]]), self.card(threshold=0.0))).all()

    def test_distance_is_that_of_the_tenth_nearest(self):
        angles = torch.linspace(0, 1.1, 12)
        typical = torch.stack([angles.cos(), angles.sin()], dim=1)
        found = distances(torch.tensor([[3.0, 0.0]]), typical)
        assert found.item() == pytest.approx(1 - math.cos(0.9), abs=1e-6)
        few = distances(torch.tensor([[3.0, 0.0]]), typical[:2])
        assert few.item() == pytest.approx(1 - math.cos(0.1), abs=1e-6)

    def test_what_is_marked(self):
        card = self.card(limits={"margin": 1.0, "distance": 0.5, "rule": "x"})
        margin, distance = np.array([0.5, 2.0, 0.5, 2.0]), np.array([0.1, 0.1, 0.6, 0.6])
        unusual = "unlike the training images"
        assert abstentions(margin, distance, card) == ["unsure", "", unusual, unusual]
        assert abstentions(margin, None, card) == ["unsure", "", "unsure", ""]
        assert abstentions(margin, distance, self.card()) == [""] * 4

    def test_limits_leave_out_what_they_say_of_validation(self, tmp_path):
        cohort = tiny_cohort(n=400)
        commands.train(cohort, out=tmp_path, epochs=3, batch_size=32, threads=1, device="cpu", precision="fp32")
        [folder] = tmp_path.glob("methods/*/*/model")
        classifier = Classifier.load(folder)
        assert classifier.typical is not None
        assert classifier.typical.float().norm(dim=1) == pytest.approx(1, abs=1e-3)
        split = apply_split(cohort, tmp_path / "split.csv")
        rows = split.rows("val")
        p = predict_probabilities(classifier, split, rows)
        features = features_of(classifier, split, rows)
        said = abstentions(
            margins(p, classifier.card), distances(features, classifier.typical).numpy(), classifier.card
        )
        assert said.count("unsure") == pytest.approx(0.1 * len(rows), abs=1.5)
        assert said.count("unlike the training images") == pytest.approx(0.01 * len(rows), abs=1)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)).save(tmp_path / "noise.png")
        table = predicting.predict(folder, [tmp_path / "noise.png"])
        assert table["abstain"][0] == "unlike the training images"
        assert table["distance"][0] > classifier.card.limits.distance
        (folder / "typical.safetensors").unlink()
        with pytest.raises(InputError, match=r"no weights file .*typical"):
            Classifier.load(folder)


class TestDecisions:
    def card(self, task: str, k: int, threshold=None) -> Card:
        return Card(
            backbone="x", classes=list("abc")[:k], task=task, channels=1, size=[4, 4], mean=[0.0], std=[1.0],
            threshold=threshold,
        )  # fmt: skip

    def test_binary_at_the_threshold_which_counts_as_positive(self):
        p = np.array([[0.7, 0.3], [0.75, 0.25], [0.76, 0.24]], np.float32)
        assert decisions(p, self.card("binary", 2, 0.25)) == ["b", "b", "a"]
        assert decisions(p, self.card("binary", 2)) == ["a", "a", "a"]

    def test_a_threshold_between_two_neighbouring_float32_is_not_rounded(self):
        low = np.float32(0.3)
        high = np.nextafter(low, np.float32(1))
        p = np.array([[1 - low, low], [1 - high, high]], np.float32)
        assert decisions(p, self.card("binary", 2, (float(low) + float(high)) / 2)) == ["a", "b"]

    def test_multiclass_the_most_probable(self):
        p = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]], np.float32)
        assert decisions(p, self.card("multiclass", 3)) == ["b", "a"]
        assert decisions(p, self.card("ordinal", 3)) == ["b", "a"]

    def test_multilabel_all_above_their_own_threshold(self):
        p = np.array([[0.9, 0.2, 0.5], [0.1, 0.1, 0.1]], np.float32)
        assert decisions(p, self.card("multilabel", 3, [0.8, 0.1, 0.6])) == ["a|b", "b"]
        assert decisions(p, self.card("multilabel", 3)) == ["a|c", ""]
