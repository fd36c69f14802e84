"""RAIL-KD with MATE-KD, as Li et al. 2021 combine them, *A Short Study on Compressing Decoder-Based Language Models*,
arXiv 2110.08460: RAIL's random layers beside MATE's three terms. Deviations as in those two.
"""

from dataclasses import dataclass

from demiglace.config.options import group, option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.rail_kd import RailLayerOptions
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Kind


@dataclass(frozen=True)
class RailMate:
    """λ1·CE(x) + λ2·τ²KL(x) + λ3·τ²KL(x') + λ4·RAIL(x), x' refilled by a generator that maximises KL(T ‖ S)."""

    task_weight: float = option("λ1, the weight of the labels' loss", 0.25, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits on the text", 0.25, at_least=0)
    perturbed_weight: float = option("λ3, their weight on the perturbed text", 0.25, at_least=0)
    layer_weight: float = option("λ4, the weight of the hidden states", 0.25, at_least=0)
    temperature: float = option("τ", 1.0, above=0)
    projection: Kind = option(
        "per-layer: RAIL-KD_l; concatenated: RAIL-KD_c; shared: one W for all; none; auto: as in rail-kd-l", "auto"
    )
    masking: AdversarialMasking = group(AdversarialMasking)
    layers: RailLayerOptions = group(RailLayerOptions)

    def method(self) -> Method:
        """The four terms."""
        logits = LogitDistillation(self.temperature)
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, logits),
                WeightedTerm(self.perturbed_weight, logits, on="perturbed"),
                WeightedTerm(self.layer_weight, self.layers.term(self.projection)),
            ),
            augmentation=self.masking,
        )
