"""RAIL-KD with Annealing-KD, as combined by Li et al. 2021, *A Short Study on Compressing Decoder-Based Language
Models*, arXiv 2110.08460.

The random layer mapping of RAIL-KD is used in the first phase, in which the logits are annealed.
"""

from dataclasses import dataclass

from demiglace.config.options import group, option
from demiglace.methods.annealing_kd import AnnealingOptions
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.rail_kd import RailLayerOptions
from demiglace.methods.terms.logits import TaskLoss
from demiglace.methods.terms.projection import Kind


@dataclass(frozen=True)
class RailAnnealing:
    """First λ1·‖z_S − φ(t)·z_T‖² + λ2·RAIL, φ rising from 1/τ_max to 1; then CE."""

    kd_weight: float = option("λ1, weight of the loss on the teacher's logits", 0.5, at_least=0)
    layer_weight: float = option("λ2, weight of the loss on the hidden states", 0.5, at_least=0)
    projection: Kind = option(
        "per-layer: RAIL-KD_l; concatenated: RAIL-KD_c; shared: one W for all layers; none; auto: as in rail-kd-l",
        "auto",
    )
    annealing: AnnealingOptions = group(AnnealingOptions)
    layers: RailLayerOptions = group(RailLayerOptions)

    def method(self) -> Method:
        """Return the method: two loss terms in the first phase, one in the second."""
        return Method(
            (
                WeightedTerm(self.kd_weight, self.annealing.annealed, phase=0),
                WeightedTerm(self.layer_weight, self.layers.term(self.projection), phase=0),
                WeightedTerm(1.0, TaskLoss(), phase=1),
            ),
            self.annealing.phases,
            starts_from="best",
            short_phases=self.annealing.short_phases,
        )
