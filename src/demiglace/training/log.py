"""The run's log: one JSON object a line. A resumed run cuts it back to where its checkpoint stood."""

import json
from pathlib import Path
from typing import Any

from demiglace.errors import RunError


class RunLog:
    """log.jsonl of a run directory; on all but the main process nothing is written."""

    def __init__(self, file: Path, active: bool = True):
        self._file, self._active = file, active

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """Append one record. Raises `RunError` where it cannot be written."""
        if not self._active:
            return
        try:
            with self._file.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"kind": kind} | values) + "\n")
        except OSError as error:
            raise RunError(
                f"{self._file} could not be written ({error}); make room there and repeat the command: it goes on from "
                "the last checkpoint."
            ) from error

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.stat().st_size if self._file.exists() else 0

    def cut(self, size: int) -> None:
        """Forget what was written after `size` bytes."""
        if self._active and self._file.exists():
            with self._file.open("r+b") as handle:
                handle.truncate(min(size, self.size))
