"""The option that all methods of several phases have."""

from dataclasses import dataclass

from demiglace.config.options import option


@dataclass(frozen=True)
class PhaseOptions:
    """How short a phase may be."""

    short_phases: bool = option("allow phases of a single epoch; without it each phase needs 2", False)
