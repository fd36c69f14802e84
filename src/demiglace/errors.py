"""Errors, each with a message that names what was given, what was expected and what to change.

Every `UserError` ends the command with exit code 2; any other exception is a bug of demiglace and ends it with 1.
"""

import difflib
import errno
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Base of all errors that the user can correct; only the message is shown, without a traceback."""


class ConfigError(UserError):
    """An option that does not exist, is missing or has a value of the wrong kind."""


class DataError(UserError):
    """Rows or files of data that cannot be used as they are."""


class ModelError(UserError):
    """A model or tokenizer that cannot be loaded, truncated or combined with another one."""


class CacheError(UserError):
    """A signal cache that is corrupt, does not fit on the disk or belongs to something else."""


class RunError(UserError):
    """A run directory that holds another run, is in use, or whose checkpoint is damaged."""


class DivergedError(UserError):
    """Training met a loss or gradient that is not a finite number."""


class FailedRunsError(RuntimeError):
    """Runs of a comparison that failed by a bug of demiglace; the other runs are complete, and each has its log."""


class UsageError(ConfigError):
    """Options that do not fit the command: an unknown or a missing one; a command line shows the usage after it."""

    def __init__(self, message: str, option: str = ""):
        super().__init__(message)
        self.option = option  # the unknown one


_DISK = {  # errno -> text of errors that a disk causes; libraries in Rust and C++ keep only the text
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
    errno.EIO: "Input/output error",
}


def disk_error(error: BaseException) -> RunError | None:
    """Return the error for the user if an error, or one that caused it, comes from a full or failing disk."""
    cause: BaseException | None = error
    while cause is not None:
        for number, text in _DISK.items():
            if (isinstance(cause, OSError) and cause.errno == number) or text in str(cause):
                file = getattr(cause, "filename", None) or "a file"
                return RunError(
                    f"{file} could not be read or written: {text}. Free space, check the permissions or give another "
                    "--output, and repeat the command: it resumes from what is complete."
                )
        cause = cause.__cause__ or cause.__context__
    return None


_NEAR = 3  # names that are suggested at most
_CUTOFF, _MARGIN = 0.55, 0.12  # of a similarity from 0 to 1: the least one, and how far below the best one


def near(name: str, choices: Iterable[str]) -> list[str]:
    """Return up to three of the choices that are most like a name, the nearest first.

    Case, hyphens and underscores do not count; a choice that has the name as one of its words is near.
    """
    wanted = _plain(name)
    scores = {choice: _likeness(wanted, _plain(choice)) for choice in choices}
    best = max(scores.values(), default=0)
    found = [choice for choice, score in scores.items() if score >= max(_CUTOFF, best - _MARGIN)]
    return sorted(found, key=lambda choice: -scores[choice])[:_NEAR]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").strip("-")


def _likeness(name: str, choice: str) -> float:
    """Return the similarity of two names, from 0 to 1."""
    is_part = bool(name) and set(name.split("-")) <= set(choice.split("-"))
    return max(0.75 if is_part else 0.0, difflib.SequenceMatcher(None, name, choice).ratio())


def suggestion(names: Sequence[str]) -> str:
    """Return ``; did you mean 'a', 'b' or 'c'?`` for near names, and a full stop for none."""
    if not names:
        return "."
    *others, last = map(repr, names)
    return f"; did you mean {' or '.join(filter(None, (', '.join(others), last)))}?"


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """Message for a name that is not in a table, with the nearest that are: ``unknown task 'sst3', …``."""
    names = list(choices)
    return f"unknown {kind} {name!r}{suggestion(near(name, names))} Known: {', '.join(names)}"


def install_command(*names: str) -> str:
    """Return the command that installs the packages of these extras, by name: demiglace is on no package index.

    names: extras of demiglace; others are arguments of `pip install`.
    """
    from importlib.metadata import PackageNotFoundError, metadata, requires

    from packaging.requirements import Requirement

    try:
        known, given = metadata("demiglace").get_all("Provides-Extra") or [], requires("demiglace") or []
    except PackageNotFoundError:  # run from its source, without an installation
        return f"pip install '.[{','.join(names)}]'"
    requirements = [Requirement(text) for text in given]
    packages = [
        f"'{requirement.name}{requirement.specifier}'"
        for extra in names
        for requirement in requirements
        if requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
    ]
    return " ".join(["pip install", *packages, *(name for name in names if name not in known)])
