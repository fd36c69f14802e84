"""Declare the options of a command; build configs from flags, YAML and Python; validate and print them.

The config of a command is a frozen dataclass. A field whose type is itself a config dataclass is a group: its options
are options of the command like any other, so it is ``--seed`` and ``distill(seed=…)``, not ``--training.seed``. Option
names are therefore unique within a command (a test checks it). YAML files hold the same names, with dashes or
underscores. Other names that are accepted for an option are in `config.aliases`.
"""

import functools
import inspect
import math
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from demiglace.config.aliases import canonical_values, unknown_option
from demiglace.config.coerce import convert, describe_type
from demiglace.config.yaml_file import load_yaml
from demiglace.errors import ConfigError, UsageError, UserError, disk_error
from demiglace.interpreters import safe_children
from demiglace.notices import collecting

C = TypeVar("C")
R = TypeVar("R")
_SHOWN = 200  # characters of a wrong value in a message


LARGEST_SEED = 2**32 - 1  # that NumPy takes


def option(
    help: str,
    default: Any = MISSING,
    *,
    positional: bool = False,
    short: str | None = None,
    decides: bool = True,
    whole: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    section: str | None = None,
    common: bool = False,
) -> Any:
    """Return a field of a config.

    help: its text in `--help`; default: required without one; positional: given as a word without a flag; short: a
    second flag of one letter; decides: false for options that do not change the result (where to write, how often to
    save), so that runs which differ only in those are the same run; whole: for lists of texts, that commas separate no
    items; at_least, at_most, above, below: bounds of a number, or of each number of a list; section: its heading in
    `--help`, without one that of its config (`SECTION`); common: whether `--help` lists it among the options that most
    people need.
    """
    meta: dict[str, Any] = {"help": help, "positional": positional, "short": short, "decides": decides, "whole": whole}
    meta |= {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    meta |= {"section": section, "common": common}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


def python_option(help: str, default: Any, check: Callable[[Any], None]) -> Any:
    """Return a field of a config that only a Python call can give: no flag, not in YAML, not in a run's identity.

    check: raises `ConfigError` for a wrong value.
    """
    return field(default=default, metadata={"help": help, "python": check})


def group(config_class: Any, **defaults: Any) -> Any:
    """Return a field of a config that takes in all options of another config, some of them with other defaults."""
    return field(default_factory=lambda: config_class(**defaults), metadata={"defaults": defaults})


@dataclass(frozen=True)
class Option:
    """One option of a command, as `options_of` lists it."""

    name: str
    type: Any
    default: Any
    help: str
    positional: bool
    short: str | None
    decides: bool
    whole: bool
    at_least: float | None
    at_most: float | None
    above: float | None
    below: float | None
    section: str
    common: bool

    @property
    def flag(self) -> str:
        """Return its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Return whether it has no default."""
        return self.default is MISSING

    @property
    def repeated(self) -> bool:
        """Return whether it takes several values."""
        return any(get_origin(kind) is tuple for kind in self._kinds)

    @property
    def mapping(self) -> bool:
        """Return whether its value is a mapping of names to values."""
        return any(get_origin(kind) is dict for kind in self._kinds)

    @property
    def optional(self) -> bool:
        """Return whether it may be none."""
        return type(None) in self._kinds

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return get_args(self.type) if isinstance(self.type, types.UnionType) else (self.type,)

    @property
    def expected(self) -> str:
        """Return its values in words: ``a number, at least 0 and below 1``."""
        bounds = (
            ("at least", self.at_least),
            ("at most", self.at_most),
            ("above", self.above),
            ("below", self.below),
        )
        words = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return f"{describe_type(self.type)}, {words}" if words else describe_type(self.type)

    def accepts(self, value: Any) -> bool:
        """Return whether a number, or each of a list, is finite and within bounds; true for other values."""
        each = value if isinstance(value, (list, tuple)) else [value]
        return all(self._in_bounds(v) for v in each if isinstance(v, (int, float)))

    def _in_bounds(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def options_of(config_class: Any) -> tuple[Option, ...]:
    """Return all options of a config, those of its groups included, positional and required ones first."""
    return _options_of(config_class)


@functools.cache  # a comparison builds hundreds of configs
def _options_of(config_class: Any) -> tuple[Option, ...]:
    found = list(_leaves(config_class))
    names = [o.name for o in found]
    assert len(set(names)) == len(names), f"{config_class.__name__} has an option twice: {names}"
    return tuple(sorted(found, key=lambda o: (not o.positional, not o.required)))


_type_hints = functools.cache(get_type_hints)


def _leaves(config_class: Any) -> Iterator[Option]:
    hints = _type_hints(config_class)
    for f in fields(config_class):
        if is_dataclass(hints[f.name]):
            defaults = f.metadata.get("defaults", {})
            yield from (replace(o, default=defaults.get(o.name, o.default)) for o in _leaves(hints[f.name]))
        elif not f.metadata.get("python"):
            section = f.metadata["section"] or getattr(config_class, "SECTION", "options")
            yield Option(name=f.name, type=hints[f.name], default=_default(f), **{**f.metadata, "section": section})


def _python_options(config_class: Any) -> dict[str, Field]:
    """Return the fields that only a Python call can give, by name, those of groups included."""
    hints = _type_hints(config_class)
    own = {f.name: f for f in fields(config_class) if f.metadata.get("python")}
    groups = [hints[f.name] for f in fields(config_class) if is_dataclass(hints[f.name])]
    return own | {name: f for kind in groups for name, f in _python_options(kind).items()}


def _default(f: Field) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def flatten(config: Any, *, result_options_only: bool = False) -> dict[str, Any]:
    """Return the options of a config by name, groups flattened; `result_options_only`: those that decide the result."""
    flat: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            flat |= flatten(value, result_options_only=result_options_only)
        elif not f.metadata.get("python") and (f.metadata["decides"] or not result_options_only):
            flat[f.name] = list(value) if isinstance(value, tuple) else value
    return flat


def build(config_class: type[C], values: Mapping[str, Any]) -> C:
    """Return a validated config from option values by name, or by an alias of `config.aliases`.

    Raises `ConfigError` for unknown and missing options, and for values of the wrong type or out of range.
    """
    options = options_of(config_class)
    names, objects = [o.name for o in options], _python_options(config_class)
    values = canonical_values(values, names)
    for name in values:
        if name not in names and name not in objects:
            raise UsageError(unknown_option(name, names), name)
    missing = [o for o in options if o.required and values.get(o.name) in (None, [], ())]
    if missing:
        words = (o.name.upper() if o.positional else o.flag for o in missing)
        raise UsageError(f"{', '.join(words)} must be given.")
    given = {name: values.get(name, f.default) for name, f in objects.items()}
    for name, value in given.items():
        objects[name].metadata["python"](value)
    config = _construct(config_class, {o.name: _coerce(o, values) for o in options} | given)
    check(config)
    return config


def check(config: Any) -> None:
    """Raise `ConfigError` if a number of the config is outside of its option's bounds."""
    values = flatten(config)
    for o in options_of(type(config)):
        if not o.accepts(values[o.name]):
            raise ConfigError(_invalid_value_message(o, values[o.name]))


def _coerce(o: Option, values: Mapping[str, Any]) -> Any:
    if o.name not in values or (values[o.name] is None and o.default is None):
        return copy(o.default)  # a mapping or a list is the config's alone
    try:
        return convert(o.type, values[o.name])
    except (ValueError, OverflowError) as error:
        raise ConfigError(_invalid_value_message(o, values[o.name])) from error


def _invalid_value_message(o: Option, value: Any) -> str:
    return f"{o.flag} was given {_shown(value)}; expected {o.expected} ({o.help})."


def _shown(value: Any) -> str:
    """Return a value as a message shows it; an object of a library by its type, since its own text may be long."""
    plain = isinstance(value, (str, int, float, list, tuple, dict, os.PathLike, type(None)))
    text = repr(value) if plain else f"an object of the type {type(value).__module__}.{type(value).__qualname__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _construct(config_class: type[C], flat: Mapping[str, Any]) -> C:
    kind: Any = config_class  # mypy considers it unhashable
    hints = _type_hints(kind)
    made = {
        f.name: _construct(hints[f.name], flat) if is_dataclass(hints[f.name]) else flat[f.name]
        for f in fields(config_class)  # type: ignore[arg-type]
    }
    return config_class(**made)


def read_yaml(file: Path | str) -> dict[str, Any]:
    """Return the mapping in a YAML file, its keys as texts. Raises `ConfigError` where it cannot be read."""
    content = load_yaml(file)
    if content is None:  # an empty file, or comments alone
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping of names to values.")
    return {str(k): v for k, v in content.items()}


def print_yaml(config: Any) -> None:
    """Print the resolved config as YAML that `--config` reads back to an equal one."""
    import yaml

    values = flatten(config)
    plain = {o.name: _plain(values[o.name]) for o in options_of(type(config))}
    yaml.safe_dump(plain, sys.stdout, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Return texts for paths, which YAML does not know."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def command(
    config_class: type[C],
    *,
    objects: Callable[[Mapping[str, Any]], AbstractContextManager[Mapping[str, Any]]] = nullcontext,
    **prepare: Callable[[Any], Any],
) -> Callable[[Callable[[C], R]], Callable[..., R]]:
    """Let a command, a function of its config, also be called with the config's options as keyword arguments.

    ``distill(DistillConfig(…))`` and ``distill(teacher=…, data=…)`` are the same call; help() shows the options. The
    command's first option, a model or a source, can be given without its name: ``evaluate("runs/student")``.
    Processes that a command starts import nothing from the current directory.

    objects: turns keyword arguments with objects, such as models and data frames, into options; they hold inside.
    prepare: by name of an option, a function that turns an object given from Python into the option's value.
    """
    first, names = _first_option(config_class), [o.name for o in options_of(config_class)]
    takes_objects = objects is not nullcontext

    def wrap(function: Callable[[C], R]) -> Callable[..., R]:
        def run(config: C) -> R:
            with safe_children(), collecting():
                try:
                    return function(config)
                except UserError:
                    raise
                except Exception as error:
                    if (reason := disk_error(error)) is None:
                        raise
                    raise reason from error

        @functools.wraps(function)
        def call(config: Any = None, /, **options: Any) -> R:
            is_object = takes_objects and config is not None and not is_dataclass(config)
            if first is not None and (is_object or isinstance(config, (str, os.PathLike, list, tuple))):
                if first in options:
                    raise ConfigError(f"{function.__name__}(): {first} was given twice, first without its name.")
                config, options = None, {first: config, **options}
            if config is None:
                with objects(canonical_values(options, names)) as values:
                    given = {name: prepare[name](value) if name in prepare else value for name, value in values.items()}
                    return run(build(config_class, given))
            if options or not isinstance(config, config_class):
                raise ConfigError(
                    f"{function.__name__}() takes its options as keyword arguments, or one {config_class.__name__}."
                )
            changed: Any = {name: make(getattr(config, name)) for name, make in prepare.items()}
            config = replace(config, **changed) if changed else config  # type: ignore[type-var]
            check(config)
            return run(config)

        call.__signature__ = _signature(config_class, function)  # type: ignore[attr-defined]
        return call

    return wrap


def _first_option(config_class: type) -> str | None:
    """Return the option that a Python call may give without its name.

    It is the first one, unless that is optional or where to write.
    """
    o = next(iter(options_of(config_class)), None)
    return o.name if o and (o.positional or (o.required and o.section != "output")) else None


def _signature(config_class: type, function: Callable[..., Any]) -> inspect.Signature:
    first, empty = _first_option(config_class), inspect.Parameter.empty
    kinds = {first: inspect.Parameter.POSITIONAL_OR_KEYWORD}
    parameters = [
        inspect.Parameter(
            o.name,
            kinds.get(o.name, inspect.Parameter.KEYWORD_ONLY),
            default=empty if o.required else o.default,
            annotation=o.type,
        )
        for o in options_of(config_class)
    ]
    only = inspect.Parameter.KEYWORD_ONLY
    parameters += [
        inspect.Parameter(name, only, default=f.default) for name, f in _python_options(config_class).items()
    ]
    result = get_type_hints(function).get("return", empty)
    return inspect.Signature(parameters, return_annotation=result)
