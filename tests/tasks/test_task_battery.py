"""The properties that every kind of problem must have. A new kind gets a row in EXAMPLES, and nothing else here.

`counts` is a kind that only tests have, which shows that its file and its rows are all that a kind needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers
from counts_task import COUNTS
from torch import Tensor

from demiglace.evaluation.scores import agreement, compute
from demiglace.losses.divergences import forward_kl
from demiglace.models.labels import label_names_of_config, set_labels, task_of_config
from demiglace.tasks.base import Label, RowTask, Task
from demiglace.tasks.registry import TASK_KINDS
from factories import tiny_config

KINDS = TASK_KINDS | {"counts": COUNTS}


@dataclass(frozen=True)
class Example:
    """Four units of a kind, each in a row of its own."""

    labels: Sequence[Label]  # as a file has them
    logits: Sequence[Sequence[float]]  # of a perfect model
    wrong: Label | None  # a label that is none of the kind; None where any text is one


EXAMPLES = {
    "classification": Example(("b", "a", "c", "b"), ((0, 9, 1), (9, 0, 1), (0, 1, 9), (0, 9, 1)), None),
    "regression": Example(("0.5", "-1", "2", "3e1"), ((0.5,), (-1,), (2,), (30,)), "n/a"),
    "sentence-embedding": Example(
        ("1", "0", "0.6", "1"), ((1, 0, 1, 0), (1, 0, 0, 1), (1, 0, 0.6, 0.8), (0, 1, 0, 1)), "n/a"
    ),
    "token-classification": Example(
        (("B-a",), ("O",), ("I-a",), ("B-a",)), ((0, 9, 1), (9, 0, 1), (0, 1, 9), (0, 9, 1)), ("B-a", "NOUN")
    ),
    "language-modelling": Example(("1", "0", "2", "1"), ((0, 9, 1), (9, 0, 1), (0, 1, 9), (0, 9, 1)), None),
    "multi-label": Example(
        (("b",), ("a", "c"), (), ("b", "c")), ((-9, 9, -8), (9, -8, 9), (-9, -9, -9), (-8, 9, 8)), None
    ),
    "counts": Example(("1", "2", "4", "1"), ((0,), (np.log(2),), (np.log(4),), (0,)), "1.5"),
}
ROW_KINDS = {name: task for name, task in KINDS.items() if isinstance(task, RowTask)}
every_kind = pytest.mark.parametrize("task", KINDS.values(), ids=KINDS)
row_kinds = pytest.mark.parametrize("task", ROW_KINDS.values(), ids=ROW_KINDS)


def logits_of(task: Task) -> Tensor:
    return torch.tensor(EXAMPLES[task.name].logits, dtype=torch.float32, requires_grad=True)


def labels_of(task: Task) -> np.ndarray:
    labels = EXAMPLES[task.name].labels
    return task.encode(labels, task.label_names(labels)) if isinstance(task, RowTask) else np.array(labels, np.int64)


def by_unit(task: Task, of_rows: np.ndarray) -> np.ndarray:
    """The labels of the units: those of words have a dimension more, as a row may have several."""
    return of_rows[:, 0] if task.unit == "word" else of_rows


def by_row(task: Task, logits: Sequence[Sequence[float]]) -> np.ndarray:
    of_units = np.array(logits)
    return of_units[:, None] if task.unit == "word" else of_units


def test_every_kind_is_in_the_battery() -> None:
    assert set(EXAMPLES) == set(KINDS)


@every_kind
def test_the_registry_has_a_kind_under_its_name(task: Task) -> None:
    assert KINDS[task.name] is task
    assert task.default_metrics
    assert set(task.default_metrics) <= set(task.metrics)


@every_kind
def test_the_loss_is_one_number_a_unit_and_least_for_the_labels(task: Task) -> None:
    logits, labels = logits_of(task), torch.from_numpy(by_unit(task, labels_of(task)))
    loss = task.loss(logits, labels)
    loss.sum().backward()
    assert loss.shape == (4,)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-2
    assert (task.loss(logits.detach().roll(1, 0), labels) >= loss).all()
    assert task.loss(logits.detach().roll(1, 0), labels).sum() > loss.sum() + 0.1


@every_kind
def test_the_divergence_is_zero_for_equal_outputs_and_positive_for_others(task: Task) -> None:
    teacher = logits_of(task).detach()
    student = teacher.roll(1, 0).requires_grad_()
    distance = task.divergence(student, teacher, lambda s, t: forward_kl(s, t, 2.0))
    distance.sum().backward()
    assert distance.shape == (4,)
    assert (distance[(teacher != student).any(1)] > 0).all()
    assert student.grad is not None and student.grad.abs().max() > 0
    same = task.divergence(teacher, teacher, lambda s, t: forward_kl(s, t, 2.0))
    assert same.abs().max() < 1e-6


@row_kinds
def test_labels_are_encoded_and_decoded(task: RowTask) -> None:
    example = EXAMPLES[task.name]
    names, labels = task.label_names(example.labels), labels_of(task)
    assert labels.dtype == task.label_dtype
    assert task.head_width(names) in (len(example.logits[0]), 0)  # 0: the width is the model's
    assert task.has_classes <= bool(names)
    assert bool(names) != bool(task.labels_in_words)
    np.testing.assert_allclose(task.decode(by_row(task, example.logits)), labels, rtol=1e-6)
    assert all(task.label_fault(label) is None for label in example.labels)
    assert (example.wrong is None) or task.label_fault(example.wrong)


@row_kinds
def test_a_missing_label_is_recognized_and_has_a_finite_loss_and_gradient(task: RowTask) -> None:
    example = EXAMPLES[task.name]
    labels = task.encode([None, *example.labels[1:]], task.label_names(example.labels))
    assert task.is_labelled(labels).tolist() == [False, True, True, True]
    np.testing.assert_equal(by_unit(task, labels)[0], task.label_dtype(task.no_label))
    logits = logits_of(task)
    loss = task.loss(logits, torch.from_numpy(by_unit(task, labels))) * torch.tensor([0.0, 1.0, 1.0, 1.0])
    loss.sum().backward()
    assert loss.isfinite().all() and loss[0] == 0
    assert logits.grad is not None and logits.grad.isfinite().all() and (logits.grad[0] == 0).all()


@row_kinds
def test_a_perfect_model_has_the_best_value_of_every_metric(task: RowTask) -> None:
    logits, labels = by_row(task, EXAMPLES[task.name].logits), labels_of(task)
    task = task.with_names(task.label_names(EXAMPLES[task.name].labels))
    best = {name: pytest.approx(1.0 if m.higher_is_better else 0.0, abs=1e-6) for name, m in task.metrics.items()}
    assert compute(list(task.metrics), labels, logits, task) == best
    worse = compute(list(task.metrics), labels, np.roll(logits, 1, 0), task)
    for name, metric in task.metrics.items():
        assert (worse[name] < 1) if metric.higher_is_better else (worse[name] > 0)
    assert agreement(logits, logits, task) == best[task.agreement_metric]
    _, score, chance = task.score_and_chance(labels, logits)
    assert score > chance


@row_kinds
def test_a_config_keeps_the_kind(task: RowTask) -> None:
    assert hasattr(transformers, task.auto_class)
    names = task.label_names(EXAMPLES[task.name].labels)
    config = tiny_config("bert")
    set_labels(config, (), COUNTS)  # the model was one of another kind
    set_labels(config, names, task)
    assert config.num_labels == task.head_width(names)
    assert label_names_of_config(config) == names
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASK_KINDS, "counts", COUNTS)
        assert task_of_config(type(config).from_dict(config.to_dict())) is task
