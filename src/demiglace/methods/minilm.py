"""MiniLM: Wang et al. 2020, *MiniLM: Deep Self-Attention Distillation …*, arXiv 2002.10957.

Deviation: the paper distils on general text and then fine-tunes. Here both phases use the examples of the task; the
first phase ignores the labels.
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

    A = softmax(QKᵀ/√d_h) (sec. 3.1), VR = softmax(VVᵀ/√d_h) (sec. 3.2), averaged over heads and tokens. Student and
    teacher need the same number of heads; their widths may differ.
    """

    transfer_share: float = option("first phase, as a share of all epochs, between 0 and 1", 0.5, above=0, below=1)
    attention_weight: float = option("weight of the loss on attention", 1.0, at_least=0)
    value_weight: float = option("weight of the loss on the relation of values", 1.0, at_least=0)

    def method(self) -> Method:
        """Return the method: two loss terms, then the loss on the labels."""
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
