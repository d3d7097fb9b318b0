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


def validate(model: type[M], values: Mapping[str, Any], *, where: str) -> M:
    """`values` as an instance of the pydantic `model`. Errors name the key, what was found and the nearest known key.

    where: how the sentence begins, for example "studies/a.yaml" or "method 'focal'".
    Raises InputError.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: {_sentence(error, model)}") from None


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


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error in plain words; further ones are counted."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [str(p) for p in first["loc"] if not _is_alternative(str(p))]
    key = ".".join(path)
    more = f" ({len(problems) - 1} more like it.)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        listing = f" Known here: {', '.join(known)}." if known else ""
        return f"'{key}' is not an option here.{nearest(path[-1], known)}{listing}{more}"
    if first["type"] == "missing":
        return f"'{key}' is missing; give it a value.{more}"
    if first["type"] == "value_error":
        return f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ').rstrip('.')}.{more}"
    expected = first["msg"].partition(" should ")[2] or first["msg"]  # "Input should be ...", "String should match ..."
    return f"'{key}' must {expected}; found {_SHORT.repr(first['input'])}.{more}"


def _is_alternative(part: str) -> bool:
    """True for a part of an error's location that names a type of a union, not a key."""
    return part in ("str", "int", "float", "bool", "dict") or part.startswith(
        ("function-", "tagged-union", "list[", "union[", "dict[", "literal[", "constrained-")
    )


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that are allowed at `path` inside `model`, following nested models where the annotation shows them."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        nested = [a for a in (field.annotation, *typing.get_args(field.annotation)) if inspect.isclass(a)]
        current = next((a for a in nested if issubclass(a, BaseModel)), None)
        if current is None:
            return []
    return list(current.model_fields)
