"""Frozen dataclass trees out of plain values, and back.

Values are checked strictly: no text becomes a number and no number a truth value. All problems are told at once,
each with its full key.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ccfexp.errors import ConfigError, did_you_mean

__all__ = ["build", "known_keys", "to_dict", "type_name"]

T = TypeVar("T")

_REQUIRED = "???"  # how a YAML file says that a value must be given
_FAILED: Any = object()  # the place of a value that could not be read; its problem is already noted


def build(schema: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass, with all dataclasses below it, from plain values.

    Args:
        schema: a dataclass whose fields are bool, int, float, str, None, enumerations, literals, tuples, mappings of
            str, unions of these, or dataclasses.
        values: as read from YAML or JSON: mappings, sequences and scalars.

    Raises:
        ConfigError: listing every unknown key, missing key and value of a wrong type; or, where all are of the right
            type, the first value that its dataclass refuses.
    """
    problems: list[str] = []
    result = _read_dataclass(schema, values, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return cast("T", result)


def to_dict(config: object) -> dict[str, Any]:
    """Return a configuration as mappings, lists and scalars that JSON can express; `build` reads it back."""
    plain = _plain(config)
    if not isinstance(plain, dict):
        raise TypeError(f"config must be a dataclass or a mapping, not {type(config).__name__}")
    return plain


def known_keys(schema: object) -> tuple[str, ...] | None:
    """Return the keys below a type, or None where any key may stand (a mapping) or none can (a scalar)."""
    for option in _options(schema):
        if is_dataclass(option):
            return tuple(field.name for field in fields(option) if field.init)
    return None


def type_name(schema: object) -> str:
    """Return a type as a person would write it, for messages."""
    options = _options(schema)
    if len(options) > 1:
        return " or ".join(type_name(option) for option in options)
    if get_origin(schema) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(schema))
    if schema is type(None):
        return "null"
    if isinstance(schema, type) and issubclass(schema, Enum):
        return "one of " + ", ".join(str(member.value) for member in schema)
    if get_origin(schema) is tuple:
        items = get_args(schema)
        if len(items) == 2 and items[1] is Ellipsis:
            return f"list of {type_name(items[0])}"
        return "[" + ", ".join(type_name(item) for item in items) + "]"
    return getattr(schema, "__name__", str(schema))


def _options(schema: object) -> tuple[object, ...]:
    """Return the members of a union, or the type itself."""
    return get_args(schema) if get_origin(schema) in (Union, types.UnionType) else (schema,)


def _read(schema: Any, value: Any, key: str, problems: list[str]) -> Any:
    """Read one value of any supported type; on failure note the problem and return `_FAILED`."""
    if isinstance(value, str) and value == _REQUIRED:
        problems.append(f"{key} is missing: expected {type_name(schema)}; give {key}=VALUE.")
        return _FAILED
    options = _options(schema)
    if len(options) > 1:
        return _read_union(options, value, key, problems)
    origin = get_origin(schema)
    if is_dataclass(schema):
        return _read_dataclass(cast("type", schema), value, key, problems)
    if origin is tuple:
        return _read_tuple(schema, value, key, problems)
    if origin in (dict, Mapping):
        return _read_mapping(schema, value, key, problems)
    return _read_scalar(schema, value, key, problems)


def _read_dataclass(schema: type, values: Any, key: str, problems: list[str]) -> Any:
    """Read a mapping into a dataclass."""
    if not isinstance(values, Mapping):
        return _refuse(schema, values, key, problems)
    before = len(problems)
    hints = get_type_hints(schema)
    known = {field.name: field for field in fields(schema) if field.init}
    for name in values:
        if name not in known:
            problems.append(f"Unknown key {_join(key, name)}.{_suggest(key, str(name), known)}")
    arguments = {}
    for name, field in known.items():
        if name in values:
            arguments[name] = _read(hints[name], values[name], _join(key, name), problems)
        elif _is_required(field):
            full = _join(key, name)
            problems.append(f"{full} is missing: expected {type_name(hints[name])}; give {full}=VALUE.")
    if len(problems) > before:
        return _FAILED
    try:
        return schema(**arguments)
    except ConfigError as error:
        message = str(error)
        named = not key or message.startswith((f"{key}.", f"{key}["))  # a part may know its own key
        problems.append(message if named else f"{key}: {message}")
        return _FAILED


def _read_union(options: tuple[object, ...], value: Any, key: str, problems: list[str]) -> Any:
    """Read a value as the first member of a union that accepts it."""
    attempts: list[list[str]] = []
    for option in options:
        attempt: list[str] = []
        result = _read(option, value, key, attempt)
        if not attempt:
            return result
        attempts.append(attempt)
    if isinstance(value, Mapping):  # the deepest member explains best what is wrong inside a mapping
        problems += next(
            (attempt for option, attempt in zip(options, attempts, strict=True) if is_dataclass(option)), attempts[0]
        )
        return _FAILED
    return _refuse(cast("object", Union[options]), value, key, problems)  # noqa: UP007 -- options known at run time


def _read_tuple(schema: Any, value: Any, key: str, problems: list[str]) -> Any:
    """Read a list into a tuple of fixed or free length."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _refuse(schema, value, key, problems)
    items = get_args(schema)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    elif len(items) != len(value):
        problems.append(f"{key} has {len(value)} entries, expected {len(items)}: {type_name(schema)}.")
        return _FAILED
    return tuple(
        _read(item, entry, f"{key}[{index}]", problems)
        for index, (item, entry) in enumerate(zip(items, value, strict=True))
    )


def _read_mapping(schema: Any, value: Any, key: str, problems: list[str]) -> Any:
    """Read a mapping from text to one type."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return _refuse(schema, value, key, problems)
    return {name: _read(get_args(schema)[1], entry, _join(key, name), problems) for name, entry in value.items()}


def _read_scalar(schema: Any, value: Any, key: str, problems: list[str]) -> Any:
    """Read a truth value, number, text, null, enumeration or literal."""
    choices = _choices(schema)
    if choices is not None:
        for text, choice in choices.items():
            if type(text) is type(value) and text == value:
                return choice
        return _refuse(schema, value, key, problems, did_you_mean(str(value), [str(text) for text in choices]))
    if schema not in (bool, int, float, str, type(None)):
        raise TypeError(f"{key} has the unsupported type {schema!r}")
    if schema is float and type(value) is int:
        return float(value)
    # type() and not isinstance(): a truth value is an int in Python, and no number here.
    if type(value) is not schema:
        return _refuse(schema, value, key, problems)
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{key}={value} is not finite; give a number.")
        return _FAILED
    return value


def _choices(schema: Any) -> dict[object, object] | None:
    """Return what may be written for an enumeration or a literal and what it means; None for other types."""
    if isinstance(schema, type) and issubclass(schema, Enum):
        return {member.value: member for member in schema}
    if get_origin(schema) is Literal:
        return {choice: choice for choice in get_args(schema)}
    return None


def _refuse(schema: object, value: object, key: str, problems: list[str], hint: str = "") -> Any:
    """Note that a value is of a wrong type."""
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    kind = "mapping" if isinstance(value, Mapping) else "null" if value is None else type(value).__name__
    problems.append(f"{key or 'configuration'}={shown} is {kind}, expected {type_name(schema)}.{hint}")
    return _FAILED


def _suggest(parent: str, name: str, known: Mapping[str, object]) -> str:
    """Return the suggestion for an unknown key, or the list of known ones."""
    suggestion = did_you_mean(name, known)
    return suggestion or f" Known in {parent or 'the configuration'}: {', '.join(known)}."


def _join(parent: str, name: object) -> str:
    return f"{parent}.{name}" if parent else str(name)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(value: object) -> Any:
    """Return a value as JSON can express it."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value
