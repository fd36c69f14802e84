"""The command line that a run's config stands for."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from demiglace.config.options import Option
from demiglace.report.runs.schema import Record


def command_line(record: Record, options: Sequence[Option]) -> str:
    """The shell command that repeats a run: positional arguments, options that differ from their default, -o."""
    words = ["demiglace", record.stage]
    for o in sorted(options, key=lambda o: not o.positional):
        value = record.config.get(o.name, o.default)
        if o.positional:
            words += [str(v) for v in (value if isinstance(value, list) else [value])]
        elif o.name in record.config and (o.required or value != _plain(o.default)):
            words += _flag(o, value)
    return shlex.join([*words, "-o", str(record.path)])


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _flag(option: Option, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (f"{option.flag}.{key}", inner if isinstance(inner, str) else json.dumps(inner))
        return
    yield option.flag
    if isinstance(value, list):
        yield ",".join(map(str, value))
    elif value is not True:
        yield str(value).lower() if value is None or value is False else str(value)
