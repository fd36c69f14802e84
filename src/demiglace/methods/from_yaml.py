"""Methods composed in a YAML file of terms, mappings and projections; and any method described in that same form.

    terms:
    - {term: task, weight: 0.3}
    - {term: kd, weight: 0.3, temperature: 2, divergence: jsd, beta: 0.1}
    - {term: layers, weight: 0.4, mapping: {kind: random, sampling: step}, pooling: mean, distance: cosine}

Each term's keys are the fields of its class; `demiglace methods show NAME` prints any named method, ready to edit.
"""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from demiglace.config.coerce import convert, describe_type
from demiglace.config.options import Option, read_yaml
from demiglace.errors import ConfigError, unknown
from demiglace.methods.base import Augmentation, Epoch, Method, Term, WeightedTerm
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.methods.terms.attention import AttentionDistillation
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_buckets import BucketDistillation
from demiglace.methods.terms.layer_mapping import (
    AllLayersMapping,
    AllToOne,
    ExplicitMapping,
    Final,
    Last,
    LayerMapping,
    RandomSorted,
    Reverse,
    Skip,
    UniformMapping,
)
from demiglace.methods.terms.logits import AnnealedLogits, LogitDistillation, TaskLoss
from demiglace.methods.terms.pseudo_classifiers import PseudoClassifierDistillation
from demiglace.methods.terms.scheduled import Schedule, ScheduledTerm

TERMS: dict[str, type[Term]] = {
    "task": TaskLoss,
    "kd": LogitDistillation,
    "annealed": AnnealedLogits,
    "layers": LayerDistillation,
    "buckets": BucketDistillation,
    "pseudo": PseudoClassifierDistillation,
    "attention": AttentionDistillation,
}
MAPPINGS: dict[str, type[LayerMapping]] = {
    "skip": Skip,
    "last": Last,
    "uniform": UniformMapping,
    "final": Final,
    "all": AllLayersMapping,
    "random": RandomSorted,
    "reverse": Reverse,
    "all-to-one": AllToOne,
    "list": ExplicitMapping,
}
AUGMENTATIONS: dict[str, type[Augmentation]] = {"adversarial-masking": AdversarialMasking}
_KINDS: dict[type, dict[str, Any]] = {LayerMapping: MAPPINGS, Augmentation: AUGMENTATIONS}
_KEYS = ("terms", "phases", "augmentation", "starts_from", "short_phases")
_ROW = ("term", "weight", "phase", "input", "course", "until")


def read_method(file: str) -> Method:
    """Return the method in a YAML file. Raises `ConfigError` for an unknown name, with the nearest known one."""
    try:
        return compose(read_yaml(file))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def compose(content: Mapping[str, Any]) -> Method:
    """Build the method that these keys describe, as `describe_method` writes them. Raises `ConfigError`."""
    for key in content:
        if key not in _KEYS:
            raise ConfigError(unknown("key", key, _KEYS))
    rows, phases = content.get("terms"), content.get("phases", [1.0])
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"terms was given {rows!r}; expected a list of at least one term.")
    shares = _value("phases", tuple[float, ...], phases)
    if not shares or not all(0 < share < math.inf for share in shares):
        raise ConfigError(f"phases was given {phases!r}; expected the shares of the epochs, each above 0.")
    augmentation = content.get("augmentation")
    made = None if augmentation is None else _object("augmentation", Augmentation, augmentation)
    terms = tuple(_weighted(f"terms[{i}]", row, len(shares)) for i, row in enumerate(rows))
    if made is None and any(w.input == "perturbed" for w in terms):
        raise ConfigError("a term reads perturbed text and no augmentation makes it; add one.")
    starts_from = _value("starts_from", Epoch, content.get("starts_from", "last"))
    short = _value("short_phases", bool, content.get("short_phases", False))
    return Method(terms, shares, made, starts_from, short)


def describe_method(method: Method) -> dict[str, Any]:
    """Return the method as `compose` reads it, every choice written out.

    A term, mapping or augmentation that has no name in YAML, since it is defined elsewhere in Python, appears as
    `module.Class`; `compose` refuses such a name. Raises `ConfigError` for a class that cannot be described.
    """
    content: dict[str, Any] = {"terms": [_row(w) for w in method.terms]}
    if len(method.phases) > 1:
        content["phases"] = list(method.phases)
        content |= {"starts_from": method.starts_from, "short_phases": method.short_phases}
    if method.augmentation is not None:
        content["augmentation"] = _to_plain(method.augmentation)
    return content


def _weighted(place: str, row: Any, phases: int) -> WeightedTerm:
    if not isinstance(row, dict) or "term" not in row:
        raise ConfigError(f"{place} was given {row!r}; expected {{term: NAME, weight: …}}.")
    if not isinstance(row["term"], str) or row["term"] not in TERMS:
        raise ConfigError(f"{place}: {unknown('term', str(row['term']), TERMS)}{_in_python(row['term'])}")
    options = {k: v for k, v in row.items() if k not in _ROW}
    term: Term = _build(f"{place} ({row['term']})", TERMS[row["term"]], options, _ROW)
    course = row.get("course")
    if course is not None:
        until = _value(f"{place}: until", float, row.get("until", 1.0))
        if not 0 < until <= 1:
            raise ConfigError(f"{place}: until was given {until!r}; expected a share of the steps, above 0, at most 1.")
        term = ScheduledTerm(term, _value(f"{place}: course", Schedule, course), until)
    elif "until" in row:
        raise ConfigError(f"{place}: until was given without a course; add course: rising or falling.")
    phase = _value(f"{place}: phase", int | None, row.get("phase"))
    if phase is not None and not 0 <= phase < phases:
        raise ConfigError(f"{place}: phase {phase} was given; there are {phases}, counted from 0.")
    on = _value(f"{place}: input", get_type_hints(WeightedTerm)["input"], row.get("input", "text"))
    weight = _value(f"{place}: weight", float, row.get("weight", 1.0))
    if not 0 <= weight < math.inf:
        raise ConfigError(f"{place}: weight was given {weight!r}; expected a number, at least 0.")
    return WeightedTerm(weight, term, phase, on)


def _build(place: str, kind: Any, values: Mapping[str, Any], also: Sequence[str] = ()) -> Any:
    """Build a frozen dataclass from the values of its fields."""
    hints, made = get_type_hints(kind), {}
    named = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in named:
            raise ConfigError(f"{place}: {unknown('key', str(key), [*named, *also])}")
    for name, f in named.items():
        if name in values:
            made[name] = _object(f"{place}: {name}", hints[name], values[name])
            _check_bounds(f"{place}: {name}", f, hints[name], made[name])
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{place}: {name} must be given.")
    return kind(**made)


def _check_bounds(place: str, field: Field[Any], kind: Any, value: Any) -> None:
    """Raise `ConfigError` for a number out of its bounds, where the field is declared as an option that has some."""
    if not field.metadata:
        return
    declared = Option(name=field.name, type=kind, default=None, **field.metadata)
    if not declared.accepts(value):
        raise ConfigError(f"{place} was given {value!r}; expected {declared.expected}.")


def _object(place: str, kind: Any, value: Any) -> Any:
    """Build the value of a field: one of several classes by its `kind`, a dataclass, or a plain value."""
    if isinstance(kind, types.UnionType) and value is None:
        return None
    if kind in _KINDS:
        return _chosen(place, _KINDS[kind], value)
    if is_dataclass(kind):
        return _build(place, kind, _mapping(place, value))
    return _value(place, kind, value)


def _chosen(place: str, choices: Mapping[str, Any], value: Any) -> Any:
    content = dict(_mapping(place, {"kind": value} if isinstance(value, str) else value))
    kind = str(content.pop("kind", ""))
    if kind not in choices:
        raise ConfigError(f"{place}: {unknown('kind', kind, choices)}{_in_python(kind)}")
    return _build(f"{place} ({kind})", choices[kind], content, ("kind",))


def _in_python(name: object) -> str:
    """Return what to do with a class that is defined in Python, as `describe_method` names it."""
    if "." not in str(name):
        return ""
    return ". A class defined in Python cannot be given in YAML: pass the Method object, or install it as a method."


def _mapping(place: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{place} was given {value!r}; expected a mapping of names to values.")
    return value


def _value(place: str, kind: Any, value: Any) -> Any:
    try:
        return convert(kind, value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(f"{place} was given {value!r}; expected {describe_type(kind)}.") from error


def _row(w: WeightedTerm) -> dict[str, Any]:
    term, course = w.term, {}
    if isinstance(term, ScheduledTerm):
        course = {"course": term.schedule} | ({"until": term.until} if term.until < 1 else {})
        term = term.term
    place = ({} if w.phase is None else {"phase": w.phase}) | ({} if w.input == "text" else {"input": w.input})
    return {"term": _name_of(term, TERMS), "weight": w.weight} | place | course | _fields(term)


def _name_of(value: Any, names: Mapping[str, Any]) -> str:
    """Return the name of an object's class in YAML, or `module.Class` where it has none."""
    return next((name for name, kind in names.items() if type(value) is kind), class_name(value))


def class_name(value: Any) -> str:
    """Return `module.Class` of an object."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _fields(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):
        raise ConfigError(
            f"{class_name(value)} is no dataclass, so its options cannot be described; add @dataclass(frozen=True)."
        )
    # a term's name in the log is written only where it is not the usual one
    written = [f.name for f in fields(value) if f.name != "name" or getattr(value, f.name) != f.default]
    return {name: _to_plain(getattr(value, name), f"{class_name(value)}.{name}") for name in written}


def _to_plain(value: Any, place: str = "") -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_to_plain(v, place) for v in value]
    for base, choices in _KINDS.items():
        if isinstance(value, base):
            return {"kind": _name_of(value, choices)} | _fields(value)
    if is_dataclass(value):
        return _fields(value)
    raise ConfigError(
        f"{place} is a {type(value).__name__}, which cannot be written down; options of a term are numbers, texts, "
        "true or false, None, tuples of these, or frozen dataclasses of them."
    )
