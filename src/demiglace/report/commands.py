"""The command line that repeats a run, with paths that hold on another machine."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path, PurePath
from typing import Any

from demiglace.config.options import Option
from demiglace.report.runs.schema import Record

_PATH = re.compile(r"(?<![\w./\\])(?:/|[A-Z]:\\)[^\s:;,()\"']+")  # an absolute one, up to a space or a punctuation mark


@dataclass(frozen=True)
class PortablePaths:
    """Rewrites paths of this machine: below `root` they become relative to it, elsewhere only their names remain."""

    root: Path

    @classmethod
    def around(cls, directories: Sequence[Path]) -> "PortablePaths":
        """Return the paths relative to the directory that holds these run directories."""
        found = [os.path.abspath(d) for d in directories]  # noqa: PTH100
        return cls(Path(os.path.commonpath(found)).parent if found else Path())

    def __call__(self, text: str) -> str:
        """Return a text as it is, or rewritten where it is a path.

        An absolute path, or a relative one that was typed in another working directory, is matched by its end: two
        parts or more that exist below the root.
        """
        path = PurePath(text)
        absolute = path.is_absolute()
        if absolute and path.is_relative_to(self.root):
            return str(path.relative_to(self.root))
        parts = path.parts[1:] if absolute else path.parts
        for i in range(len(parts) - 1):
            if _exists(self.root.joinpath(*parts[i:])):
                return str(PurePath(*parts[i:]))
        return f"PATH/TO/{path.name}" if absolute and path.name else text

    def in_sentence(self, text: str) -> str:
        """Return a sentence with the absolute paths in it rewritten."""
        return _PATH.sub(lambda match: self(match[0]), text.replace(f"{self.root}{os.sep}", ""))

    def everywhere(self, value: Any) -> Any:
        """Return a value of JSON with all its texts rewritten."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self.everywhere(k): self.everywhere(v) for k, v in value.items()}
        return [self.everywhere(v) for v in value] if isinstance(value, (list, tuple)) else value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a config may hold texts that are no paths
        return False


def command_line(record: Record, options: Sequence[Option], portable: Callable[[str], str] = str) -> str:
    """Return the shell command that repeats a run: positional arguments, options that differ from the default, -o.

    portable: rewrites paths, see `PortablePaths`. An argument that the manifest does not record, or records in a form
    that no flag takes, is written as a name in capitals.
    """
    words = ["demiglace", record.stage]
    for o in sorted(options, key=lambda o: not o.positional):
        if o.positional:
            words += map(portable, _arguments(record, o))
        elif o.name in record.config and (o.required or record.config[o.name] != _plain(o.default)):
            words += _flag(o, record.config[o.name], portable)
    return shlex.join([*words, "-o", portable(str(record.path))])


def _arguments(record: Record, option: Option) -> list[str]:
    default = [] if option.default is MISSING else option.default
    value = record.config.get(option.name, record.manifest.get(option.name, default))
    found = [str(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    return found or [option.name.upper()]


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _flag(option: Option, value: Any, portable: Callable[[str], str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (f"{option.flag}.{key}", portable(inner) if isinstance(inner, str) else json.dumps(inner))
        return
    yield option.flag
    if isinstance(value, list):
        structured = any(isinstance(v, (list, Mapping)) for v in value)  # such as the rules of `clean`
        yield f"{option.name.upper()}.yaml" if structured else ",".join(portable(str(v)) for v in value)
    elif value is not True:
        yield str(value).lower() if value is None or value is False else portable(str(value))
