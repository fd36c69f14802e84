"""MiniLMv2: Wang et al. 2021, *MiniLMv2: Multi-Head Self-Attention Relation Distillation …*, arXiv 2012.15828.

Deviations: as in `minilm`, both phases take the task's rows; as many relation heads as the teacher has heads, where the
paper takes 48 for models of width 768 (give relation_heads=48), since a number has to divide the widths of both models.
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

    The student's last layer meets one of the teacher's. Widths and numbers of heads may differ.
    """

    transfer_share: float = option("share of the epochs for the first phase", 0.5, above=0, below=1)
    relation_heads: int | None = option(
        "heads that vectors are cut into; none: the most up to the teacher's that divide both widths", None, at_least=1
    )
    teacher_layer: int | None = option(
        "teacher layer, from 1; none: the last. The paper takes 21 of 24 for large teachers", None, at_least=1
    )

    def method(self) -> Method:
        """The relations, then the labels' loss."""
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
