"""RAIL-KD_l, layer-wise: each pair of layers is compared for itself (arXiv 2109.10164, sec. 3.1)."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import group, option
from demiglace.methods.base import Method
from demiglace.methods.rail_kd import RailOptions


@dataclass(frozen=True)
class RailKDLayerwise:
    """λ1·CE + λ2·KD + λ3·mean_i α_i ‖ĥ_i^T/‖ĥ_i^T‖ − ĥ_i^S/‖ĥ_i^S‖‖² with ĥ_i = W_i h̄_i."""

    projection: Literal["auto", "per-layer", "shared", "none"] = option(
        "one W for each layer, one for all, or none; auto: none at equal widths, else per-layer", "auto"
    )
    rail: RailOptions = group(RailOptions)

    def method(self) -> Method:
        """The three terms."""
        return self.rail.method(self.projection)
