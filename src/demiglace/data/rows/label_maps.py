"""Measuring a model on a set with other labels: which of the model's classes count as which of the set's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demiglace.data.rows.schema import LabelSpace
from demiglace.errors import DataError
from demiglace.labels import find, listed, match_names, pair
from demiglace.tasks.classification import CLASSIFICATION

_Table = dict[str, tuple[str, ...] | None]
"""Set label -> the model's names of it, or none where its rows are left out."""


@dataclass(frozen=True)
class LabelFit:
    """How a set's labels and a model's classes meet in a third list of classes, the ones that are counted.

    classes: the model's classes, those that the set cannot tell apart merged to one ("neutral or contradiction");
    class_map: int64 [C], the counted class of each of the model's C classes: the predicted class is
    `class_map[argmax(logits)]`, as McCoy et al. (2019) count a three-way model on HANS;
    ids: set label -> counted class, or none where rows with this label are left out; line: how they were matched, none
    where all names are the same.
    """

    classes: LabelSpace
    class_map: np.ndarray
    ids: Mapping[str, int | None]
    line: str | None = None


def fit_labels(
    set_names: Sequence[str],
    model_names: Sequence[str],
    given: Mapping[Any, Any] | None = None,
    defaults: Sequence[Mapping[str, Any]] = (),
    *,
    set_order: bool = True,
) -> LabelFit:
    """Fit a set's labels to a model's.

    `given` maps set labels to one, several or none of the model's labels (none: left out); labels that it does not
    name stand for the model's label of the same name. Without it, names are matched (`labels.match_names`), then the
    `defaults` are tried in turn.
    Counted classes come in the set's order, as binary F1 wants its positive class to be 1, or in the model's.
    Raises `DataError` where no way fits, naming both lists of labels and --label-map.
    """
    table, line = _choose(set_names, model_names, _plain(given or {}), [_plain(table) for table in defaults])
    ids = {name: i for i, name in enumerate(model_names)}
    targets = {label: None if to is None else tuple(sorted(ids[t] for t in to)) for label, to in table.items()}
    groups = list(dict.fromkeys(t for t in targets.values() if t is not None))
    _check_disjoint(groups, model_names)
    groups += [(i,) for i in range(len(model_names)) if not any(i in group for group in groups)]
    if not set_order:
        groups.sort()
    class_map = np.empty(len(model_names), dtype=np.int64)
    for k, group in enumerate(groups):
        class_map[list(group)] = k
    names = tuple(" or ".join(model_names[i] for i in group) for group in groups)
    counted = {label: None if t is None else groups.index(t) for label, t in targets.items()}
    return LabelFit(LabelSpace(CLASSIFICATION, names), class_map, counted, line)


def _plain(given: Mapping[Any, Any]) -> _Table:
    """A user's or a task's map with texts for keys and a tuple of texts, or none, for each value."""
    plain: _Table = {}
    for label, to in given.items():
        several = to if isinstance(to, (list, tuple)) else [to]
        plain[str(label)] = None if to is None else tuple(str(t) for t in several)
    return plain


def _choose(
    set_names: Sequence[str], model_names: Sequence[str], given: _Table, defaults: Sequence[_Table]
) -> tuple[_Table, str | None]:
    """The set's labels in the model's names, and the line about it."""
    if given:
        chosen = _given_table(set_names, model_names, given)
        return chosen, _line("--label-map", chosen)
    if match := match_names(set_names, model_names):
        table: _Table = {label: (model_names[i],) for label, i in zip(set_names, match.ids, strict=True)}
        return table, None if match.means == "name" else match.line(set_names, model_names)
    for default in defaults:
        if (fitting := _in_names_of(default, model_names)) is not None:
            chosen = {label: fitting[label] for label in set_names}
            return chosen, _line("the task's own map", chosen)
    raise DataError(label_mismatch_message(set_names, model_names))


def _line(means: str, table: _Table) -> str:
    pairs = [f"{label} = {' or '.join(to)}" if to else f"{label} left out" for label, to in table.items()]
    return f"labels are matched by {means}: {listed(pairs)}."


def _in_names_of(table: _Table, model_names: Sequence[str]) -> _Table | None:
    """A table with its targets as the model names them, or none where the model has not all of them."""
    targets = list(dict.fromkeys(t for to in table.values() for t in to or ()))
    found, _ = pair(targets, model_names)
    if len(found) < len(targets):
        return None
    return {label: None if to is None else tuple(found[t] for t in to) for label, to in table.items()}


def _given_table(set_names: Sequence[str], model_names: Sequence[str], given: _Table) -> _Table:
    """A user's map over the labels of equal names. Raises `DataError` for names that are neither list's."""
    same, _ = pair(set_names, model_names)
    table: _Table = {label: (name,) for label, name in same.items()}
    for key, to in given.items():
        label = find("label of the set", key, set_names)
        table[label] = None if to is None else tuple(find("label of the model", t, model_names) for t in to)
    left = [name for name in set_names if name not in table]
    if left:
        raise DataError(
            f"--label-map says nothing of {', '.join(left)}. " + label_mismatch_message(set_names, model_names)
        )
    return {label: table[label] for label in set_names}


def _check_disjoint(groups: Sequence[tuple[int, ...]], model_names: Sequence[str]) -> None:
    members = [i for group in groups for i in group]
    twice = sorted({model_names[i] for i in members if members.count(i) > 1})
    if twice or not groups or () in groups:
        what = f"counts the model's {', '.join(twice)} as two things" if twice else "leaves nothing to measure"
        raise DataError(f"--label-map {what}; each of the model's labels may stand for one label of the set only.")


def label_mismatch_message(set_names: Sequence[str], model_names: Sequence[str]) -> str:
    """What to say where a set's labels are not the model's."""
    return (
        f"The set's labels ({listed(set_names)}) are not the model's ({listed(model_names)}); say which counts as "
        "which with --label-map.SET_LABEL MODEL_LABEL (a list of the model's labels merges them, null leaves rows out)."
    )
