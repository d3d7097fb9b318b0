"""Asking checks: their order, their failures, the contract of their answers; and which files could not be read."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_checks import LOOK, NOTE, SERIOUS, CannotSay, Finds, concern, registered, three_kinds
from tiny import tiny_cohort
from trueread.cohort.check import CHECKS, Answer, Check, Example, build_checks, ranked, run_check, run_checks
from trueread.cohort.check.unreadable import Unreadable
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return tiny_cohort(n=40)


class TestRanking:
    def test_serious_before_look_before_note_and_strong_before_weak(self):
        answers = [
            Answer("a", "?", "all", (concern(NOTE, 1.0), concern(LOOK, 0.2), concern(SERIOUS, 0.1))),
            Answer("b", "?", "all", (concern(LOOK, 0.9), concern(SERIOUS, 0.3))),
        ]
        found = [(answer.check, str(c.seriousness), c.strength) for answer, c in ranked(answers)]
        assert found == [
            ("b", "serious", 0.3), ("a", "serious", 0.1), ("b", "worth a look", 0.9), ("a", "worth a look", 0.2),
            ("a", "note", 1.0),
        ]  # fmt: skip

    def test_equals_keep_the_order_of_the_checks(self):
        answers = [Answer(n, "?", "all", (concern(title=f"{n}0"), concern(title=f"{n}1"))) for n in "cab"]
        assert [c.title for _, c in ranked(answers)] == ["c0", "c1", "a0", "a1", "b0", "b1"]

    @given(st.lists(st.tuples(st.sampled_from([SERIOUS, LOOK, NOTE]), st.floats(0, 1)), max_size=12))
    def test_nothing_is_lost_and_none_stands_before_a_worse_one(self, kinds):
        """Against every pair, which is what an order means."""
        answers = [Answer(str(i), "?", "all", (concern(k, s),)) for i, (k, s) in enumerate(kinds)]
        found = [c for _, c in ranked(answers)]
        assert sorted(map(id, found)) == sorted(id(a.concerns[0]) for a in answers)
        worse = {SERIOUS: 2, LOOK: 1, NOTE: 0}
        for i, first in enumerate(found):
            assert all((worse[first.seriousness], first.strength) >= (worse[c.seriousness], c.strength)
                       for c in found[i:])  # fmt: skip


class TestRunning:
    def test_every_check_is_asked_with_the_seed_in_the_order_given(self, cohort):
        checks = [Finds("b"), Finds("a", concern())]
        answers = run_checks(cohort, checks, seed=7)
        assert [(a.check, len(a.concerns)) for a in answers] == [("b", 0), ("a", 1)]
        assert [c.seeds for c in checks] == [[7], [7]]

    def test_what_cannot_be_asked_says_why_and_stops_nobody(self, cohort):
        answers = run_checks(cohort, [CannotSay(), Finds("a", concern())])
        assert answers[0].reason == "nobody said what colour is."
        assert (answers[0].check, answers[0].question) == ("blind", "What colour is it?")
        assert answers[0].concerns == ()
        assert len(answers[1].concerns) == 1

    def test_the_time_is_that_of_the_check(self, cohort, monkeypatch):
        ticks = iter([10.0, 12.5, 20.0, 20.25])
        monkeypatch.setattr("trueread.cohort.check.driver.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        assert [a.seconds for a in (run_check(CannotSay(), cohort), run_check(Finds("a"), cohort))] == [2.5, 0.25]

    @pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), InputError("a column is missing.")])
    def test_other_errors_are_raised(self, cohort, error):
        class Broken(Check):
            name = "broken"

            def run(self, cohort, *, seed=0):
                raise error

        with pytest.raises(type(error), match=str(error)):
            run_checks(cohort, [Broken()])

    @pytest.mark.parametrize(
        ("found", "words"),
        [
            (concern(strength=float("nan")), "strength nan"),
            (concern(strength=1.01), "strength 1.01"),
            (concern(strength=-0.01), "strength -0.01"),
            (concern(examples=(Example((0, 40)),)), "rows 0 to 40 of 40 images"),
            (concern(examples=(Example((0,)), Example((5, -1)))), "rows -1 to 5 of 40 images"),
        ],
    )
    def test_an_answer_that_would_mislead_is_refused(self, cohort, found, words):
        with pytest.raises(ValueError, match=words):
            run_check(Finds("a", found), cohort)

    def test_the_ends_of_the_contract_are_allowed(self, cohort):
        answer = run_check(Finds("a", concern(strength=0), concern(strength=1, examples=(Example((0, 39)),))), cohort)
        assert len(answer.concerns) == 2

    def test_silence_without_what_was_looked_at_is_refused(self, cohort):
        class Mute(Check):
            name = "mute"

            def run(self, cohort, *, seed=0):
                return self.answer("")

        with pytest.raises(ValueError, match="'mute' does not say what it looked at"):
            run_check(Mute(), cohort)


class TestByName:
    def test_all_are_in_the_registry_with_a_question_and_a_summary(self):
        made = build_checks()
        assert [c.name for c in made] == [e.name for e in CHECKS.entries()]
        assert all(c.question.endswith("?") for c in made)
        assert all(e.summary for e in CHECKS.entries())
        assert "unreadable" in [c.name for c in made]

    def test_names_in_a_text_a_list_and_mappings_with_options(self):
        assert [type(c) for c in build_checks("unreadable")] == [Unreadable]
        [made] = build_checks([{"name": "unreadable", "serious_share": 0.2}])
        assert isinstance(made, Unreadable)
        assert made.serious_share == 0.2
        with registered(three_kinds()):
            assert [c.name for c in build_checks("twins, quiet")] == ["twins", "quiet"]
            assert [c.name for c in build_checks(["quiet", {"name": "cues"}])] == ["quiet", "cues"]

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            ("unreadible", "'unreadible' is not a check. Did you mean 'unreadable'"),
            (["unreadable", "unreadable"], "'unreadable' is asked twice"),
            ([{"serious_share": 0.1}], "a check needs a name"),
            ([""], "a check needs a name"),
            ([{"name": "unreadable", "serious_shares": 0.1}], "Did you mean 'serious_share'"),
            ([{"name": "unreadable", "serious_share": 1.5}], "serious_share"),
        ],
    )
    def test_slips_of_the_pen_are_errors(self, names, words):
        with pytest.raises(InputError, match=words):
            build_checks(names)


class TestUnreadable:
    def lost(self, cohort: Cohort, n: int, *, reasons: tuple[str, ...] = ("the file is cut short",)) -> Cohort:
        told = [reasons[k % len(reasons)] for k in range(n)]
        omitted = pd.DataFrame({"path": [f"a/{k}.png" for k in range(n)], "reason": told}, dtype=str)
        return dataclasses.replace(cohort, omitted=omitted)

    def test_none_is_silence_that_says_what_was_read(self, cohort):
        answer = run_check(Unreadable(), cohort)
        assert (answer.concerns, answer.looked_at) == ((), "40 files")

    @pytest.mark.parametrize(("n_lost", "kind"), [(1, LOOK), (2, LOOK), (3, SERIOUS)])
    def test_more_than_a_twentieth_is_serious(self, cohort, n_lost, kind):
        """2 of 40 files are exactly the twentieth that is not yet serious."""
        some = self.lost(cohort.subset(np.arange(40 - n_lost)), n_lost)
        [found] = run_check(Unreadable(), some).concerns
        assert found.seriousness is kind
        assert found.strength == pytest.approx(n_lost / 40)
        assert found.n_images == n_lost
        assert found.title.startswith(f"{n_lost} of 40 files ({100 * n_lost / 40:.2g} %) could not be read")
        assert found.table is not None
        assert list(found.table["path"]) == [f"a/{k}.png" for k in range(n_lost)]

    def test_the_commonest_reason_is_said_and_no_file_is_named(self, cohort):
        [all_alike] = run_check(Unreadable(), self.lost(cohort, 3)).concerns
        assert all_alike.title.endswith("; all: the file is cut short.")
        [mixed] = run_check(Unreadable(), self.lost(cohort, 5, reasons=("empty", "cut"))).concerns
        assert mixed.title.endswith("; most often (3 times): empty.")
        assert "a/0.png" not in all_alike.title + mixed.title
