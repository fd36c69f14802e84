"""Evaluation on a set with other labels: which of the model's classes count as which of the set's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demiglace.data.rows.schema import LabelSpace
from demiglace.errors import DataError
from demiglace.labels import find, listed, match_names, pair
from demiglace.tasks.classification import CLASSIFICATION

_Table = dict[str, tuple[str, ...] | None]
"""Set label -> the names of the model's classes that count as it, or None if its rows are left out."""


@dataclass(frozen=True)
class LabelFit:
    """The match of a set's labels with a model's classes, by a third list: the classes that are counted."""

    classes: LabelSpace
    """The model's classes, merged if the set does not distinguish them ("neutral or contradiction")."""
    class_map: np.ndarray
    """int64 [C], the counted class of each of the model's C classes: the prediction is `class_map[argmax(logits)]`,
    as McCoy et al. (2019) evaluate a three-way model on HANS."""
    ids: Mapping[str, int | None]  # set label -> counted class, or None if rows with this label are left out
    line: str | None = None  # how they were matched, to print; None if all names are equal


def fit_labels(
    set_names: Sequence[str],
    model_names: Sequence[str],
    given: Mapping[Any, Any] | None = None,
    defaults: Sequence[Mapping[str, Any]] = (),
    *,
    set_order: bool = True,
) -> LabelFit:
    """Fit a set's labels to a model's.

    given: set label -> one, several or none of the model's labels (None: left out); a label that it does not name
    counts as the model's label of the same name. Without `given`, names are matched (`labels.match_names`), then the
    `defaults` are tried in turn. set_order: number the counted classes in the set's order, in which class 1 is the
    positive class of binary F1; else in the model's. Raises `DataError` with both lists of labels if nothing matches.
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
    """Return a user's or a task's map with strings as keys and tuples of strings, or None, as values."""
    plain: _Table = {}
    for label, to in given.items():
        several = to if isinstance(to, (list, tuple)) else [to]
        plain[str(label)] = None if to is None else tuple(str(t) for t in several)
    return plain


def _choose(
    set_names: Sequence[str], model_names: Sequence[str], given: _Table, defaults: Sequence[_Table]
) -> tuple[_Table, str | None]:
    """Return the set's labels in the model's names, and the line to print."""
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
    """Return a table with the model's spelling of its targets, or None if the model lacks one."""
    targets = list(dict.fromkeys(t for to in table.values() for t in to or ()))
    found, _ = pair(targets, model_names)
    if len(found) < len(targets):
        return None
    return {label: None if to is None else tuple(found[t] for t in to) for label, to in table.items()}


def _given_table(set_names: Sequence[str], model_names: Sequence[str], given: _Table) -> _Table:
    """Return a user's map, completed by labels of equal names. Raises `DataError` for unknown names."""
    same, _ = pair(set_names, model_names)
    table: _Table = {label: (name,) for label, name in same.items()}
    for key, to in given.items():
        label = find("label of the set", key, set_names)
        table[label] = None if to is None else tuple(find("label of the model", t, model_names) for t in to)
    left = [name for name in set_names if name not in table]
    if left:
        raise DataError(
            f"--label-map does not name {', '.join(left)}. " + label_mismatch_message(set_names, model_names)
        )
    return {label: table[label] for label in set_names}


def _check_disjoint(groups: Sequence[tuple[int, ...]], model_names: Sequence[str]) -> None:
    members = [i for group in groups for i in group]
    twice = sorted({model_names[i] for i in members if members.count(i) > 1})
    if twice or not groups or () in groups:
        what = (
            f"maps two labels of the set to the model's {', '.join(twice)}"
            if twice
            else "leaves no label to evaluate on"
        )
        raise DataError(f"--label-map {what}; map at most one label of the set to each of the model's labels.")


def label_mismatch_message(set_names: Sequence[str], model_names: Sequence[str]) -> str:
    """Return the message for a set whose labels do not match the model's."""
    return (
        f"The set's labels ({listed(set_names)}) are not the model's ({listed(model_names)}); give the match "
        "with --label-map.SET_LABEL MODEL_LABEL (a list of the model's labels merges them, null leaves rows out)."
    )
