"""Progress: what a log gets, what a terminal gets, and that standard output gets nothing."""

from __future__ import annotations

import io
import sys

import pytest

from trueread import progress
from trueread.progress import say, set_quiet, track


@pytest.fixture(autouse=True)
def _as_before():
    set_quiet(False)
    yield
    set_quiet(False)
    assert progress._live is None


@pytest.fixture
def clock(monkeypatch):
    """A clock that each item moves on by a given number of seconds."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def items(self, n: int, seconds: float):
            for i in range(n):
                yield i
                self.now += seconds

    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made.monotonic)
    return made


def work(clock, n: int, seconds: float, **options) -> list[int]:
    """Go through n items, each of which takes some seconds to deal with."""
    done = []
    for item in track(range(n), what="reading", **options):
        clock.now += seconds
        done.append(item)
    return done


class TestLines:
    def test_work_that_is_soon_over_says_nothing(self, clock, capsys):
        assert work(clock, 9, 1.0) == list(range(9))
        assert capsys.readouterr() == ("", "")

    def test_a_line_every_ten_seconds_with_rate_and_time_left_on_stderr(self, clock, capsys):
        work(clock, 100, 0.25)  # 4 images a second
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [
            "reading: 40 of 100 images, 4 images/s, 15 s left",
            "reading: 80 of 100 images, 4 images/s, 5 s left",
        ]

    def test_slow_items_are_counted_in_seconds_each(self, clock, capsys):
        work(clock, 2, 12.0, unit="epochs")
        assert capsys.readouterr().err.splitlines() == [
            "reading: 1 of 2 epochs, 12.0 s per epoch, 12 s left",
            "reading: 2 of 2 epochs, 12.0 s per epoch, 0 s left",
        ]

    def test_parts_of_longer_work_count_and_speak_as_one(self, clock, capsys):
        for epoch in range(4):  # 4 s each: no single one would reach the interval
            work(clock, 4, 1.0, unit="batches", total=16, before=4 * epoch)
        assert capsys.readouterr().err.splitlines() == ["reading: 10 of 16 batches, 1.0 s per batch, 6 s left"]

    @pytest.mark.parametrize(("unit", "one"), [("batches", "batch"), ("images", "image"), ("audits", "audit")])
    def test_one_of_each_unit_has_its_name(self, unit, one):
        assert progress._rate(0.5, unit) == f"2.0 s per {one}"
        assert progress._rate(1500, unit) == f"1,500 {unit}/s"

    def test_without_a_length_there_is_no_time_left(self, clock, capsys):
        for _ in track(iter(range(2)), what="reading"):
            clock.now += 11
        assert capsys.readouterr().err.splitlines()[0] == "reading: 1 images, 11.0 s per image"

    def test_a_total_stands_in_for_the_length(self, clock, capsys):
        for _ in track(iter(range(2)), what="reading", total=2):
            clock.now += 11
        assert "1 of 2 images" in capsys.readouterr().err


class TestQuiet:
    def test_nothing_is_said_and_nothing_is_lost(self, clock, capsys):
        set_quiet(True)
        say("a message")
        assert work(clock, 50, 1.0) == list(range(50))
        assert capsys.readouterr() == ("", "")

    def test_and_loud_again(self, capsys):
        set_quiet(True)
        set_quiet(False)
        say("a [bold] message, as it is")
        assert capsys.readouterr() == ("", "a [bold] message, as it is\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Make standard error a terminal; called inside the test, because pytest puts its own back before it."""

    def opened() -> Terminal:
        made = Terminal()
        monkeypatch.setattr(sys, "stderr", made)
        monkeypatch.setenv("TERM", "xterm")
        return made

    return opened


class TestBar:
    def test_a_terminal_gets_a_bar_and_messages_go_above_it(self, open_terminal, capsys):
        terminal = open_terminal()
        for i in track(range(3), what="reading kermany"):
            say(f"message {i} with [brackets]")
        shown = terminal.getvalue()
        assert "reading kermany" in shown
        assert "0/3" in shown
        assert "message 1 with [brackets]" in shown
        assert capsys.readouterr().out == ""

    def test_a_bar_inside_a_bar_shares_the_display(self, open_terminal):
        terminal = open_terminal()
        for _ in track(range(2), what="epochs"):
            live = progress._live
            for _ in track(range(2), what="batches"):
                assert progress._live is live
            assert progress._live is live
        assert "epochs" in terminal.getvalue()
        assert "batches" in terminal.getvalue()

    def test_an_error_or_a_break_takes_the_bar_away(self, open_terminal):
        open_terminal()

        def failing() -> None:
            for _ in track(range(3), what="reading"):
                assert progress._live is not None
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            failing()
        assert progress._live is None
        for _ in track(range(3), what="reading"):
            break
        assert progress._live is None

    def test_no_terminal_no_bar(self, capsys):
        list(track(range(3), what="reading"))
        assert progress._live is None
        assert capsys.readouterr() == ("", "")
