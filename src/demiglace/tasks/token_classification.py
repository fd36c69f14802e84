"""Token classification: one of C tags for each word of a row, such as named entities in BIO tags.

A row is a list of words with a list of tags. A model has one vector of logits for each word, at its first token; losses
and metrics are over words. Entities are counted by seqeval, in its default mode, which is that of CoNLL's conlleval:
B-X, or I-X after another type, begins an entity, and an entity is right where its type and all of its words are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from demiglace.tasks.base import Label, Metric, RowTask, names_in
from demiglace.tasks.classification import UNLABELLED

if TYPE_CHECKING:
    from torch import Tensor

OUTSIDE = "O"  # the tag of a word that belongs to no entity
NO_WORD = -1  # the prediction for a word that has no logits
_TAG = re.compile(r"[BIES]-.+")
_PREFIXES = "BIES"


@dataclass(frozen=True, eq=False)
class TokenClassification(RowTask):
    """Labels are tag ids, int64 [N, W], `UNLABELLED` after the last word of a row; logits are [N, W, C].

    The logits of a word without a token, for which there is no room within --max-length, are NaN.
    """

    names: tuple[str, ...] = ()  # the tags by id, which metrics read; see `with_names`

    def head_width(self, names: Sequence[str]) -> int:
        """Return the number of tags."""
        return len(names)

    def label_fault(self, label: Label) -> str | None:
        """Return what is wrong with the tags of a row: they must be O, or B-, I-, E- or S- with a type."""
        return None if all(tag == OUTSIDE or _TAG.fullmatch(tag) for tag in names_in(label)) else "tag is no BIO tag"

    def label_names(self, labels: Sequence[Label]) -> tuple[str, ...]:
        """Return O, and for each type in alphabetical order the prefixes that occur with any type: B-LOC, I-LOC, …

        A small training set may lack I-LOC, which a validation set then has.
        """
        tags = {tag for label in labels for tag in names_in(label)} - {OUTSIDE}
        prefixes = [prefix for prefix in _PREFIXES if any(tag.startswith(prefix) for tag in tags)]
        types = sorted({tag[2:] for tag in tags})
        return (OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in prefixes))

    def encode(self, labels: Sequence[Label | None], names: Sequence[str]) -> np.ndarray:
        """Return tag ids, int64 [N, W]; a row without tags is `UNLABELLED`."""
        ids = {name: i for i, name in enumerate(names)}
        tags = [() if label is None else names_in(label) for label in labels]
        encoded = np.full((len(tags), max(map(len, tags), default=0)), UNLABELLED, dtype=np.int64)
        for row, own in zip(encoded, tags, strict=True):
            row[: len(own)] = [ids[tag] for tag in own]
        return encoded

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which rows have a tag, bool [N]."""
        return np.any(labels >= 0, axis=-1)

    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the cross-entropy of each word with its tag; 0 for a word without one."""
        import torch.nn.functional as F

        return F.cross_entropy(logits, labels, reduction="none", ignore_index=UNLABELLED)

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the most likely tag of each word, int64 [N, W]; `NO_WORD` where there are no logits."""
        best = np.nan_to_num(logits).argmax(axis=-1)
        return np.where(np.isfinite(logits).all(axis=-1), best, NO_WORD)

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return the mean recall of the tags, and that of any constant tag: O alone is right for most words."""
        known = labels >= 0
        predictions = self.decode(logits)[known]
        recalls = [float((predictions[labels[known] == tag] == tag).mean()) for tag in np.unique(labels[known])]
        return "mean recall of the tags", float(np.mean(recalls)), 1 / len(recalls)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the first tag of each row that is not O, which has the id 0."""
        first = (labels > 0).argmax(axis=1)
        return np.maximum(labels[np.arange(len(labels)), first], 0)

    def rows_by_name(self, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the number of rows that have each tag."""
        return np.array([(labels == i).any(axis=1).sum() for i in range(len(names))], dtype=np.int64)

    def recognizes(self, columns: Mapping[str, Sequence[Any]]) -> bool:
        """Return whether a table has a column of lists of words, by its name and its first value."""
        by_name = {name.lower(): values for name, values in columns.items()}
        found = [by_name[name] for name in self.text_columns if name in by_name]
        return any(isinstance(next((v for v in values if v is not None), None), (list, tuple)) for values in found)

    def with_names(self, names: Sequence[str]) -> Self:
        """Return the kind with the tags by id."""
        return replace(self, names=tuple(names))

    def readable(self, encoded: np.ndarray) -> np.ndarray:
        """Return tags instead of ids, str [N, W]; "" after the last word, and for a word without a prediction."""
        assert self.names, "with_names comes first"
        return np.array([*self.names, ""])[np.where(encoded < 0, len(self.names), encoded)]

    def parts(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, dict[str, Any]]:
        """Return for each type of entity its metrics, and how many entities there are (`rows`)."""
        from seqeval.metrics import classification_report

        found = classification_report(*_sequences(labels, predictions), output_dict=True, zero_division=0)
        return {
            name: {
                "metrics": {
                    "entity_f1": float(part["f1-score"]),
                    "entity_precision": float(part["precision"]),
                    "entity_recall": float(part["recall"]),
                },
                "rows": int(part["support"]),
            }
            for name, part in found.items()
            if not name.endswith(" avg")
        }

    def hub_task(self, *, masked: bool) -> str:
        """Return the Hub's token-classification."""
        return "token-classification"


def _sequences(labels: np.ndarray, predictions: np.ndarray) -> tuple[list[list[str]], list[list[str]]]:
    """Return the tags of each row as lists, from arrays of `readable`; a word without a prediction is outside."""
    known = labels != ""
    answered = np.where(predictions == "", OUTSIDE, predictions)
    return (
        [row[is_word].tolist() for row, is_word in zip(labels, known, strict=True)],
        [row[is_word].tolist() for row, is_word in zip(answered, known, strict=True)],
    )


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    from seqeval.metrics import f1_score

    return float(f1_score(*_sequences(labels, predictions), zero_division=0))


def _precision(labels: np.ndarray, predictions: np.ndarray) -> float:
    from seqeval.metrics import precision_score

    return float(precision_score(*_sequences(labels, predictions), zero_division=0))


def _recall(labels: np.ndarray, predictions: np.ndarray) -> float:
    from seqeval.metrics import recall_score

    return float(recall_score(*_sequences(labels, predictions), zero_division=0))


def _word_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    known = labels != ""
    return float((labels == predictions)[known].mean()) if known.any() else 0.0


def entity_counts(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return for each row how many entities are found, how many are predicted and how many there are, int64 [N, 3].

    Arrays are those of `readable`. Their sums over rows give the metrics of entities.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    counts = []
    for true, predicted in zip(*_sequences(labels, predictions), strict=True):
        there, found = set(get_entities(true)), set(get_entities(predicted))
        counts.append((len(there & found), len(found), len(there)))
    return np.array(counts, dtype=np.int64).reshape(-1, 3)


TOKEN_CLASSIFICATION = TokenClassification(
    name="token-classification",
    reads="rows",
    unit="word",
    metrics={
        "entity_f1": Metric("Entity F1", "entity F1", _f1, hub="f1"),
        "entity_precision": Metric("Precision", "precision of entities", _precision, hub="precision"),
        "entity_recall": Metric("Recall", "recall of entities", _recall, hub="recall"),
        "word_accuracy": Metric("Accuracy of words", "accuracy of words", _word_accuracy, hub="accuracy"),
    },
    default_metrics=("entity_f1", "entity_precision", "entity_recall"),
    label_columns=("tags", "ner_tags", "ner", "labels", "label", "bio"),
    label_dtype=np.int64,
    no_label=UNLABELLED,
    has_classes=True,
    labels_in_words="",
    auto_class="AutoModelForTokenClassification",
    problem_type=None,
    agreement_metric="word_accuracy",
    parity_tolerance=0.0,
    readout="",
    label_separators=(" ",),
    text_columns=("tokens", "words"),
    packages=("seqeval",),
    install="tokens",
)
