"""RAIL-KD_c, concatenated: the mapped layers are joined before they are compared (arXiv 2109.10164, sec. 3.2)."""

from dataclasses import dataclass

from demiglace.config.options import group
from demiglace.methods.base import Method
from demiglace.methods.rail_kd import RailOptions


@dataclass(frozen=True)
class RailKDConcatenated:
    """λ1·CE + λ2·KD + λ3·‖ĥ^T/‖ĥ^T‖ − ĥ^S/‖ĥ^S‖‖² with ĥ = W [h̄_1; …; h̄_m]."""

    rail: RailOptions = group(RailOptions)

    def method(self) -> Method:
        """The three terms."""
        return self.rail.method("concatenated")
