"""Parse the words of a command line into option values by name, as texts; `config.options.build` converts them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from demiglace.config.aliases import ALIASES, SWITCHES, TRANSLATED, canonical_values, unknown_option
from demiglace.config.options import Option, read_yaml
from demiglace.errors import ConfigError, UsageError


def parse(words: Sequence[str], options: Sequence[Option]) -> dict[str, Any]:
    """Return option values from the words after the command; flags override `--config` files, in any order.

    Raises `ConfigError` for options that do not exist, in a file or as a flag, and for flags without a value.
    """
    files, rest = _take_files(words)
    values: dict[str, Any] = {}
    for file in files:
        values |= _read(file, options)
    given = _given(rest, options, values)
    return values | canonical_values(given, [o.name for o in options], values)


def _take_files(words: Sequence[str]) -> tuple[list[str], list[str]]:
    files, rest, left = [], [], list(words)
    while left:
        word = left.pop(0)
        if word == "--config":
            files.append(_next(left, word))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    return files, rest


def _read(file: str, options: Sequence[Option]) -> dict[str, Any]:
    try:
        content = read_yaml(file)
    except ConfigError as error:
        raise ConfigError(f"--config {error}") from error
    names = [o.name for o in options]
    try:
        values = canonical_values(content, names)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    for name in values:
        if name not in names:
            raise UsageError(f"{file}: {unknown_option(name, names)}", name)
    return values


def _given(words: list[str], options: Sequence[Option], below: Mapping[str, Any]) -> dict[str, Any]:
    flags = {o.flag: o for o in options} | {o.short: o for o in options if o.short}
    flags = {_flag(alias): flags[_flag(name)] for alias, name in ALIASES.items() if _flag(name) in flags} | flags
    values: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if _is_flag(word):
            _consume_flag(word, words, flags, values, below)
        else:
            _consume_positional(word, options, values)
    return values


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _consume_flag(
    word: str, words: list[str], flags: Mapping[str, Option], values: dict[str, Any], below: Mapping[str, Any]
) -> None:
    """Read the flag `word` and the words that belong to it into `values`."""
    name, equals, inline = word.partition("=")
    name, _, key = name.partition(".")
    name = name.replace("_", "-")
    if name not in flags:
        known = {o.name: None for o in flags.values()}
        raise UsageError(unknown_option(name, [*known, "config", "print_config", "json", "quiet"]), name)
    o, is_inline, alias = flags[name], bool(equals), name[2:].replace("-", "_")
    if is_inline:
        words.insert(0, inline)
    if key:
        _set_entry(o, key, _next(words, word, is_inline), values, below)
    elif o.repeated:
        _extend(o, _list(o, words, is_inline), values)
    elif alias in SWITCHES:
        values[alias] = _switch(words, name, is_inline)
    else:
        values[alias if alias in TRANSLATED else o.name] = _single(o, words, is_inline)


def _is_flag(word: str) -> bool:
    return re.match(r"-[A-Za-z-]", word) is not None  # "-", "-1" and "-.5" are values


def _next(words: list[str], flag: str, is_inline: bool = False) -> str:
    if not words or (_is_flag(words[0]) and not is_inline):
        raise ConfigError(f"{flag} needs a value (one that begins with a dash is given as {flag}=VALUE).")
    return words.pop(0)


def _consume_positional(word: str, options: Sequence[Option], values: dict[str, Any]) -> None:
    for o in (o for o in options if o.positional):
        if o.repeated:
            return _extend(o, [word], values)
        if o.name not in values:
            values[o.name] = word
            return None
    wanted = next((o.flag for o in options if o.required and o.name not in values), None)
    hint = f", as in {wanted} {word}" if wanted else ""
    raise ConfigError(f"{word!r} was given, but there is no place for it; options start with --{hint}.")


def _extend(o: Option, items: list[str] | None, values: dict[str, Any]) -> None:
    """Add items to a list: `--data a --data b` is `--data a b`."""
    values[o.name] = None if items is None else [*(values.get(o.name) or []), *items]


def _set_entry(o: Option, key: str, text: str, values: dict[str, Any], below: Mapping[str, Any]) -> None:
    """Set one entry of a mapping, as `--method-options.temperature 2` does; other entries stay."""
    if not o.mapping:
        raise ConfigError(f"{o.flag}.{key} was given, but {o.flag} takes {o.expected}, not names and values.")
    there, value = values.get(o.name, below.get(o.name)), None if text == "null" else text
    if text.startswith("["):
        value = _yaml(o, text, keep_texts=True)
    values[o.name] = (there if isinstance(there, dict) else {}) | {key: value}


def _switch(words: list[str], flag: str, is_inline: bool) -> str:
    """Return the value of a switch, `true` where none follows."""
    if not is_inline and (not words or words[0].lower() not in ("true", "false")):
        return "true"
    return _next(words, flag, is_inline)


def _single(o: Option, words: list[str], is_inline: bool) -> Any:
    if o.type is bool:
        return _switch(words, o.flag, is_inline)
    text = _next(words, o.flag, is_inline)
    if o.optional and text.lower() in ("none", "null"):
        return None
    return _yaml(o, text, keep_texts=False) if o.mapping else text


def _list(o: Option, words: list[str], is_inline: bool) -> list[str] | None:
    """Return the items of a list, separated by spaces and commas, or as a YAML list, which may hold commas: `["a, b"]`.

    Options with `whole` are separated by spaces only.
    """
    texts = [_next(words, o.flag, is_inline)]
    while words and not is_inline and not _is_flag(words[0]):
        texts.append(words.pop(0))
    if o.optional and texts in (["none"], ["null"]):
        return None
    if o.whole:
        return texts
    items: list[str] = []
    for text in texts:
        items += _yaml(o, text, keep_texts=True) if text.startswith("[") else text.split(",")
    return [item.strip() if isinstance(item, str) else item for item in items if item != ""]


def _yaml(o: Option, text: str, keep_texts: bool) -> Any:
    """Parse a list or mapping; with `keep_texts` a column called `3` or `no` keeps its name."""
    import yaml

    try:
        return yaml.load(text, Loader=yaml.BaseLoader if keep_texts else yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{o.flag} was given {text!r}; expected {o.expected}, in YAML: {error}") from error
