"""Measuring a model on a set with other labels: which of the model's classes count as which of the set's labels."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demiglace.data.rows import LabelSpace
from demiglace.errors import DataError, unknown


@dataclass(frozen=True)
class LabelFit:
    """How a set's labels and a model's classes meet in a third list of classes, the ones that are counted.

    classes: the model's classes, those that the set cannot tell apart merged to one ("neutral or contradiction");
    class_map: int64 [C], the counted class of each of the model's C classes: the predicted class is
    `class_map[argmax(logits)]`, as McCoy et al. (2019) count a three-way model on HANS;
    ids: set label -> counted class, or none where rows with this label are left out.
    """

    classes: LabelSpace
    class_map: np.ndarray
    ids: Mapping[str, int | None]


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
    name stand for the model's label of the same name. Without it, equal names are tried, then the `defaults` in turn.
    Counted classes come in the set's order, as binary F1 wants its positive class to be 1, or in the model's.
    Raises `DataError` where no way fits, naming both lists of labels and --label-map.
    """
    table = _choose(set_names, model_names, _plain(given or {}), defaults)
    ids = {normal(name): i for i, name in enumerate(model_names)}
    targets = {label: None if to is None else tuple(sorted(ids[normal(t)] for t in to)) for label, to in table.items()}
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
    return LabelFit(LabelSpace("classification", names), class_map, counted)


def is_generic(names: Iterable[str]) -> bool:
    """Whether a model names its classes only by number: LABEL_0, LABEL_1, …"""
    return all(re.fullmatch(r"label_\d+", name, re.IGNORECASE) for name in names)


def normal(name: str) -> str:
    """A label as it is compared: NOT_ENTAILMENT, not-entailment and "Not entailment" are one."""
    return re.sub(r"[\s_-]+", " ", name.strip()).lower()


def _plain(given: Mapping[Any, Any]) -> dict[str, tuple[str, ...] | None]:
    """A user's or a task's map with texts for keys and a tuple of texts, or none, for each value."""
    plain: dict[str, tuple[str, ...] | None] = {}
    for label, to in given.items():
        several = to if isinstance(to, (list, tuple)) else [to]
        plain[str(label)] = None if to is None else tuple(str(t) for t in several)
    return plain


def _choose(
    set_names: Sequence[str],
    model_names: Sequence[str],
    given: Mapping[str, tuple[str, ...] | None],
    defaults: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[str, ...] | None]:
    same: dict[str, tuple[str, ...] | None] = {name: (name,) for name in set_names}
    if given:
        _check_given(given, set_names, model_names)
        return same | {label: given[key] for label in set_names for key in given if normal(key) == normal(label)}
    candidates = [same, *map(_plain, defaults)]
    for table in candidates:
        if _fits(table, model_names):
            return table
    raise DataError(no_fit(set_names, model_names))


def _fits(table: Mapping[str, tuple[str, ...] | None], model_names: Sequence[str]) -> bool:
    known = {normal(name) for name in model_names}
    return all(normal(t) in known for to in table.values() if to is not None for t in to)


def _check_given(
    given: Mapping[str, tuple[str, ...] | None], set_names: Sequence[str], model_names: Sequence[str]
) -> None:
    known_set, known_model = {normal(n) for n in set_names}, {normal(n) for n in model_names}
    for label, to in given.items():
        if normal(label) not in known_set:
            raise DataError("--label-map: " + unknown("label of the set", label, set_names))
        for target in to or ():
            if normal(target) not in known_model:
                raise DataError("--label-map: " + unknown("label of the model", target, model_names))
    left = [n for n in set_names if normal(n) not in known_model | {normal(k) for k in given}]
    if left:
        raise DataError(f"--label-map says nothing of {', '.join(left)}. " + no_fit(set_names, model_names))


def _check_disjoint(groups: Sequence[tuple[int, ...]], model_names: Sequence[str]) -> None:
    members = [i for group in groups for i in group]
    twice = sorted({model_names[i] for i in members if members.count(i) > 1})
    if twice or not groups or () in groups:
        what = f"counts the model's {', '.join(twice)} as two things" if twice else "leaves nothing to measure"
        raise DataError(f"--label-map {what}; each of the model's labels may stand for one label of the set only.")


def no_fit(set_names: Sequence[str], model_names: Sequence[str]) -> str:
    """What to say where a set's labels are not the model's."""
    return (
        f"The set's labels ({_listed(set_names)}) are not the model's ({_listed(model_names)}); say which counts as "
        "which with --label-map.SET_LABEL MODEL_LABEL (a list of the model's labels merges them, null leaves rows out)."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", … {len(names)} in all" if len(names) > 8 else "")
