"""The limits of a compression, and what a model file costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from demiglace.config.command_options import CompressConfig
from demiglace.errors import ConfigError

_MB = 1e6


@dataclass(frozen=True)
class Cost:
    """What a model file needs."""

    bytes: int
    latency_ms: float  # median of a call with one row, see `latency_of`


def latency_of(times: Mapping[str, Mapping[str, float]], threads: int) -> float:
    """Return the latency of one row from `Measurement.latency_ms`, in milliseconds.

    With one thread it is that of an idle machine, so that other programs do not change the choice.
    """
    of_row = times["1"]
    return of_row.get("idle", of_row["p50"]) if threads == 1 else of_row["p50"]


@dataclass(frozen=True)
class Budget:
    """Limits of the shipped file; None is no limit."""

    max_mb: float | None = None  # 10⁶ bytes
    max_latency_ms: float | None = None  # median of a call with one row
    max_drop: float | None = None  # of the main metric below the teacher's on validation rows, in points

    @classmethod
    def of(cls, config: CompressConfig) -> "Budget":
        """Return the limits of a call. Raises `ConfigError` without a limit of size or latency."""
        if config.max_mb is None and config.max_latency_ms is None:
            raise ConfigError(
                "compress needs a limit, and none was given; give --max-mb for the size of the model file, "
                "--max-latency-ms for the median latency of one row, or both."
            )
        return cls(config.max_mb, config.max_latency_ms, config.max_drop)

    def admits(self, cost: Cost, margin: float = 0.0) -> bool:
        """Return whether size and latency are within the limits.

        margin: share of the latency limit that is kept free, since another measurement may be slower.
        """
        return self.admits_size(cost.bytes) and self.admits_latency(cost.latency_ms, margin)

    def admits_size(self, size: int) -> bool:
        """Return whether a file of that many bytes is within the limit."""
        return self.max_mb is None or size <= self.max_mb * _MB

    def admits_latency(self, milliseconds: float, margin: float = 0.0) -> bool:
        """Return whether a latency is within the limit less the margin."""
        return self.max_latency_ms is None or milliseconds <= self.max_latency_ms * (1 - margin)

    def admits_drop(self, drop: float) -> bool:
        """Return whether a loss of quality in points is within the limit."""
        return self.max_drop is None or drop <= self.max_drop + 1e-9  # 91.6 − 90.6 is a little over 1

    def in_words(self) -> str:
        """Return the limits as the options that give them: ``--max-mb 8, --max-drop 1``."""
        given = {"--max-mb": self.max_mb, "--max-latency-ms": self.max_latency_ms, "--max-drop": self.max_drop}
        return ", ".join(f"{flag} {value:g}" for flag, value in given.items() if value is not None)

    def to_json(self) -> dict[str, Any]:
        """Return the limits for the manifest."""
        return asdict(self)
