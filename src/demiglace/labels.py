"""Match labels with a model's class names; all commands compare labels in this way.

Names are matched exactly, then without regard to case, then also without regard to hyphens, underscores and spaces;
each of them only where it is one-to-one, so that two classes are never merged. A model whose classes have no names but
LABEL_0, LABEL_1, … is matched by number, or by the order of the labels.
"""

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from demiglace.errors import DataError, ModelError, unknown

Means = Literal["name", "case", "spelling", "number", "order", "map"]
_SHOWN = 8


def fold_case(name: str) -> str:
    """Return a name without case and without what Unicode can write in two ways: ÉTÉ is été, Straße is STRASSE."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def fold_spelling(name: str) -> str:
    """Return `fold_case` with one space for hyphens, underscores and spaces: NOT_ENTAILMENT is not-entailment."""
    return re.sub(r"[\s_-]+", " ", fold_case(name)).strip()


_FOLDS: dict[Means, Callable[[str], str]] = {"name": str, "case": fold_case, "spelling": fold_spelling}


@dataclass(frozen=True)
class Match:
    """The model's class of each label."""

    ids: tuple[int, ...]  # for each label the id of its class in the model
    means: Means  # how they were matched; the loosest way of all labels

    @property
    def assumed(self) -> bool:
        """Return whether only the positions of the classes were matched, which labelled rows must confirm."""
        return self.means in ("number", "order")

    @property
    def is_identity(self) -> bool:
        """Return whether the labels are in the model's order."""
        return self.ids == tuple(range(len(self.ids)))

    def line(self, labels: Sequence[str], names: Sequence[str]) -> str | None:
        """Return what to print about the match, or none where the names and their order are the same."""
        if self.means == "name":
            return None if self.is_identity else f"the model has the labels in another order: {listed(names)}."
        pairs = [f"{label} = {names[i]}" for label, i in zip(labels, self.ids, strict=True)]
        return f"{_MEANS[self.means]}: {listed(pairs)}.{_ADVICE if self.assumed else ''}"


_MEANS: dict[Means, str] = {
    "case": "labels are matched without regard to case",
    "spelling": "labels are matched without regard to case, hyphens, underscores and spaces",
    "number": "labels are matched by number, as the ids of the model's classes",
    "order": "the model's classes have no names; they are taken in the order of the labels",
    "map": "labels are matched by --label-map",
}
_ADVICE = " --label-map.LABEL MODEL_LABEL changes that."


def pair(names: Sequence[str], others: Sequence[str]) -> tuple[dict[str, str], Means]:
    """Return which of the other names each name is, without those that are none of them, and by what they match.

    A name matches exactly, or in a looser way in which it is unique among `names` and the other one among `others`.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    loosest: Means = "name"
    for means, fold in _FOLDS.items():
        mine, theirs = _unique(names, fold), _unique(others, fold)
        both = {mine[key]: theirs[key] for key in mine if key in theirs}
        new = {name: other for name, other in both.items() if name not in found and other not in taken}
        if new:
            found, taken, loosest = found | new, taken | set(new.values()), means
    return found, loosest


def _unique(names: Iterable[str], fold: Callable[[str], str]) -> dict[str, str]:
    """Return folded name -> name, without folded names that several names share."""
    distinct = list(names)
    counts = Counter(map(fold, distinct))
    return {key: name for name in distinct if counts[key := fold(name)] == 1}


def match_names(labels: Sequence[str], names: Sequence[str]) -> Match | None:
    """Return the match of the labels with a model's class names, or none where a label is none of them."""
    found, means = pair(labels, names)
    if len(found) < len(labels):
        return None
    ids = {name: i for i, name in enumerate(names)}
    return Match(tuple(ids[found[label]] for label in labels), means)


def match_by_number(labels: Sequence[str], names: Sequence[str]) -> Match | None:
    """Return the match of labels that are numbers with class ids, or none where they are not these (`numbered`)."""
    ids = numbered(labels, names)
    return Match(tuple(ids[label] for label in labels), "number") if len(ids) == len(labels) else None


def numbered(labels: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the class ids of the labels that are numbers below that of the classes, as 3 or LABEL_3.

    Without a 0 among them, a model whose classes have no names might count from 1; its classes are then not matched.
    """
    found = {label: i for label in labels if (i := _number(label)) is not None and i < len(names)}
    ambiguous = is_generic(names) and 0 not in found.values()
    return {} if ambiguous or len(set(found.values())) < len(found) else found


def match_by_order(labels: Sequence[str], names: Sequence[str]) -> Match | None:
    """Return the match by position of as many labels as a model has classes without names, else none."""
    if not is_generic(names) or len(labels) != len(names):
        return None
    return Match(tuple(range(len(names))), "order")


def match_all(
    labels: Sequence[str], names: Sequence[str], given: Mapping[str, str | list[str] | None] | None = None
) -> Match | None:
    """Return the match of all of a model's classes with as many labels: by --label-map, name, number or order.

    given: labels to class names; labels that it leaves out are matched by name. Returns none where the labels are not
    the model's. Raises `DataError` for a map that does not give each label a class of its own.
    """
    if given:
        return _match_given(labels, names, given)
    if len(labels) != len(names):
        return None
    ways = (match_names, match_by_number, match_by_order)
    return next((found for way in ways if (found := way(labels, names)) is not None), None)


def match_teacher(
    labels: Sequence[str], names: Sequence[str], given: Mapping[str, str | list[str] | None] | None = None
) -> Match:
    """Return the teacher's class (of `names`) of each of the rows' labels, as `match_all` finds it.

    Raises `ModelError` where they are not the same classes, and `DataError` for a wrong --label-map.
    """
    match = match_all(labels, names, given)
    if match is None or len(labels) != len(names):
        raise ModelError(
            f"the teacher's labels are {listed(names) or 'numbers'}, the rows' are {listed(labels) or 'numbers'}; if "
            "they mean the same classes, give --label-map.ROW_LABEL TEACHER_LABEL for each. Otherwise take the data "
            "that the teacher was fine-tuned on, or fine-tune a teacher on these rows with `demiglace finetune`."
        )
    return match


def _match_given(
    labels: Sequence[str], names: Sequence[str], given: Mapping[str, str | list[str] | None]
) -> Match | None:
    found, _ = pair(labels, names)
    for key, value in given.items():
        targets = value if isinstance(value, (list, tuple)) else [value]
        if len(targets) != 1 or targets[0] is None:
            raise DataError(f"--label-map.{key} was given {value!r}; expected one of the teacher's labels.")
        found[find("label of the rows", str(key), labels)] = find("label of the model", str(targets[0]), names)
    if len(found) < len(labels):
        return None
    twice = [name for name, count in Counter(found.values()).items() if count > 1]
    if twice:
        raise DataError(
            f"--label-map gives {', '.join(twice)} to several labels; expected a class of its own for each."
        )
    ids = {name: i for i, name in enumerate(names)}
    return Match(tuple(ids[found[label]] for label in labels), "map")


def find(kind: str, name: str, names: Sequence[str]) -> str:
    """Return the name that a key or a value of --label-map means. Raises `DataError` where there is none."""
    found, _ = pair([name], names)
    if not found:
        raise DataError("--label-map: " + unknown(kind, name, names))
    return found[name]


def flags(labels: Sequence[str], names: Sequence[str]) -> str:
    """Return the options of a command line that map each label to the class name at its position."""
    return " ".join(
        f"{shlex.quote(f'--label-map.{label}')} {shlex.quote(name)}" for label, name in zip(labels, names, strict=True)
    )


def is_generic(names: Iterable[str]) -> bool:
    """Return whether a model numbers its classes only: LABEL_0, LABEL_1, …"""
    return all(re.fullmatch(r"label_\d+", name, re.IGNORECASE) for name in names)


def _number(label: str) -> int | None:
    found = re.fullmatch(r"(?:label_)?(0|[1-9]\d{0,8})", label, re.IGNORECASE | re.ASCII)
    return int(found[1]) if found else None


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are where not all are shown."""
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)} in all)" if len(names) > _SHOWN else "")
