"""Loss term on attention: relations between a layer's queries, keys and values, [B, heads, L, L].

Queries, keys and values are captured by hooks, so any attention kernel works. Relations are computed for one layer at a
time. In causal models (GPT-2, Llama) a token is compared only with itself and earlier tokens. Anything that a model
adds to queries and keys after the projection is left out: rotary positions, and the position part of DeBERTa's scores.
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
    """Compare attention: mean over layer pairs of Σ over relations of distance(X_S Y_Sᵀ/√d_h, X_T Y_Tᵀ/√d_h)."""

    mapping: LayerMapping  # which teacher layer each student layer is compared with
    relations: tuple[Relation, ...]  # X and Y of each relation; "query-key" is the attention
    distance: AttentionDistance
    resplit: bool = False  # split the vectors into `heads` heads; False: the models' heads, which must be as many
    heads: int | None = None  # of resplit vectors; None: chosen by `relation_heads`
    reduction: Reduction = "mean"  # over layer pairs
    name: str = "attention"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return requests for the inputs of the relations, of all matched layers.

        Raises `ConfigError` if the mapping makes no layer pairs, `ModelError` as `head_count` does.
        """
        self.head_count(student, teacher)
        layers = self.mapping.layers(student, teacher)
        if not self.mapping.is_paired(layers):
            raise ConfigError(
                "mapping=all was given for the term on attention, which compares pairs of layers; give mapping=skip."
            )
        inputs = sorted({kind for relation in self.relations for kind in RELATIONS[relation]})
        return SignalRequests(attention_request(inputs, layers.student), attention_request(inputs, layers.teacher))

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss for these models; it has no weights."""
        return _AttentionDistillation(self, student, teacher)

    def head_count(self, student: ModelShape, teacher: ModelShape) -> int:
        """Return the number of heads of the relations. Raises `ModelError` if none suits both models."""
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
                "cannot be compared head by head; use minilmv2, which splits both into the same number of heads."
            )
        return teacher.num_heads


def relation_heads(requested: int | None, student: ModelShape, teacher: ModelShape) -> int:
    """Return the number of heads into which the vectors of both models are split.

    requested: None for the largest number that divides both widths and is at most the teacher's number of heads. Raises
    `ModelError`, which lists the valid numbers, if the requested one does not divide both widths.
    """
    widths = student.attention_size, teacher.attention_size
    divisors = [n for n in range(1, min(widths) + 1) if not any(width % n for width in widths)]
    if requested is None:
        return max(n for n in divisors if n <= teacher.num_heads)
    if requested not in divisors:
        raise ModelError(
            f"relation_heads={requested} does not divide the attention widths of the student ({widths[0]}) and the "
            f"teacher ({widths[1]}); give one of {', '.join(map(str, divisors))}."
        )
    return requested


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
        distances = [
            self._distance(
                self._scores(student, relation, student_layer), self._scores(teacher, relation, teacher_layer), visible
            )
            for student_layer, teacher_layer in self.layer_pairs(progress)
            for relation in self._relations
        ]
        total = torch.stack(distances).sum(0)
        return total / len(self._layers.student) if self._reduction == "mean" else total

    def _scores(self, signals: Signals, relation: tuple[AttentionInput, AttentionInput], layer: int) -> Tensor:
        first, second = relation
        return scores(signals.attention[first, layer], signals.attention[second, layer], self._heads)

    def layer_pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        return list(zip(self._layers.student, self._mapping.teacher_layers_at(self._layers, progress), strict=True))
