"""What a user can do wrong, said so that they can mend it: what was given, what was expected, what to change.

Every `UserError` ends the command with exit code 2; any other exception is our fault and ends it with 1.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Base of all errors that the user can mend; the message is the whole story, no traceback is shown."""


class ConfigError(UserError):
    """An option that does not exist, is missing or has a value of the wrong kind."""


class DataError(UserError):
    """Rows or files of data that cannot be used as they are."""


class ModelError(UserError):
    """A model or tokenizer that cannot be loaded, truncated or combined with another as asked."""


class CacheError(UserError):
    """A signal cache that is corrupt, does not fit on the disk or belongs to something else."""


class RunError(UserError):
    """A run directory that holds another run, is in use, or whose checkpoint is damaged."""


class DivergedError(UserError):
    """Training met a loss or gradient that is not a finite number."""


class FailedRunsError(RuntimeError):
    """Runs of a comparison that ended by a fault of ours; the others ended well, and each one's story is kept."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """Message for a name that is not in a table, with the nearest one that is: ``unknown task 'sst3', …``."""
    names = list(choices)
    by_lower_case = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower_case[near[0]]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"
