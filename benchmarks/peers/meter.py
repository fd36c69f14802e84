"""What a contender cost: CPU-seconds and wall-clock at the end of each epoch, and peak memory."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


def cpu_seconds() -> float:
    """CPU time of this process, all its threads, and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@dataclass
class Meter:
    """Marks are set once when everything is loaded, and at the end of each epoch. A cache's capture is part of the
    first epoch. capture, saving: CPU-seconds of asking the teacher before the training, and of writing checkpoints;
    both are part of the epochs too."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    capture: float = 0.0
    saving: float = 0.0

    def mark(self) -> None:
        self.cpu.append(cpu_seconds())
        self.wall.append(time.perf_counter())

    def timed_saving(self, save: Callable[..., Any]) -> Callable[..., Any]:
        """A contender's own way of writing a file, its CPU time noted."""

        def timed(*args: Any) -> None:
            with self._noting("saving"):
                save(*args)

        return timed

    def capturing(self) -> Any:
        """Around the teacher's pass before the training."""
        return self._noting("capture")

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        begun = cpu_seconds()
        yield
        setattr(self, what, getattr(self, what) + cpu_seconds() - begun)

    def record(self, rows: int, epochs: int) -> dict[str, float]:
        """Rows per second over all epochs and from the second on, and MiB at the peak."""
        assert len(self.cpu) == epochs + 1, f"{len(self.cpu)} marks for {epochs} epochs"
        whole, later = self.cpu[-1] - self.cpu[0], self.cpu[-1] - self.cpu[1]
        later_rows, later_saving = rows * (epochs - 1), self.saving * (epochs - 1) / epochs
        return {
            "rows": rows,
            "rows_per_cpu_second": rows * epochs / whole,
            "rows_per_cpu_second_without_saving": rows * epochs / (whole - self.saving),
            "later_rows_per_cpu_second": later_rows / later,
            "later_rows_per_cpu_second_without_saving": later_rows / (later - later_saving),
            "rows_per_second": rows * epochs / (self.wall[-1] - self.wall[0]),
            "capture_cpu_seconds": self.capture,
            "saving_cpu_seconds": self.saving,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
