"""Annealing-KD: Jafari et al. 2021, *Annealing Knowledge Distillation*, arXiv 2104.07163.

As in the authors' code, the squared distance is averaged over the C outputs, where the paper sums it, and the second
phase starts from the first phase's best epoch by the validation metric.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.phases import PhaseOptions
from demiglace.methods.terms.logits import AnnealedLogits, TaskLoss


@dataclass(frozen=True)
class AnnealingOptions(PhaseOptions):
    """The two phases of Annealing-KD."""

    tau_max: int = option("τ_max, the number of steps in which φ rises to 1; 7 to 10 seen", 7, at_least=1)
    annealing_share: float = option(
        "share of the epochs for the first phase; 10 of 14 to 30 of 40 seen", 0.75, above=0, below=1
    )

    @property
    def phases(self) -> tuple[float, float]:
        """The shares of both phases."""
        return self.annealing_share, 1 - self.annealing_share

    @property
    def annealed(self) -> AnnealedLogits:
        """The term of the first phase."""
        return AnnealedLogits(self.tau_max)


@dataclass(frozen=True)
class AnnealingKD(AnnealingOptions):
    """First ‖z_S − φ(t)·z_T‖² with φ rising from 1/τ_max to 1 (eq. 4), then CE (eq. 5); also for regression."""

    def method(self) -> Method:
        """One term in each phase."""
        return Method(
            (WeightedTerm(1.0, self.annealed, phase=0), WeightedTerm(1.0, TaskLoss(), phase=1)),
            self.phases,
            starts_from="best",
            short_phases=self.short_phases,
        )
