"""Configs: declaring options, reading them from flags, YAML and Python, validating and printing them.

The config of a command is a frozen dataclass. A field whose type is itself a config dataclass is a group: its options
are options of the command like any other, so it is ``--lr`` and ``distill(lr=…)``, not ``--training.lr``. Option names
are therefore unique within a command (a test checks it). YAML files hold the same names, with dashes or underscores.
"""

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from demiglace.errors import ConfigError, unknown

C = TypeVar("C")
R = TypeVar("R")


def option(
    help: str,
    default: Any = MISSING,
    *,
    positional: bool = False,
    short: str | None = None,
    decides: bool = True,
) -> Any:
    """A field of a config: its help text, its default (none = required) and how it is given on the command line.

    `decides=False` marks options that do not change the result (where to write, how often to save); runs that
    differ only in those are the same run.
    """
    meta = {"help": help, "positional": positional, "short": short, "decides": decides}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


def group(config_class: Any) -> Any:
    """A field of a config that takes in all options of another config."""
    return field(default_factory=config_class)


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

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is MISSING

    @property
    def repeated(self) -> bool:
        """Whether it takes several values."""
        kinds = get_args(self.type) if isinstance(self.type, types.UnionType) else (self.type,)
        return any(get_origin(kind) is tuple for kind in kinds)


def options_of(config_class: type) -> list[Option]:
    """All options of a config, those of its groups included, required and positional ones first."""
    found = list(_leaves(config_class))
    names = [o.name for o in found]
    assert len(set(names)) == len(names), f"{config_class.__name__} has an option twice: {names}"
    return sorted(found, key=lambda o: (not o.positional, not o.required))


def _leaves(config_class: type) -> Iterator[Option]:
    hints = get_type_hints(config_class)
    for f in fields(config_class):
        if is_dataclass(hints[f.name]):
            yield from _leaves(hints[f.name])
        else:
            yield Option(name=f.name, type=hints[f.name], default=_default(f), **f.metadata)


def _default(f: Field) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def flatten(config: Any, *, deciding_only: bool = False) -> dict[str, Any]:
    """The options of a config by name, groups taken in; with `deciding_only` just those that decide the result."""
    flat: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            flat |= flatten(value, deciding_only=deciding_only)
        elif f.metadata["decides"] or not deciding_only:
            flat[f.name] = list(value) if isinstance(value, tuple) else value
    return flat


def build(config_class: type[C], values: Mapping[str, Any]) -> C:
    """A validated config from option values by name. Raises `ConfigError` for unknown, missing or ill-typed ones."""
    options = options_of(config_class)
    values = {k.replace("-", "_"): v for k, v in values.items()}
    _check_names(values, options, "option")
    missing = [o.flag for o in options if o.required and values.get(o.name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given.")
    return _construct(config_class, _typed(options, values))


def _typed(options: Sequence[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    for o in options:
        parser.add_argument(f"--{o.name}", type=o.type, default=None if o.required else o.default)
    given = {o.name: _plain(values[o.name], o) for o in options if o.name in values}
    try:
        parsed = parser.parse_object(given)
    except Exception as error:  # jsonargparse raises argparse's and its own kinds
        raise ConfigError(_readable(str(error), options, values)) from error
    return {o.name: values[o.name] if _is_object(values.get(o.name)) else parsed[o.name] for o in options}


def _plain(value: Any, o: Option) -> Any:
    """Lists for tuples, strings for paths: what YAML would hold."""
    if isinstance(value, Path):
        value = str(value)
    if o.repeated and value is not None:
        items = [value] if isinstance(value, str) or not isinstance(value, (list, tuple)) else value
        return [str(v) if isinstance(v, Path) else v for v in items]
    return value


def _is_object(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _readable(message: str, options: Sequence[Option], values: Mapping[str, Any]) -> str:
    """jsonargparse's message in our words: the flag, what was given, what was expected."""
    for o in options:
        if f'key "{o.name}' in message:
            expected = describe_type(o.type)
            return f"{o.flag} was given {values.get(o.name)!r}; expected {expected} ({o.help})."
    return message


def describe_type(kind: Any) -> str:
    """A type in a user's words: ``one of error, drop``, ``a number``."""
    if isinstance(kind, types.UnionType):
        return " or ".join(describe_type(k) for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is tuple:
        return f"a list of {describe_type(get_args(kind)[0]).removeprefix('a ')}s"
    if str(kind).startswith("typing.Literal"):
        return "one of " + ", ".join(str(a) for a in get_args(kind))
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    return words.get(kind, "a mapping of names to values")


def _check_names(values: Mapping[str, Any], options: Sequence[Option], kind: str) -> None:
    names = [o.name for o in options]
    for name in values:
        if name not in names:
            raise ConfigError(unknown(kind, name, names))


def _construct(config_class: type[C], flat: Mapping[str, Any]) -> C:
    hints = get_type_hints(config_class)
    made = {
        f.name: _construct(hints[f.name], flat) if is_dataclass(hints[f.name]) else flat[f.name]
        for f in fields(config_class)  # type: ignore[arg-type]
    }
    return config_class(**made)


def read_yaml(file: Path | str) -> dict[str, Any]:
    """The mapping in a YAML config file; `ConfigError` where it cannot be read."""
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {file} could not be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {file} must hold a mapping of option names to values.")
    return {str(k).replace("-", "_"): v for k, v in content.items()}


def print_yaml(config: Any) -> None:
    """Print the resolved config as YAML that `--config` reads back to an equal one."""
    import yaml

    plain = {k: str(v) if isinstance(v, Path) else v for k, v in flatten(config).items()}
    yaml.safe_dump(plain, sys.stdout, sort_keys=False, allow_unicode=True)


def command(config_class: type[C]) -> Callable[[Callable[[C], R]], Callable[..., R]]:
    """Let a stage, a function of its config, also be called with the config's options as keyword arguments.

    ``distill(DistillConfig(…))`` and ``distill(teacher=…, data=…)`` are the same call; help() shows the options.
    """

    def wrap(function: Callable[[C], R]) -> Callable[..., R]:
        @functools.wraps(function)
        def call(config: C | None = None, /, **options: Any) -> R:
            return function(build(config_class, options) if config is None else config)

        call.__signature__ = _signature(config_class, function)  # type: ignore[attr-defined]
        return call

    return wrap


def _signature(config_class: type, function: Callable[..., Any]) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    empty = inspect.Parameter.empty
    parameters = [
        inspect.Parameter(o.name, kind, default=empty if o.required else o.default, annotation=o.type)
        for o in options_of(config_class)
    ]
    result = get_type_hints(function).get("return", empty)
    return inspect.Signature(parameters, return_annotation=result)
