"""The log of a run: one JSON object on each line. A resumed run truncates it to the size at its last checkpoint."""

import json
from pathlib import Path
from typing import Any

from demiglace.errors import RunError


class RunLog:
    """The log.jsonl of a run directory. Only the main process (`active`) writes."""

    def __init__(self, file: Path, active: bool = True):
        self._file, self._active = file, active

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """Append one record; kind: its field "kind". Raises `RunError` if it cannot be written."""
        if not self._active:
            return
        try:
            with self._file.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"kind": kind} | values) + "\n")
        except OSError as error:
            raise RunError(
                f"{self._file} could not be written ({error}); free disk space and repeat the command: it resumes "
                "from the last checkpoint."
            ) from error

    @property
    def size(self) -> int:
        """Return the size of the log in bytes."""
        return self._file.stat().st_size if self._file.exists() else 0

    def truncate(self, size: int) -> None:
        """Truncate the log to at most `size` bytes."""
        if self._active and self._file.exists():
            with self._file.open("r+b") as handle:
                handle.truncate(min(size, self.size))
