"""Continuation-KD: Jafari et al. 2022, *Continuation KD: Improved Knowledge Distillation through the Lens of
Continuation Optimization*, arXiv 2212.05998.

Deviations: the squared distance is averaged over the C outputs; ψ rises linearly from 0 to 1 over all steps, because
the paper's schedule could not be checked.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import AnnealedLogits, TaskLoss
from demiglace.methods.terms.scheduled import ScheduledTerm


@dataclass(frozen=True)
class ContinuationKD:
    """ψ(t)·CE + (1 − ψ(t))·max(0, ‖z_S − φ(t)·z_T‖² − m·φ(t)).

    φ rises from 1/τ_max to 1, ψ from 0 to 1.
    """

    tau_max: int = option("τ_max, number of steps in which φ rises to 1", 10, at_least=1)
    margin: float = option("m, margin: squared distances to the teacher below it cost nothing", 0.001, at_least=0)

    def method(self) -> Method:
        """Return the method: two loss terms whose weights change during training."""
        return Method(
            (
                WeightedTerm(1.0, ScheduledTerm(TaskLoss(), "rising")),
                WeightedTerm(1.0, ScheduledTerm(AnnealedLogits(self.tau_max, self.margin), "falling")),
            )
        )
