"""Sentence embedding: a text becomes a vector, and similar texts become similar vectors.

A student learns from its teacher's embeddings of texts without labels. Labelled pairs of texts only measure a model: by
similarity scores (STS), or by the retrieval of the second text of a pair with the first one.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from demiglace.tasks.base import Divergence, Label, Metric
from demiglace.tasks.label_kinds import NumberLabels, number
from demiglace.tasks.metrics import OF_NUMBERS

if TYPE_CHECKING:
    from torch import Tensor

_SCALE = 20.0  # of cosines as logits: a softmax at τ = 0.05, as in SimCSE (Gao et al. 2021, arXiv 2104.08821)
_QUERIES = 1024  # whose similarities to all candidates are in memory together
SCORE_COLUMNS = (
    "score",
    "similarity_score",
    "similarity",
    "label",
    "labels",
    "is_duplicate",
    "duplicate",
    "relatedness",
)


class SentenceEmbedding(NumberLabels):
    """Logits are embeddings [N, D]; of pairs [N, 2·D]. Labels are the similarities of pairs, float32 [N]."""

    output_name = "sentence_embedding"
    hub_library = "sentence-transformers"

    def head_width(self, names: Sequence[str]) -> int:
        """Return 0: the width is the model's."""
        return 0

    def label_fault(self, label: Label) -> str | None:
        """Return what is wrong with a label that is not a finite number."""
        return "similarity is no number" if number(label) is None else None

    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return (cos(u, v) − label)² of pairs [B, 2·D] (Sentence-BERT, Reimers and Gurevych 2019, arXiv 1908.10084).

        No training uses it: texts are read one at a time, and have no labels.
        """
        import torch.nn.functional as F

        first, second = logits.chunk(2, dim=-1)
        return (F.cosine_similarity(first, second, dim=-1) - labels.nan_to_num()).square()

    def divergence(self, student: "Tensor", teacher: "Tensor", categorical: Divergence) -> "Tensor":
        """Return 1 − cos(e_S, e_T) plus the divergence of the similarities to the other texts of the batch, [B].

        For unit vectors 1 − cos = ‖e_S − e_T‖² / 2, the loss of Reimers and Gurevych 2020 (arXiv 2004.09813). The
        second part compares the softmax over 20·cos(e_i, e_j), j ≠ i, of both models by the method's divergence, as
        CompRess (Koohpayegani et al. 2020, arXiv 2010.14713) and SEED (Fang et al. 2021, arXiv 2101.04731) do. A batch
        is one forward pass, so this part depends on --batch-tokens, unlike other losses.
        """
        from demiglace.losses.hidden import cosine_distance

        distance = cosine_distance(student, teacher)
        if len(student) < 2:
            return distance
        return distance + categorical(_similarities(student), _similarities(teacher))

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the cosine similarity of each pair, float [N], from [N, 2·D]."""
        first, second = _unit_halves(logits)
        return (first * second).sum(1)

    def agreement(self, student: np.ndarray, teacher: np.ndarray, teacher_task: Self) -> float:
        """Return the mean cosine of the two models' outputs for a row; of unit vectors, the texts' mean cosine.

        Embeddings of different widths are not comparable: of these, Spearman's ρ of the similarities of pairs.
        """
        if student.shape == teacher.shape:
            return float(_cosines(student, teacher).mean())
        return super().agreement(student, teacher, teacher_task)

    def same_predictions(self, expected: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return for which rows the cosine of the two models' outputs is 1, within `parity_tolerance`."""
        return _cosines(expected, logits) >= 1 - self.parity_tolerance

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return Spearman's ρ of similarities and scores, and 0."""
        metric = self.metrics["spearman"].function
        assert metric is not None
        return "Spearman ρ", metric(labels, self.decode(logits)), 0.0

    def hub_task(self, *, masked: bool) -> str:
        """Return the Hub's sentence-similarity."""
        return "sentence-similarity"


class Retrieval(SentenceEmbedding):
    """Labels are 1 for pairs that belong together, else 0. Each first text of such a pair is a query for its second.

    The candidates are the second texts of all pairs.
    """

    def label_fault(self, label: Label) -> str | None:
        """Return what is wrong with a label that is neither 0 nor 1."""
        return None if number(label) in (0, 1) else "label is neither 0 nor 1"

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the rank of each pair's second text among the distinct second texts for its first one, float [N]."""
        queries, seconds = _unit_halves(logits)
        candidates = np.unique(seconds, axis=0)
        right = (queries * seconds).sum(1)
        ranks = []
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            higher = queries[part] @ candidates.T > right[part, None] + 1e-6  # rounding is not a difference
            ranks.append(1.0 + higher.sum(1))
        return np.concatenate(ranks) if ranks else np.zeros(0)

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return the mean reciprocal rank, and that of a random order of N candidates, H_N / N."""
        chance = float(np.mean(1 / np.arange(1, len(labels) + 1)))
        return "MRR", _reciprocal_rank(labels, self.decode(logits)), chance


def _unit_halves(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.split(logits, 2, axis=1)
    return _unit(first), _unit(second)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (_unit(one) * _unit(other)).sum(1)


def _similarities(embeddings: "Tensor") -> "Tensor":
    """Return 20·cos of each embedding with the others, [B, B − 1] from [B, D]."""
    import torch
    import torch.nn.functional as F

    unit = F.normalize(embeddings, dim=-1)
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (_SCALE * unit @ unit.T)[others].view(len(unit), -1)


def _reciprocal_rank(labels: np.ndarray, ranks: np.ndarray) -> float:
    return float(np.mean(1 / ranks[labels == 1])) if (labels == 1).any() else 0.0


def _recall_at(k: int) -> Metric:
    def recall(labels: np.ndarray, ranks: np.ndarray) -> float:
        return float(np.mean(ranks[labels == 1] <= k)) if (labels == 1).any() else 0.0

    return Metric(f"Recall@{k}", f"recall@{k}", recall)


SENTENCE_EMBEDDING = SentenceEmbedding(
    name="sentence-embedding",
    reads="rows",
    unit="row",
    metrics={name: OF_NUMBERS[name] for name in ("spearman", "pearson")},
    default_metrics=("spearman", "pearson"),
    label_columns=SCORE_COLUMNS,
    label_dtype=np.float32,
    no_label=math.nan,
    has_classes=False,
    labels_in_words="the similarity of two texts",
    auto_class="AutoModel",
    problem_type=None,
    agreement_metric="spearman",
    parity_tolerance=0.01,
    readout="",
    separate_texts=True,
)
RETRIEVAL = Retrieval(
    **vars(SENTENCE_EMBEDDING)
    | {
        "name": "retrieval",
        "metrics": {
            "mrr": Metric("MRR", "MRR", _reciprocal_rank),
            "recall_at_1": _recall_at(1),
            "recall_at_10": _recall_at(10),
        },
        "default_metrics": ("mrr", "recall_at_1", "recall_at_10"),
        "labels_in_words": "1 for pairs that belong together, else 0",
        "agreement_metric": "mrr",
    }
)
