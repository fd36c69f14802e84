"""RAIL-KD with MATE-KD, as combined by Li et al. 2021, *A Short Study on Compressing Decoder-Based Language Models*,
arXiv 2110.08460.

The loss on RAIL-KD's random layers is added to the three terms of MATE-KD. Deviations: those of both methods.
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
    """λ1·CE(x) + λ2·τ²KL(x) + λ3·τ²KL(x') + λ4·RAIL(x).

    x' is x with some tokens replaced by a generator, which is trained to maximise KL(T(x') ‖ S(x')).
    """

    task_weight: float = option("λ1, weight of the loss on the labels", 0.25, at_least=0)
    kd_weight: float = option("λ2, weight of the loss on the teacher's logits for the original text", 0.25, at_least=0)
    perturbed_weight: float = option("λ3, weight of the same loss on the perturbed text", 0.25, at_least=0)
    layer_weight: float = option("λ4, weight of the loss on the hidden states", 0.25, at_least=0)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)
    projection: Kind = option(
        "per-layer: RAIL-KD_l; concatenated: RAIL-KD_c; shared: one W for all layers; none; auto: as in rail-kd-l",
        "auto",
    )
    masking: AdversarialMasking = group(AdversarialMasking)
    layers: RailLayerOptions = group(RailLayerOptions)

    def method(self) -> Method:
        """Return the method with its four loss terms."""
        logits = LogitDistillation(self.temperature)
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, logits),
                WeightedTerm(self.perturbed_weight, logits, input="perturbed"),
                WeightedTerm(self.layer_weight, self.layers.term(self.projection)),
            ),
            augmentation=self.masking,
        )
