"""Results of a model on one evaluation set: metrics (overall and by group) and disagreements with the teacher."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from demiglace.data.rows.evaluation_sets import EvaluationSet
from demiglace.data.rows.schema import Split
from demiglace.evaluation.calibration import confidences, expected_calibration_error, worst_class_f1
from demiglace.evaluation.scores import agreement, by_unit, compute, predictions_of
from demiglace.tasks.base import RowTask

EXAMPLES, LONGEST = 20, 10_000


def set_results(
    found: EvaluationSet,
    logits: np.ndarray,
    task: RowTask,
    teacher_logits: np.ndarray | None,
    teacher_task: RowTask | None = None,
) -> dict[str, Any]:
    """Return the results of a set for the manifest.

    logits, teacher_logits: [N, C]; the latter None without a teacher. task, teacher_task: the kind with the decision
    rule of the model and of the teacher. The results are: metrics, the main one first;
    rows; drops; data_revision, the commit of a set on the hub; for classes ece and worst_class_f1; with a teacher the
    agreement with it and, if there are no classes,
    teacher_difference, the mean absolute difference of the outputs; for words their number, and how many are lost
    because they have no token; groups: part of the set, or of what the kind counts (`RowTask.parts`) -> its metrics and
    rows.
    """
    labels, task = found.split.labels, task.with_names(found.classes.names)
    result: dict[str, Any] = {
        "metrics": compute(found.metrics, labels, logits, task, found.class_map) if found.metrics else {},
        "rows": len(labels),
        "drops": dict(found.drops),
    } | ({"data_revision": found.revision} if found.revision else {})
    if task.has_classes:
        of_units, unit_logits = by_unit(labels, logits, task)
        predictions = predictions_of(unit_logits, task, found.class_map)
        confidence = confidences(unit_logits, found.class_map)
        result["ece"] = expected_calibration_error(predictions == of_units, confidence)
        result["worst_class_f1"] = worst_class_f1(of_units, predictions)
    if task.unit == "word":
        lost = (labels >= 0) & np.isnan(logits).any(axis=-1)
        result["words"] = {"total": int((labels >= 0).sum()), "lost": int(lost.sum())}
    if parts := task.parts(task.readable(labels), task.readable(predictions_of(logits, task, found.class_map))):
        result["groups"] = parts
    if teacher_logits is not None:
        result["agreement"] = agreement(logits, teacher_logits, task, found.class_map, teacher_task)
        if not task.has_classes and logits.shape == teacher_logits.shape:
            result["teacher_difference"] = float(np.abs(logits - teacher_logits).mean())
    if found.split.groups is not None and found.metrics:
        result["groups"] = _groups(found, found.split.groups, logits, task)
    return result


def _groups(
    found: EvaluationSet, groups: Sequence[str], logits: np.ndarray, task: RowTask
) -> dict[str, dict[str, Any]]:
    names = np.array(groups)
    parts = {name: np.flatnonzero(names == name) for name in dict.fromkeys(groups)}
    return {
        name: {
            "metrics": compute(found.metrics, found.split.labels[rows], logits[rows], task, found.class_map),
            "rows": len(rows),
        }
        for name, rows in parts.items()
    }


def disagreements(found: EvaluationSet, logits: np.ndarray, teacher_logits: np.ndarray) -> dict[str, Any]:
    """Return where student and teacher predict different classes of rows or words: counts, confusions and examples.

    counts: both_right, lost (only the teacher is right), gained (only the student is), both_wrong; confusions: how
    often the student predicts `to` where the teacher predicts `from`, most frequent first; examples: up to 20 rows each
    of lost and gained, those with the student's highest confidence first.
    """
    names, task = found.classes.names, found.classes.task
    index = _units_with_logits(found, logits, teacher_logits)
    labels, logits, teacher_logits = found.split.labels[index], logits[index], teacher_logits[index]
    student = predictions_of(logits, task, found.class_map)
    teacher = predictions_of(teacher_logits, task, found.class_map)
    right, was_right = student == labels, teacher == labels
    lost, gained = was_right & ~right, right & ~was_right
    confidence = confidences(logits, found.class_map)

    def examples(flags: np.ndarray) -> list[dict[str, Any]]:
        units = np.flatnonzero(flags)
        units = units[np.argsort(-confidence[units], kind="stable")][:EXAMPLES]
        return [
            _example(found.split, tuple(int(i[u]) for i in index))
            | {"label": names[labels[u]], "teacher": names[teacher[u]], "student": names[student[u]]}
            | {"confidence": round(float(confidence[u]), 4)}
            for u in units
        ]

    return {
        "rows": len(labels),
        "counts": {
            "both_right": int((right & was_right).sum()),
            "lost": int(lost.sum()),
            "gained": int(gained.sum()),
            "both_wrong": int((~right & ~was_right).sum()),
        },
        "confusions": _confusions(student, teacher, names),
        "examples": {"lost": examples(lost), "gained": examples(gained)},
    }


def _units_with_logits(found: EvaluationSet, *logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the index of the units that have a label and both models' logits: of rows [N], or of words [U] twice."""
    if found.classes.task.unit == "row":
        return (np.arange(len(found.split)),)
    return np.nonzero((found.split.labels >= 0) & np.isfinite(logits).all(axis=(0, -1)))


def _example(split: Split, unit: tuple[int, ...]) -> dict[str, Any]:
    """Return the texts of a row, or that of a word's row with the word in brackets; unit: as in its index."""
    row, *word = unit
    text = split.texts[row]
    if word and split.words is not None:
        text = " ".join(f"[{w}]" if i == word[0] else w for i, w in enumerate(split.words[row]))
    return {"text": text[:LONGEST], "pair": None if split.pairs is None else split.pairs[row][:LONGEST]}


def _confusions(student: np.ndarray, teacher: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    differ = student != teacher
    pairs, counts = np.unique(np.stack([teacher[differ], student[differ]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:EXAMPLES]
    return [{"from": names[pairs[i][0]], "to": names[pairs[i][1]], "rows": int(counts[i])} for i in order]
