"""Convert values from YAML, a command line or Python to the types of options, and describe these types."""

import json
import os
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin


def convert(kind: Any, value: Any) -> Any:
    """Return `value` as `kind`: int, float, bool, str, Path or Literal, a tuple or a dict of these, or any or None.

    The values of a dict are of any type for `dict[str, Any]`, else labels: texts, lists of texts or none. Numbers and
    truth values may be given as text. Raises `ValueError` where the value is not of that kind.
    """
    if isinstance(kind, types.UnionType):
        wanted = [k for k in get_args(kind) if k is not type(None)]
        return None if value is None else convert(wanted[0], value)
    if get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(convert(get_args(kind)[0], item) for item in items)
    if get_origin(kind) is dict:
        return _mapping(get_args(kind)[1], value)
    if get_origin(kind) is Literal:
        return _one_of(value, get_args(kind))
    return _SCALARS[kind](value)


def _mapping(kind: Any, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(value)
    inner = _untyped if kind is Any else _labels
    return {_label(k): inner(v) for k, v in value.items()}


def _label(value: Any) -> str:
    """Return the name of a label; YAML reads `0` as a number, which is taken back, and `no` as false, which is not."""
    return _text(str(value) if type(value) is int else value)


def _labels(value: Any) -> str | list[str] | None:
    if isinstance(value, (list, tuple)):
        return [_label(v) for v in value]
    return None if value is None else _label(value)


def _untyped(value: Any) -> Any:
    """Return a value of any type; text that is a number, truth value or list in JSON becomes that."""
    if isinstance(value, dict):
        return {str(k): _untyped(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_untyped(v) for v in value]
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    if isinstance(value, bool) and value not in choices:
        value = str(value).lower()  # YAML's and Python's true for the text "true"
    if value not in choices:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(value)
    return float(value)


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(value)
    return int(value)


def _to_bool(value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    return words[_one_of(_text(value).lower(), tuple(words))]


_SCALARS = {
    int: _to_int,
    float: _number,
    bool: _to_bool,
    str: _text,
    Path: lambda value: Path(_text(value)),
}


def describe_type(kind: Any) -> str:
    """Return a type in words: ``one of error, drop``, ``a number``."""
    if isinstance(kind, types.UnionType):
        return " or ".join(describe_type(k) for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is tuple:
        if get_origin(get_args(kind)[0]) is dict:
            return "a list of mappings of names to values"
        return f"a list of {describe_type(get_args(kind)[0]).removeprefix('a ')}s"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(kind))
    if get_origin(kind) is dict and get_args(kind)[1] is not Any:
        return "a mapping of names to names (with words such as 'yes' and 'no' in quotes)"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    return words.get(kind, "a mapping of names to values")
