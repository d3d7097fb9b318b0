"""Typed options: from what a person wrote (YAML, flags, keywords) to checked values, or one clear sentence."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from trueread.errors import InputError, nearest

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_SHORT = Repr()  # what was found may be a whole document
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def validate(model: type[M], values: Mapping[str, Any], *, where: str, advice: str = "") -> M:
    """`values` as an instance of the pydantic `model`. Errors name the key, what was found and the nearest known key.

    where: how the sentence begins, for example "studies/a.yaml" or "method 'focal'". advice: a last sentence that says
    what to do, where mending the value by hand is not it.
    Raises InputError.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: {_sentence(error, model, advice)}") from None


def check(factory: Callable[..., Any], values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """`values` checked and coerced against the annotations of the keyword-only parameters of `factory`.

    An option that the factory does not take, or a value of the wrong type or range, is an InputError that names it.
    """
    checked = validate(_model_of(factory), values, where=where)
    return {name: getattr(checked, name) for name in checked.model_fields_set}


def build(factory: Callable[..., T], values: Mapping[str, Any], *, where: str) -> T:
    """Call `factory` with `values` as keyword options, checked first (see `check`)."""
    return factory(**check(factory, values, where=where))


@lru_cache(maxsize=256)
def _model_of(factory: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model of the keyword-only parameters of `factory`, cached because studies build many of a kind."""
    target = factory.__init__ if inspect.isclass(factory) else factory
    hints = typing.get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=False)
    return create_model(f"{factory.__name__}_options", __config__=config, **fields)


def option_names(factory: Callable[..., Any]) -> list[str]:
    """The names of the keyword options that `factory` takes."""
    return list(_model_of(factory).model_fields)


def _sentence(error: ValidationError, model: type[BaseModel], advice: str = "") -> str:
    """The first problem of a pydantic error in plain words and what to do; those of other keys are counted."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = _path(first)
    key = ".".join(path)
    others = len({tuple(_path(p)) for p in problems} - {tuple(path)})  # a union complains once for each alternative
    more = f" (and {others} more like it)" if others else ""
    known = _known_keys(model, path[:-1])
    if first["type"] == "extra_forbidden":
        hint = advice or nearest(path[-1], known).strip() or "Leave it out."
        listing = f" Known here: {', '.join(known)}." if known else ""
        return f"'{key}' is not an option here{more}. {hint}{listing}"
    if first["type"] == "missing":
        return f"'{key}' is missing{more}{f'. {advice}' if advice else '; give it a value.'}"
    if first["type"] == "invalid_key":
        return f"the key {_short(first['input'])} must be text{more}. Put it in quotes, or leave it out."
    if first["type"] == "value_error":
        said = f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ').rstrip('.')}{more}."
        return f"{said} {advice}".rstrip()
    expected = first["msg"].partition(" should ")[2] or first["msg"]  # "Input should be ...", "String should match ..."
    quotes = first["type"] == "string_type" and isinstance(first["input"], (bool, int, float))
    what_to_do = advice or ("Put it in quotes." if quotes else "Change it" + _or_leave_out(model, path))
    return f"'{key}' must {expected}; found {_short(first['input'])}{more}. {what_to_do}"


def _short(value: Any) -> str:
    """What was found, in at most a line."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to write out numbers of more than 4300 digits
        return "a number of thousands of digits"


def _path(problem: Any) -> list[str]:
    """The keys that lead to a problem; an unknown one may be called like a type."""
    *parts, last = [str(p) for p in problem["loc"]] or [""]
    unknown = problem["type"] in ("extra_forbidden", "missing")
    return [p for p in parts if not _is_alternative(p)] + [last] * (unknown or not _is_alternative(last))


def _or_leave_out(model: type[BaseModel], path: list[str]) -> str:
    """ ", or leave it out for 12." with the default of the option at `path`; "." when it has none to show."""
    field = _fields(model, path[:-1]).get(path[-1]) if path else None
    if field is None or field.is_required() or field.default_factory is not None:
        return "."
    if field.default is None:
        return ", or leave it out."
    return f", or leave it out for {field.default!r}." if isinstance(field.default, (str, int, float)) else "."


def _is_alternative(part: str) -> bool:
    """True for a part of an error's location that names a type of a union, not a key."""
    return part in ("str", "int", "float", "bool", "dict") or part.startswith(
        ("function-", "tagged-union", "list[", "union[", "dict[", "literal[", "constrained-")
    )


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that are allowed at `path` inside `model`."""
    return list(_fields(model, path))


def _fields(model: type[BaseModel], path: list[str]) -> dict[str, Any]:
    """The fields at `path` inside `model`, following nested models where the annotation shows them; {} elsewhere."""
    current: Any = model
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            return {}
        nested = [a for a in (field.annotation, *typing.get_args(field.annotation)) if inspect.isclass(a)]
        current = next((a for a in nested if issubclass(a, BaseModel)), None)
        if current is None:
            return {}
    return dict(current.model_fields)
