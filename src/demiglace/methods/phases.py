"""The option shared by all methods of several phases."""

from dataclasses import dataclass

from demiglace.config.options import option


@dataclass(frozen=True)
class PhaseOptions:
    """Option for the shortest allowed phase."""

    short_phases: bool = option("allow phases of one epoch; otherwise each phase needs at least 2", False)
