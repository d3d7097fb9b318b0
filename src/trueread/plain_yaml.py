"""YAML as plain values, for files and options that people write; whatever else the text says is a YAMLError."""

from __future__ import annotations

from typing import Any

import yaml

DEEPEST = 20  # levels of nesting; Python gives up near a thousand, with a traceback


def load_plain(text: str) -> Any:
    """The mapping, list, text, number, truth value or None that YAML text stands for. A date stays text.

    Raises YAMLError, and nothing else, for text that is no YAML, and for what `_PlainLoader` refuses.
    """
    return yaml.load(text, Loader=_PlainLoader)


def problem_of(error: yaml.YAMLError) -> str:
    """What is wrong and where, as the end of a sentence: "'seeds' is given twice (line 3, column 1)"."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    told = [part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
    said = (", ".join(told) or str(error)).partition("\n")[0][:200].rstrip(".")
    return f"{said} (line {mark.line + 1}, column {mark.column + 1})" if mark else said


class _PlainLoader(yaml.SafeLoader):
    """Plain values, each written once: of a key given twice one would be lost, aliases let a few lines stand for
    gigabytes, and nesting without end ends Python's stack.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*) are not read; write the value out", problem_mark=mark)
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"values are nested more than {DEEPEST} deep", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep=deep)
            if isinstance(made, str):
                made.encode()  # the escape "\ud800" is half a character: no report could be written that holds it
                if "\0" in made:
                    raise ValueError("a zero byte cannot stand in text")
            return made
        except yaml.YAMLError:
            raise
        except Exception as error:  # `0x_`, `!!bool maybe` and a number of 5000 digits fail in ways of their own
            kind = node.tag.rpartition(":")[2]
            said = str(error) if isinstance(error, ValueError) else type(error).__name__
            raise yaml.MarkedYAMLError(problem=f"this is no {kind}: {said}", problem_mark=node.start_mark) from None

    def as_text(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_scalar(node))

    def refuse(self, node: yaml.Node) -> None:
        kind = node.tag.rpartition(":")[2]
        raise yaml.MarkedYAMLError(problem=f"values of the kind '{kind}' are not read", problem_mark=node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[str] = set()
        for key in (k for k, _ in node.value if isinstance(k, yaml.ScalarNode)):
            if key.value in given:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is given twice", problem_mark=key.start_mark)
            given.add(key.value)
        return super().construct_mapping(node, deep)


_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _PlainLoader.as_text)
for _kind in ("binary", "omap", "pairs", "set"):  # nothing takes them, and a saved study could not hold them
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _PlainLoader.refuse)
