"""Combined-KD: Li et al. 2021, *A Short Study on Compressing Decoder-Based Language Models*, arXiv 2110.08460.

It has the two phases of Annealing-KD. The first phase trains on the original text and on MATE-KD's perturbed text.

As in the authors' code, the generator maximises the mean squared error of the logits, not MATE-KD's KL divergence, and
the second phase starts from the best epoch of the first phase.

Deviations: those of MATE-KD. The best epoch of the run is chosen from the second phase; the authors' code chooses from
both. The authors' program for BERT uses the loss on the labels instead of the term on perturbed text, unlike the paper
and their program for RoBERTa; here the paper is followed.
"""

from dataclasses import dataclass

from demiglace.config.options import group, option
from demiglace.methods.annealing_kd import AnnealingOptions
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.methods.terms.logits import TaskLoss


@dataclass(frozen=True)
class CombinedKD:
    """First λ1·‖z_S − φ·z_T‖² on x + λ2·‖z_S − φ·z_T‖² on x', φ rising from 1/τ_max to 1; then CE."""

    kd_weight: float = option("λ1, weight of the loss on the teacher's logits for the original text", 0.5, at_least=0)
    perturbed_weight: float = option("λ2, weight of the same loss on the perturbed text", 0.5, at_least=0)
    annealing: AnnealingOptions = group(AnnealingOptions)
    masking: AdversarialMasking = group(AdversarialMasking, objective="mse")

    def method(self) -> Method:
        """Return the method: two loss terms in the first phase, one in the second."""
        annealed = self.annealing.annealed
        return Method(
            (
                WeightedTerm(self.kd_weight, annealed, phase=0),
                WeightedTerm(self.perturbed_weight, annealed, phase=0, input="perturbed"),
                WeightedTerm(1.0, TaskLoss(), phase=1),
            ),
            self.annealing.phases,
            self.masking,
            starts_from="best",
            short_phases=self.annealing.short_phases,
        )
