"""The registry: names of this package and of others, and what a wrong or broken one says."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from dataclasses import dataclass

import pytest

from trueread import registry as registry_module
from trueread.audit.base import AUDITS
from trueread.cohort.source import SOURCES
from trueread.errors import InputError, TruereadError, nearest, unknown
from trueread.method.base import METHODS
from trueread.model.backbone import BACKBONES
from trueread.registry import Registry
from trueread.shift.base import SHIFTS


@dataclass(frozen=True)
class Point:
    """An entry point as importlib gives it, whose loading does something."""

    name: str
    load: object
    value: str = "package.module"


@pytest.fixture
def plugins(monkeypatch):
    """Set the entry points of other packages; the built-in package is an empty module."""
    monkeypatch.setitem(sys.modules, "empty_builtin", types.ModuleType("empty_builtin"))
    asked: list[str] = []

    def install(*points: Point) -> Registry:
        def entry_points(*, group: str):
            asked.append(group)
            return points

        monkeypatch.setattr(registry_module, "entry_points", entry_points)
        made: Registry = Registry("method", "methods", package="empty_builtin")
        made.asked = asked  # type: ignore[attr-defined]
        return made

    return install


def focal(*, gamma: float = 2.0) -> tuple[str, float]:
    """Focal loss.

    More about it.
    """
    return "focal", gamma


class TestNames:
    def test_registered_things_are_found_built_and_described(self, plugins):
        made = plugins()
        made.register("focal", source="Lin et al. 2017")(focal)
        assert made.build("focal", {"gamma": 3}) == ("focal", 3.0)
        assert made.build("focal") == ("focal", 2.0)
        entry = made.get("focal")
        assert (entry.name, entry.summary, entry.source) == ("focal", "Focal loss.", "Lin et al. 2017")
        assert focal.name == "focal"

    def test_they_are_listed_by_name(self, plugins):
        made = plugins()
        for name in ("b", "a", "c"):
            made.register(name, summary=name)(type(name, (), {}))
        assert [e.name for e in made.entries()] == ["a", "b", "c"]

    def test_an_unknown_name_gets_the_nearest_and_the_command_that_lists_all(self, plugins):
        made = plugins()
        made.register("step-e")(focal)
        with pytest.raises(InputError) as error:
            made.get("step_e")
        assert str(error.value) == (
            "'step_e' is not a method. Did you mean 'step-e'? `trueread list methods` shows all 1."
        )

    def test_a_wrong_option_names_the_thing_it_is_for(self, plugins):
        made = plugins()
        made.register("focal")(focal)
        with pytest.raises(InputError, match=r"method 'focal': 'gama' is not an option here\. Did you mean 'gamma'"):
            made.build("focal", {"gama": 1})

    def test_two_things_of_one_name_are_refused_and_the_first_stays(self, plugins):
        made = plugins()
        made.register("focal")(focal)
        with pytest.raises(InputError, match="two methods call themselves 'focal'; rename one"):
            made.register("focal")(type("Other", (), {}))
        # also when another package's class has the very same name
        twin = types.FunctionType(focal.__code__, {}, "focal")
        twin.__module__, twin.__qualname__ = "another.package", focal.__qualname__
        with pytest.raises(InputError, match="two methods call themselves"):
            made.register("focal")(twin)
        assert made.get("focal").factory is focal

    def test_the_same_thing_registered_again_is_a_reload(self, plugins):
        made = plugins()
        made.register("focal")(focal)
        made.register("focal")(focal)
        assert len(made.entries()) == 1

    def test_every_built_in_thing_says_what_it_is(self):
        for each in (METHODS, AUDITS, SHIFTS, SOURCES, BACKBONES):
            for entry in each.entries():
                assert entry.summary.endswith("."), (each.plural, entry.name)
                assert entry.name == entry.name.lower()


class TestPlugins:
    def test_another_package_adds_one_by_its_entry_point(self, plugins):
        made = plugins(Point("theirs", lambda: made.register("theirs")(focal)))
        assert [e.name for e in made.entries()] == ["theirs"]
        assert made.asked == ["trueread.methods"]
        made.get("theirs")
        assert made.asked == ["trueread.methods"]  # looked up once

    def test_a_broken_one_is_named_every_time_and_never_passed_over(self, plugins):
        def broken():
            raise ImportError("no module named 'theirs'")

        made = plugins(Point("theirs", broken, "their_package"))
        for _ in range(2):
            with pytest.raises(
                TruereadError, match=r"plug-in 'theirs' \(their_package\) for trueread.methods cannot be"
            ):
                made.entries()

    def test_installed_entry_points_really_are_asked_for(self):
        assert registry_module.entry_points is importlib.metadata.entry_points


class TestSuggestions:
    def test_the_nearest_name(self):
        assert nearest("Label_Smothing", ["label-smoothing", "mixup"]) == " Did you mean 'label-smoothing'?"
        assert nearest("xyz", ["label-smoothing", "mixup"]) == ""
        assert nearest("learning_rat", ["learning_rate", "epochs"]) == " Did you mean 'learning_rate'?"

    def test_the_article_and_the_list(self):
        assert str(unknown("audit", "x", ["b", "a"])) == "'x' is not an audit. Known: a, b."
        assert str(unknown("method", "x", [])) == "'x' is not a method. None is installed."
