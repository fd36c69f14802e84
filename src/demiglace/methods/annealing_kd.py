"""Annealing-KD: Jafari et al. 2021, *Annealing Knowledge Distillation*, arXiv 2104.07163.

Deviations from the paper, as in the authors' code: the squared distance is averaged over the C outputs (the paper sums
it); the second phase starts from the best epoch of the first phase by the validation metric.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.phases import PhaseOptions
from demiglace.methods.terms.logits import AnnealedLogits, TaskLoss


@dataclass(frozen=True)
class AnnealingOptions(PhaseOptions):
    """Options of the two phases of Annealing-KD."""

    tau_max: int = option("τ_max, number of steps in which φ rises to 1; published runs use 7 to 10", 7, at_least=1)
    annealing_share: float = option(
        "first phase, as a share of all epochs, between 0 and 1; published runs use 10 of 14 to 30 of 40",
        0.75,
        above=0,
        below=1,
    )

    @property
    def phases(self) -> tuple[float, float]:
        """Return both phases as shares of the epochs."""
        return self.annealing_share, 1 - self.annealing_share

    @property
    def annealed(self) -> AnnealedLogits:
        """Return the loss term of the first phase."""
        return AnnealedLogits(self.tau_max)


@dataclass(frozen=True)
class AnnealingKD(AnnealingOptions):
    """First ‖z_S − φ(t)·z_T‖² with φ rising from 1/τ_max to 1 (eq. 4), then CE (eq. 5).

    Also for regression, where the labels' loss is the squared error.
    """

    def method(self) -> Method:
        """Return the method: one loss term in each of two phases."""
        return Method(
            (WeightedTerm(1.0, self.annealed, phase=0), WeightedTerm(1.0, TaskLoss(), phase=1)),
            self.phases,
            starts_from="best",
            short_phases=self.short_phases,
        )
