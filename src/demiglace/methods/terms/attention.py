"""The term on attention: relations between a layer's queries, keys and values, as wide as the text is long.

Queries, keys and values are read by hooks, so a model computes its attention as it likes. A relation is made for one
layer at a time, [B, heads, L, L]. In causal models (GPT-2, Llama) a token is held only against those up to it. What a
model adds to queries and keys afterwards is left out: rotary positions, and the position parts of DeBERTa's scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from demiglace.errors import ConfigError, ModelError
from demiglace.losses.attention import attention_kl, attention_mask_2d, probability_distance, score_distance, scores
from demiglace.methods.base import Reduction, SignalRequests, Term, TermLoss, TrainingProgress
from demiglace.methods.terms.layer_mapping import LayerMapping
from demiglace.models.attention import WITHOUT_ATTENTION, AttentionInput
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals, attention_request
from demiglace.tasks.base import Task

Relation = Literal["query-key", "query-query", "key-key", "value-value"]
RELATIONS: dict[Relation, tuple[AttentionInput, AttentionInput]] = {
    "query-key": ("query", "key"),
    "query-query": ("query", "query"),
    "key-key": ("key", "key"),
    "value-value": ("value", "value"),
}
AttentionDistance = Literal["scores", "probabilities", "kl"]
DISTANCES: dict[AttentionDistance, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "scores": score_distance,
    "probabilities": probability_distance,
    "kl": attention_kl,
}


@dataclass(frozen=True)
class AttentionDistillation(Term):
    """Mean over pairs of layers of Σ over relations of distance(X_S Y_Sᵀ/√d_h, X_T Y_Tᵀ/√d_h), head by head.

    relations: which X and Y; "query-key" is the attention itself. resplit: false compares the models' own heads, which
    must be as many; true cuts the vectors anew into `heads` heads, none = as `relation_heads` says.

    reduction: `sum` adds the pairs of layers up.
    """

    mapping: LayerMapping
    relations: tuple[Relation, ...]
    distance: AttentionDistance
    resplit: bool = False
    heads: int | None = None
    reduction: Reduction = "mean"
    name: str = "attention"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """The inputs of the relations, of the layers that meet. Raises `ConfigError` where they meet not in pairs."""
        self.head_count(student, teacher)
        layers = self.mapping.layers(student, teacher)
        if not self.mapping.is_paired(layers):
            raise ConfigError("the term on attention compares pairs of layers, and mapping=all makes none; take skip.")
        inputs = sorted({kind for relation in self.relations for kind in RELATIONS[relation]})
        return SignalRequests(attention_request(inputs, layers.student), attention_request(inputs, layers.teacher))

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """No weights of its own."""
        return _AttentionDistillation(self, student, teacher)

    def head_count(self, student: ModelShape, teacher: ModelShape) -> int:
        """Heads of the relations. Raises `ModelError` where there is no number of heads that suits both models."""
        for shape in (student, teacher):
            if not shape.attention_size:
                raise ModelError(
                    f"the queries, keys and values of {shape.architecture} cannot be read; {WITHOUT_ATTENTION}"
                )
        if self.resplit:
            return relation_heads(self.heads, student, teacher)
        if student.num_heads != teacher.num_heads:
            raise ModelError(
                f"the student has {student.num_heads} attention heads and the teacher {teacher.num_heads}, so they "
                "cannot be compared head by head; take minilmv2, which cuts both into the same number of heads."
            )
        return teacher.num_heads


def relation_heads(asked: int | None, student: ModelShape, teacher: ModelShape) -> int:
    """Heads that the vectors of both models are cut into: as asked, or the most up to the teacher's that divide both.

    Raises `ModelError`, with the numbers that do, where the asked one does not divide both widths.
    """
    widths = student.attention_size, teacher.attention_size
    divisors = [n for n in range(1, min(widths) + 1) if not any(width % n for width in widths)]
    if asked is None:
        return max(n for n in divisors if n <= teacher.num_heads)
    if asked not in divisors:
        raise ModelError(
            f"relation_heads={asked} does not divide the widths of both the student's ({widths[0]}) and the teacher's "
            f"({widths[1]}) attention; give one of {', '.join(map(str, divisors))}."
        )
    return asked


class _AttentionDistillation(TermLoss):
    def __init__(self, term: AttentionDistillation, student: ModelShape, teacher: ModelShape):
        super().__init__()
        self._mapping, self._layers = term.mapping, term.mapping.layers(student, teacher)
        self._relations = [RELATIONS[relation] for relation in term.relations]
        self._distance, self._heads = DISTANCES[term.distance], term.head_count(student, teacher)
        self._causal, self._reduction = student.causal or teacher.causal, term.reduction

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        assert student.mask is not None
        visible = attention_mask_2d(student.mask, self._causal)
        parts = [
            self._distance(self._scores(student, relation, own), self._scores(teacher, relation, other), visible)
            for own, other in self.pairs(progress)
            for relation in self._relations
        ]
        total = torch.stack(parts).sum(0)
        return total / len(self._layers.student) if self._reduction == "mean" else total

    def _scores(self, signals: Signals, relation: tuple[AttentionInput, AttentionInput], layer: int) -> Tensor:
        one, other = relation
        return scores(signals.attention[one, layer], signals.attention[other, layer], self._heads)

    def pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        return list(zip(self._layers.student, self._mapping.choose(self._layers, progress), strict=True))
