"""Things found by name: methods, audits, shifts, sources and backbones, ours and those of other packages.

A third-party package adds one through an entry point of the group `trueread.methods` (`trueread.audits`, ...) whose
object is a module or class that registers itself with the same decorator.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from trueread import options
from trueread.errors import InputError, TruereadError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing: its name, how it is made, one line that says what it is, and where it comes from."""

    name: str
    factory: Callable[..., T]
    summary: str
    source: str


class Registry(Generic[T]):
    """Names of one kind of thing.

    kind: the singular noun used in errors ("method").
    plural: the noun of `trueread list` and of the entry-point group `trueread.<plural>`.
    package: the package whose import registers the built-in ones; imported when a name is first asked for.
    """

    def __init__(self, kind: str, plural: str, *, package: str) -> None:
        self.kind, self.plural, self.package = kind, plural, package
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False

    def register(self, name: str, *, source: str = "", summary: str = "") -> Callable[[Any], Any]:
        """Decorator: make a class or function known as `name`. The summary is the first line of its docstring."""

        def add(factory: Any) -> Any:
            known = self._entries.get(name)
            if known is not None and _home(known.factory) != _home(factory):  # the same one again is a reload
                raise InputError(f"two {self.plural} call themselves '{name}'; rename one of them.")
            line = summary or (inspect.getdoc(factory) or "").partition("\n")[0]
            self._entries[name] = Entry(name, factory, line, source)
            factory.name = name
            return factory

        return add

    def entries(self) -> list[Entry[T]]:
        """All entries by name; built-in ones first time imported here, then those of other packages."""
        self._load()
        return [self._entries[name] for name in sorted(self._entries)]

    def get(self, name: str) -> Entry[T]:
        """The entry called `name`. Raises InputError with the nearest name when there is none."""
        self._load()
        if name not in self._entries:
            count = len(self._entries)
            raise unknown(
                self.kind,
                name,
                self._entries,
                hint=f"`trueread list {self.plural}` shows all {count}." if count else "",
            )
        return self._entries[name]

    def build(self, name: str, values: Mapping[str, Any] | None = None) -> T:
        """The thing called `name`, made with options that are checked against its own annotations."""
        return options.build(self.get(name).factory, values or {}, where=f"{self.kind} '{name}'")

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        importlib.import_module(self.package)
        for point in entry_points(group=f"trueread.{self.plural}"):
            try:
                point.load()
            except Exception as error:
                self._loaded = False  # or the next question would be answered without the plug-in, and not say so
                raise TruereadError(
                    f"the plug-in '{point.name}' ({point.value}) for trueread.{self.plural} cannot be imported "
                    f"({error}); "
                    "mend or uninstall it."
                ) from error


def _home(factory: Any) -> tuple[str, str]:
    return factory.__module__, factory.__qualname__
