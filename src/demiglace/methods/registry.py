"""The table of methods: one row each, the methods of installed packages, and Method objects given from Python.

To add a method to demiglace, write its file, its row here and its row in the tests. To use one of another package or
program, see docs/add-a-method.md.
"""

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from demiglace.config.options import build
from demiglace.errors import ConfigError, unknown
from demiglace.methods.alp_kd import AlpKD
from demiglace.methods.annealing_kd import AnnealingKD
from demiglace.methods.base import Method, Term, WeightedTerm
from demiglace.methods.ckd import CombinationKD
from demiglace.methods.combined_kd import CombinedKD
from demiglace.methods.continuation_kd import ContinuationKD
from demiglace.methods.distil import Distil
from demiglace.methods.divergence_kd import JensenShannon, ReverseKL, SkewKL, SkewReverseKL
from demiglace.methods.from_yaml import class_name, describe_method, read_method
from demiglace.methods.last_layer_kd import LastLayerKD
from demiglace.methods.mate_kd import MateKD
from demiglace.methods.minilm import MiniLM
from demiglace.methods.minilmv2 import MiniLMv2
from demiglace.methods.names import installed_methods
from demiglace.methods.none import NoDistillation
from demiglace.methods.pkd import PKD
from demiglace.methods.pseudo_labels import PseudoLabels
from demiglace.methods.rail_annealing import RailAnnealing
from demiglace.methods.rail_balanced import RailBalanced
from demiglace.methods.rail_kd import RailKDConcatenated, RailKDLayerwise
from demiglace.methods.rail_mate import RailMate
from demiglace.methods.tinybert import TinyBERT
from demiglace.methods.universal_kd import UniversalKD
from demiglace.methods.vanilla_kd import VanillaKD


@runtime_checkable
class MethodOptions(Protocol):
    """A frozen dataclass of a method's options."""

    def method(self) -> Method:
        """Return the method with these options."""


@dataclass(frozen=True)
class MethodInfo:
    """A published method."""

    name: str  # in configs
    options: type[Any]  # a frozen dataclass with `method()`, its fields declared by `option`
    title: str  # what the student learns from, in a few words
    paper: str  # authors and year
    url: str = ""  # of the paper


_ROWS = (
    MethodInfo("none", NoDistillation, "no teacher", "the baseline"),
    MethodInfo(
        "vanilla-kd",
        VanillaKD,
        "distillation of logits",
        "Hinton et al. 2015",
        "https://arxiv.org/abs/1503.02531",
    ),
    MethodInfo(
        "pseudo-labels",
        PseudoLabels,
        "the teacher's most likely class as the label",
        "Lee 2013",
    ),
    MethodInfo("pkd", PKD, "fixed layers, first token", "Sun et al. 2019", "https://arxiv.org/abs/1908.09355"),
    MethodInfo(
        "distil",
        Distil,
        "logits, labels, and the last states of tokens by cosine",
        "Sanh et al. 2019",
        "https://arxiv.org/abs/1910.01108",
    ),
    MethodInfo(
        "tinybert",
        TinyBERT,
        "attention, tokens, embeddings; then logits",
        "Jiao et al. 2020",
        "https://arxiv.org/abs/1909.10351",
    ),
    MethodInfo(
        "minilm",
        MiniLM,
        "last attention and value relation; then labels",
        "Wang et al. 2020",
        "https://arxiv.org/abs/2002.10957",
    ),
    MethodInfo(
        "ckd", CombinationKD, "buckets of layers, combined", "Wu et al. 2020", "https://arxiv.org/abs/2010.03034"
    ),
    MethodInfo(
        "alp-kd",
        AlpKD,
        "attention over all layers",
        "Passban et al. 2021",
        "https://arxiv.org/abs/2012.14022",
    ),
    MethodInfo(
        "minilmv2",
        MiniLMv2,
        "relations of queries, keys and values; then labels",
        "Wang et al. 2021",
        "https://arxiv.org/abs/2012.15828",
    ),
    MethodInfo(
        "annealing-kd",
        AnnealingKD,
        "logits from faint to full; then labels",
        "Jafari et al. 2021",
        "https://arxiv.org/abs/2104.07163",
    ),
    MethodInfo(
        "mate-kd",
        MateKD,
        "logits on the text and on adversarially perturbed text",
        "Rashid et al. 2021",
        "https://arxiv.org/abs/2105.05912",
    ),
    MethodInfo(
        "universal-kd",
        UniversalKD,
        "logits of classifiers on all layers",
        "Wu et al. 2021",
        "https://aclanthology.org/2021.emnlp-main.603",
    ),
    MethodInfo(
        "combined-kd",
        CombinedKD,
        "annealed logits on text and perturbed text; then labels",
        "Li et al. 2021",
        "https://arxiv.org/abs/2110.08460",
    ),
    MethodInfo(
        "rail-mate",
        RailMate,
        "random layers, and logits on text and perturbed text",
        "Li et al. 2021",
        "https://arxiv.org/abs/2110.08460",
    ),
    MethodInfo(
        "rail-annealing",
        RailAnnealing,
        "random layers and annealed logits; then labels",
        "Li et al. 2021",
        "https://arxiv.org/abs/2110.08460",
    ),
    MethodInfo(
        "rail-kd-l",
        RailKDLayerwise,
        "random layers, compared pair by pair",
        "Haidar et al. 2022",
        "https://arxiv.org/abs/2109.10164",
    ),
    MethodInfo(
        "rail-kd-c",
        RailKDConcatenated,
        "random layers, concatenated",
        "Haidar et al. 2022",
        "https://arxiv.org/abs/2109.10164",
    ),
    MethodInfo(
        "continuation-kd",
        ContinuationKD,
        "annealed logits with a margin, giving way to labels",
        "Jafari et al. 2022",
        "https://arxiv.org/abs/2212.05998",
    ),
    MethodInfo(
        "last-layer-kd",
        LastLayerKD,
        "logits and the last layers",
        "Ko et al. 2023",
        "https://arxiv.org/abs/2302.01530",
    ),
    MethodInfo(
        "jsd",
        JensenShannon,
        "logits by a generalised Jensen-Shannon divergence",
        "Agarwal et al. 2024",
        "https://arxiv.org/abs/2306.13649",
    ),
    MethodInfo(
        "reverse-kl", ReverseKL, "logits by the reverse KL", "Gu et al. 2024", "https://arxiv.org/abs/2306.08543"
    ),
    MethodInfo("skew-kl", SkewKL, "logits by a skewed KL", "Ko et al. 2024", "https://arxiv.org/abs/2402.03898"),
    MethodInfo(
        "skew-reverse-kl",
        SkewReverseKL,
        "logits by a skewed reverse KL",
        "Ko et al. 2024",
        "https://arxiv.org/abs/2402.03898",
    ),
    MethodInfo(
        "rail-balanced",
        RailBalanced,
        "random layers, centred, giving way to logits and labels",
        "demiglace, after Haidar et al. 2022",
        "https://arxiv.org/abs/2109.10164",
    ),
)
METHODS: dict[str, MethodInfo] = {row.name: row for row in _ROWS}


class MethodObject(str):
    """The value of the option `method` where it was given as a Method object.

    The text names the method in messages, tables and the run's identity: its terms and a digest of its description.
    """

    method: Method


def method_names() -> list[str]:
    """Return the names of all methods, those of installed packages last; nothing is imported for them."""
    return list(dict.fromkeys([*METHODS, *(point.name for point in installed_methods())]))


def find_method(name: str) -> MethodInfo:
    """Return the named method, of demiglace or else of an installed package.

    Raises `ConfigError` for an unknown name, a name that two packages give, and a package that cannot be used.
    """
    if name in METHODS:
        return METHODS[name]
    points = {point.value: point for point in installed_methods() if point.name == name}
    if not points:
        raise ConfigError(_not_from_python(name) or unknown("method", name, method_names()))
    if len(points) > 1:
        raise ConfigError(f"method {name} is given by several packages ({', '.join(points)}); uninstall all but one.")
    return _loaded(*points.values())


def method_options(name: str, options: Mapping[str, Any]) -> MethodOptions:
    """Return the checked options of a named method. Raises `ConfigError` for unknown methods and options."""
    row = find_method(name)
    try:
        return build(row.options, options)
    except ConfigError as error:
        raise ConfigError(f"method {name}: {error}") from error


def build_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return the method of the option `method`: a named one, one composed in a YAML file, or a Method object.

    Only named methods have options. Raises `ConfigError` for unknown methods, options and keys.
    """
    if not isinstance(name, MethodObject) and not is_file(name):
        return method_options(name, options).method()
    if options:
        raise ConfigError(f"method_options belong to a named method; {name} defines all of its options.")
    return name.method if isinstance(name, MethodObject) else read_method(name)


def is_file(name: str) -> bool:
    """Return whether a method is given as a YAML file."""
    return name.endswith((".yaml", ".yml"))


def method_value(value: Any) -> Any:
    """Return the value of the option `method`: a name or path as it is, a Method object (or its options) as a text.

    Raises `ConfigError` for other objects, and for a Method that cannot be trained or described.
    """
    if isinstance(value, (str, Path)):
        return value
    method = value.method() if isinstance(value, MethodOptions) and not isinstance(value, type) else value
    if not isinstance(method, Method):
        hint = f"; {value.__name__} is a class: call it" if isinstance(value, type) else ""
        raise ConfigError(
            f"method was given a {type(value).__name__}; expected a name of `demiglace methods`, the path of a YAML "
            f"file, or a Method object{hint}."
        )
    check_method(method)
    terms = ", ".join(w.term.name for w in method.terms)
    made = MethodObject(f"{_OBJECT}{_digest(method)[:8]} ({terms})")
    made.method = method
    return made


def check_method(method: Method) -> None:
    """Raise `ConfigError`, as a YAML file of the same content would, for a Method object that makes no sense."""
    if not method.terms or not method.phases or not all(0 < share < math.inf for share in method.phases):
        raise ConfigError("a Method needs at least one term, and phases that are shares of the epochs above 0.")
    for i, w in enumerate(method.terms):
        if not isinstance(w, WeightedTerm) or not isinstance(w.term, Term):
            wrong = class_name(w.term if isinstance(w, WeightedTerm) else w)
            raise ConfigError(f"terms[{i}] holds a {wrong}; expected a WeightedTerm of a weight and a Term.")
        if not 0 <= w.weight < math.inf:
            raise ConfigError(f"terms[{i}]: weight was given {w.weight!r}; expected a number, at least 0.")
        if w.phase is not None and not 0 <= w.phase < len(method.phases):
            raise ConfigError(f"terms[{i}]: phase {w.phase} was given; there are {len(method.phases)}, counted from 0.")
    if method.augmentation is None and any(w.input == "perturbed" for w in method.terms):
        raise ConfigError("a term reads perturbed text and no augmentation makes it; add one.")
    describe_method(method)


def fingerprint_method(name: str, options: Mapping[str, Any]) -> str | None:
    """Return a digest (16 hex digits) of a method that is not demiglace's, for a run's identity; None for a built-in.

    It covers the terms with all of their options, and the source files of their classes. Classes of a script's main
    module or of a notebook count by name and options alone.
    """
    if name in METHODS:
        return None
    return _digest(build_method(name, options))


_OBJECT = "Method object "


def _not_from_python(name: str) -> str | None:
    if not name.startswith(_OBJECT):
        return None
    return f"{name} was an object of a Python program; call demiglace.distill from Python with that object."


def _loaded(point: EntryPoint) -> MethodInfo:
    """Return the method behind an entry point: a `MethodInfo`, or a class of options."""
    package = point.dist.name if point.dist else point.value
    failed = f"method {point.name} of the package {package} cannot be used"
    try:
        value = point.load()
    except Exception as error:  # whatever the package does when it is imported
        raise ConfigError(f"{failed}: {type(error).__name__}: {error}. Repair or uninstall that package.") from error
    row = value if isinstance(value, MethodInfo) else MethodInfo(point.name, value, _title(value), f"package {package}")
    kind = row.options
    if not isinstance(kind, type) or not is_dataclass(kind) or not issubclass(kind, MethodOptions):
        raise ConfigError(
            f"{failed}: {point.value} is neither a MethodInfo nor a frozen dataclass of options with a method()."
        )
    if plain := [f.name for f in fields(kind) if "help" not in f.metadata]:
        raise ConfigError(f"{failed}: declare {', '.join(plain)} of {kind.__name__} by option(HELP, DEFAULT).")
    return replace(row, name=point.name)


def _title(value: Any) -> str:
    lines = (value.__doc__ or "").strip().splitlines() if isinstance(value, type) else []
    return lines[0].rstrip(".") if lines else ""


def _digest(method: Method) -> str:
    digest = hashlib.sha256(json.dumps(describe_method(method), sort_keys=True).encode())
    for file in sorted(set(_source_files(method))):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


def _source_files(value: Any) -> Iterator[str]:
    """Yield the source files of the classes that a method consists of and that are not demiglace's."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _source_files(item)
    elif is_dataclass(value):
        module = type(value).__module__
        file = getattr(sys.modules.get(module), "__file__", None)
        if module != "__main__" and module.partition(".")[0] != "demiglace" and file and Path(file).is_file():
            yield file
        for f in fields(value):
            yield from _source_files(getattr(value, f.name))
