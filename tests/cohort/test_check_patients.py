"""Patients: what is planted in identifiers, names and tables is found, what only looks like it is left alone."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiny import tiny_cohort
from trueread.cohort import load_cohort
from trueread.cohort.check import Answer, Concern, Seriousness, run_check
from trueread.cohort.check.identifiers import patient_pattern, spelling_groups
from trueread.cohort.check.patients import Patients, inconsistent
from trueread.cohort.cohort import Cohort
from trueread.cohort.split import assign_splits

SERIOUS, LOOK, NOTE = Seriousness.SERIOUS, Seriousness.LOOK, Seriousness.NOTE


def cohort_of(
    patients: list[str], split: str | list[str] = "", *, labels: list[int] | None = None, known: bool = True,
    ids: list[str] | None = None, **attributes: object,
) -> Cohort:  # fmt: skip
    n = len(patients)
    table = pd.DataFrame({"id": ids or [f"i{k}" for k in range(n)], "patient": patients, "split": split, **attributes})
    images = np.zeros((n, 1, 4, 4), np.uint8)
    classes = np.zeros(n, np.int64) if labels is None else np.array(labels, np.int64)
    return Cohort("made", images, classes, table, ("A", "B"), "binary", patients_known=known)


def asked(cohort: Cohort, **options: float) -> Answer:
    answer = run_check(Patients(**options), cohort)
    assert not answer.reason
    told = [
        answer.looked_at,
        *(t for c in answer.concerns for t in (c.title, c.advice, *(e.caption for e in c.examples))),
    ]
    named = {*cohort.table["id"], *cohort.table["patient"].astype(str)}
    for text in told:  # who is named where: in tables alone
        assert not any(
            re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in list(named)[:300] if len(name) > 2
        )
    return answer


def only(cohort: Cohort, words: str, **options: float) -> Concern:
    [found] = asked(cohort, **options).concerns
    assert words in found.title, found.title
    return found


def alike(*identifiers: str) -> list[list[str]]:
    groups = spelling_groups(identifiers)
    return [[identifiers[i] for i in groups.index[groups == g]] for g in groups.unique()]


class TestSpelling:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("Person 12", "person12 "), ("IM-0115", "IM-115"), ("P001", "p1"), ("12", "12.0"), ("a_b", "A-B"),
            ("１２a", "12A"), ("Müller 3", "Mu\u0308ller3"), ("p7", "p\u200b7"), ("x\u00a07", "x7"), ("p‐7", "p-7"),
            ("1-12", "01_12"), ("1-12", "1 - 12"), ("case/0004", "Case4"), ("Straße1", "STRASSE 1"),
        ],
    )  # fmt: skip
    def test_one_person_in_two_spellings(self, one, other):
        assert alike("someone", one, "p999", other) == [[one, other]]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("1-12", "11-2"), ("1-12", "112"), ("p1", "p10"), ("p1", "q1"), ("a01b1", "a1b01"),
            ("person12", "person 1 2"), ("12.0", "120"), ("12.1", "12.01.0"), ("0", "00x"), ("-", "_"),
            ("p+", "p"), ("é1", "e1"),
        ],
    )  # fmt: skip
    def test_two_people(self, one, other):
        assert alike("someone", one, "p999", other) == []

    def test_many_at_once(self):
        assert alike("p1", "P1", "p 01", "q", "Q", "r") == [["p1", "P1", "p 01"], ["q", "Q"]]

    def test_counted_and_hashed_identifiers_are_all_different(self):
        draw = np.random.default_rng(0)
        assert len(spelling_groups([draw.bytes(6).hex() for _ in range(5000)])) == 0
        assert len(spelling_groups([f"{a}-{b}" for a in range(60) for b in range(60)])) == 0
        assert len(spelling_groups([f"{a:02}.{b:03}" for a in range(60) for b in range(60)])) == 0

    def test_in_two_splits_is_serious(self):
        patients = [f"p{k}" for k in range(40)] + ["P 07", "P 08", "p007"]
        split = ["train"] * 20 + ["test"] * 20 + ["test", "train", "train"]
        concerns = asked(cohort_of(patients, split)).concerns
        assert [c.seriousness for c in concerns] == [SERIOUS, LOOK]
        assert concerns[0].title.startswith(
            "1 identifier is written in more than one way, and the ways are in different"
        )
        assert concerns[0].table["patient"].tolist() == ["P 07", "p7", "p007"]
        assert concerns[0].n_images == 3
        assert set(concerns[0].examples[0].rows) <= {7, 40, 42}
        assert concerns[1].table["patient"].tolist() == ["p8", "P 08"]

    def test_without_a_split_is_worth_a_look(self):
        found = only(cohort_of([f"p{k}" for k in range(20)] * 2 + ["P-3"]), "1 identifier is written")
        assert (found.seriousness, found.n_images) == (LOOK, 3)

    def test_placeholders(self):
        patients = [f"p{k}" for k in range(20)] * 2 + ["Unknown", "Unknown", "n/a"]
        assert only(cohort_of(patients), "2 images are of a patient called unknown").table["images"].tolist() == [2]


class TestUnknown:
    @pytest.mark.parametrize(
        ("name", "expression", "patient"),
        [
            ("A/person{p}_bacteria_{i}.jpeg", r"person\d+", "person{p}"),
            ("A/IM-{p:04}-{i:04}.jpeg", r"IM-\d+", "IM-{p:04}"),
            ("train/A/{p:08}_{i:03}.png", r"\d+", "{p:08}"),
            ("A/{p}{side}.png", r"\d+", "{p}"),
            ("A/scan {p} ({i}).png", r"scan \d+", "scan {p}"),
            ("A/patient{p}/study1/{i}.png", "([^/]+)/[^/]+/[^/]+$", "patient{p}"),
            ("A2/{p}_{i}.png", r"(?:^|/)((?:\d+|[^/]+))[^/]*$", "{p}"),
        ],
    )
    def test_the_patient_in_a_name(self, name, expression, patient):
        rows = [(p, i) for p in range(40) for i in range(1 + p % 4)]
        names = [name.format(p=p + 100, i=i + 200 + 7 * p, side="LRab"[i]) for p, i in rows]
        found = patient_pattern(names, classes={"A", "A2", "train"})
        assert found.expression == expression
        assert found.found == [patient.format(p=p + 100) for p, _ in rows]

    def test_other_names_keep_to_themselves(self):
        names = [f"A/person{k // 3}_virus_{k}.png" for k in range(90)] + [f"A/odd{k:x}x.png" for k in range(6)]
        found = patient_pattern(names)
        assert found.expression == r"person\d+|[^/]+$"
        assert len(set(found.found)) == 36

    @pytest.mark.parametrize(
        "name",
        ["train/{k:06}", "images/ISIC_{k:07}.jpg", "A/{hex}.png", "A/{k}_1.png", "A/2024-{k}.png",
         "A/site{site}_{k}.png", "{name}/{k}.png", "{name}_{k}.png"],
    )  # fmt: skip
    def test_nothing_in_a_name(self, name):
        draw = np.random.default_rng(0)
        names = [name.format(k=k, hex=draw.bytes(4).hex(), site=k % 4, name=f"class {k % 30}") for k in range(600)]
        assert patient_pattern(names, classes={f"class {k}" for k in range(30)}) is None

    def test_a_rare_word_is_no_part_of_the_pattern(self):
        families = ["smith", "jones", "brown", *(f"family{chr(97 + k)}" for k in range(22))]
        names = [f"A/{families[k % 25]}_{k}.png" for k in range(200)]
        found = patient_pattern(names)
        assert len(set(found.found)) == 25
        assert "smith" not in found.expression

    def test_parted_groups_are_counted(self):
        names = [f"A/person{k // 2}_{k}.png" for k in range(80)]
        split = ["train", "train"] * 30 + ["train", "test"] * 10
        found = only(cohort_of(names, split, known=False, ids=names), "40 groups as patients would, 10 of them in more")
        assert (found.seriousness, found.n_images, found.strength) == (LOOK, 80, 0.25)
        assert r"patient='person\d+'" in found.advice
        assert found.examples[0].rows == (0, 1)
        assert only(cohort_of(names, known=False, ids=names), "40 groups as patients would.").seriousness is NOTE

    def test_no_pattern_is_a_note(self):
        names = [f"{k:05}" for k in range(60)]
        for split in ("", ["train"] * 40 + ["test"] * 20):
            found = only(cohort_of(names, split, known=False, ids=names), "every image counts as a patient of its own")
            assert found.seriousness is NOTE


class TestHowMany:
    def test_few_patients_in_test_and_val(self):
        patients = [f"p{k}" for k in range(100)]
        split = ["train"] * 87 + ["val"] * 4 + ["test"] * 9
        found = only(cohort_of(patients, split), "Only 4 patients in val and 9 patients in test.")
        assert (found.seriousness, found.n_images) == (LOOK, 13)
        assert asked(cohort_of(patients, split), few_patients=4).concerns == ()
        only(cohort_of(patients[:4]), "There are only 4 patients in all.")

    def test_many_images_of_one(self):
        patients = [f"p{k}" for k in range(100)] + ["p3"] * 14
        assert only(cohort_of(patients), "One patient has 13 % of all images.").seriousness is NOTE
        split = ["train" if p == "p3" else "test" for p in patients]
        split[20:50] = ["train"] * 30
        concern = only(cohort_of(patients, split), "One patient has 33 % of the images of train.")
        assert concern.seriousness is LOOK
        assert concern.table["patient"].tolist() == ["p3"]
        assert asked(cohort_of(patients), large_share=0.2).concerns == ()

    def test_ten_patients_with_a_tenth_each_are_no_surprise(self):
        assert asked(cohort_of([f"p{k}" for k in range(10)] * 3)).concerns == ()


class TestInside:
    def test_sex_that_changes(self):
        patients = [f"p{k // 3}" for k in range(300)]
        sex = np.array(["f", "m"], dtype=object)[[(k // 3) % 2 for k in range(300)]]
        sex[[5, 30]] = ["f", "f"]  # patients 1 and 10
        sex[1] = np.nan
        view = np.array(["PA", "AP", "LL"], dtype=object)[np.arange(300) % 3]
        age = np.arange(300) // 3 + (np.arange(300) == 7)
        found = only(cohort_of(patients, sex=sex, view=view, age=age), "'sex' differs inside 1 of 100 patients")
        assert found.seriousness is LOOK
        assert found.table["patient"].tolist() == ["p1"] * 3
        assert found.table["row"].tolist() == [3, 4, 5]
        assert found.table["value of sex"].tolist() == ["m", "m", "f"]
        assert found.examples[0].rows == (3, 5)

    def test_a_rare_value_of_the_image_is_no_contradiction(self):
        """1 % of images show a pacemaker: most patients have one value, and it is still no property of the person."""
        draw = np.random.default_rng(0)
        alarms = 0
        for _ in range(100):
            values = (draw.random(600) < 0.01).astype(np.int64)
            alarms += len(inconsistent(values, np.repeat(np.arange(300), 2))[0]) > 0
        assert alarms <= 5

    def test_a_column_that_few_can_show_is_not_judged(self):
        assert len(inconsistent(np.array([0, 1] + [1, 1] * 10), np.repeat(np.arange(11), 2))[0]) == 0
        assert len(inconsistent(np.full(6, -1), np.zeros(6, np.int64))[0]) == 0

    def test_several_classes(self):
        patients = [f"p{k // 2}" for k in range(60)]
        labels = [(k // 2) % 2 for k in range(60)]
        assert asked(cohort_of(patients, labels=labels)).concerns == ()
        labels[7] = 0
        found = only(
            cohort_of(patients, labels=labels), "1 of 30 patients with several images has images of more than one"
        )
        assert found.seriousness is NOTE
        assert found.table["label"].tolist() == ["B", "A"]
        assert asked(cohort_of(patients, labels=[k % 2 for k in range(60)])).concerns == ()  # the design: two eyes, say


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
@pytest.mark.parametrize("split", [True, False])
def test_ordinary_cohorts_give_no_concern(task, split):
    cohort = tiny_cohort(task, n=240)
    answer = asked(cohort if split else cohort.with_split([""] * 240))
    assert [c for c in answer.concerns if c.seriousness is not NOTE] == []
    assert answer.table["split"].tolist() == (["train", "val", "test"] if split else ["all"])
    assert answer.table["images"].sum() == 240
    assert f"{cohort.n_patients} patients of 240 images" in answer.looked_at


def test_rare_class_volumes_and_four_images():
    assert asked(tiny_cohort(n=600, share=0.01)).concerns == ()
    assert asked(tiny_cohort(n=120, depth=4)).concerns == ()
    four = tiny_cohort().subset(np.arange(4))
    assert all(c.seriousness is not SERIOUS for c in asked(four).concerns)
    phantom = load_cohort("phantom", n_images=400, size=28)
    assert asked(phantom).concerns == ()
    numbers = phantom.table.assign(patient=pd.factorize(phantom.table["patient"])[0])
    assert asked(Cohort("n", phantom.images, phantom.labels, numbers, phantom.classes, "binary")).concerns == ()


@pytest.mark.slow
def test_a_hundred_thousand_images_take_seconds():
    draw = np.random.default_rng(0)
    people = draw.integers(0, 30_000, 100_000)
    patients = [f"hospital-{p:06}" for p in people]
    patients[0] = f"Hospital {people[0]}"
    sex = np.where(people % 2, "f", "m")
    start = time.perf_counter()
    [found] = run_check(Patients(), cohort_of(patients, sex=sex)).concerns
    names = [f"A/p{p}_{k}.png" for k, p in enumerate(people)]
    assert run_check(Patients(), cohort_of(names, known=False, ids=names)).concerns
    assert time.perf_counter() - start < 12  # 2 s on an idle machine
    assert "1 identifier is written" in found.title


@pytest.mark.realdata
class TestRealData:
    def test_the_pattern_of_the_radiographs_is_found(self, real_data: Path):
        names = [f"{p.parent.name}/{p.name}" for p in (real_data / "kermany").glob("*/*.jpeg")]
        found = patient_pattern(names, classes={"NORMAL", "PNEUMONIA"})
        assert found is not None
        study = [re.search(r"person\d+|(?:NORMAL2-)?IM-\d+", name)[0] for name in names]
        assert found.found == study

    @pytest.mark.slow
    def test_a_lesion_whose_site_was_written_in_two_ways(self, real_data: Path):
        path = real_data / "ham10000" / "metadata.csv"
        cohort = assign_splits(load_cohort(f"csv:{path}", size=16, patient="lesion_id"))
        assert only(cohort, "'site' differs inside 2 of 1,119").seriousness is LOOK
