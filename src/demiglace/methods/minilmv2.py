"""MiniLMv2: Wang et al. 2021, *MiniLMv2: Multi-Head Self-Attention Relation Distillation …*, arXiv 2012.15828.

Deviations: as in `minilm`, both phases use the examples of the task. The default number of relation heads is at most
the teacher's number of attention heads, because it has to divide the widths of both models. The paper uses 48 for
models of width 768 (relation_heads=48).
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.phases import PhaseOptions
from demiglace.methods.terms.attention import AttentionDistillation
from demiglace.methods.terms.layer_mapping import Final
from demiglace.methods.terms.logits import TaskLoss


@dataclass(frozen=True)
class MiniLMv2(PhaseOptions):
    """First Σ over X = Q, K, V of KL(R_X^T ‖ R_X^S), then CE; R_X = softmax(XXᵀ/√d_r) in relation heads (sec. 3).

    The student's last layer is matched with one teacher layer. Widths and numbers of heads may differ.
    """

    transfer_share: float = option("first phase, as a share of all epochs, between 0 and 1", 0.5, above=0, below=1)
    relation_heads: int | None = option(
        "number of relation heads; none: the largest that divides both widths, at most the teacher's heads",
        None,
        at_least=1,
    )
    teacher_layer: int | None = option(
        "teacher layer to match, from 1; none: the last. The paper uses 21 of 24 for large teachers", None, at_least=1
    )

    def method(self) -> Method:
        """Return the method: the relation loss, then the loss on the labels."""
        relations = AttentionDistillation(
            Final(self.teacher_layer),
            ("query-query", "key-key", "value-value"),
            "kl",
            resplit=True,
            heads=self.relation_heads,
            name="relations",
        )
        return Method(
            (WeightedTerm(1.0, relations, phase=0), WeightedTerm(1.0, TaskLoss(), phase=1)),
            phases=(self.transfer_share, 1 - self.transfer_share),
            short_phases=self.short_phases,
        )
