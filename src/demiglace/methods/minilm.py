"""MiniLM: Wang et al. 2020, *MiniLM: Deep Self-Attention Distillation …*, arXiv 2002.10957.

Deviation: the paper distils on a corpus of general text and then fine-tunes; here both phases take the task's rows, the
first without their labels.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.phases import PhaseOptions
from demiglace.methods.terms.attention import AttentionDistillation
from demiglace.methods.terms.layer_mapping import Final
from demiglace.methods.terms.logits import TaskLoss


@dataclass(frozen=True)
class MiniLM(PhaseOptions):
    """First KL(A^T ‖ A^S) + KL(VR^T ‖ VR^S) of the last layers, then CE.

    A = softmax(QKᵀ/√d_h) (sec. 3.1), VR = softmax(VVᵀ/√d_h) (sec. 3.2), means over heads and tokens. The models need
    the same number of heads, not the same width.
    """

    transfer_share: float = option("share of the epochs for the first phase", 0.5, above=0, below=1)
    attention_weight: float = option("weight of the attention", 1.0, at_least=0)
    value_weight: float = option("weight of the values' relation", 1.0, at_least=0)

    def method(self) -> Method:
        """Two terms, then the labels' loss."""
        attention = AttentionDistillation(Final(), ("query-key",), "kl")
        values = AttentionDistillation(Final(), ("value-value",), "kl", name="values")
        return Method(
            (
                WeightedTerm(self.attention_weight, attention, phase=0),
                WeightedTerm(self.value_weight, values, phase=0),
                WeightedTerm(1.0, TaskLoss(), phase=1),
            ),
            phases=(self.transfer_share, 1 - self.transfer_share),
            short_phases=self.short_phases,
        )
