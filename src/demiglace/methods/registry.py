"""The table of methods: one row each. To add a method, write its file and its row here, and its row in the tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from demiglace.config.options import build
from demiglace.errors import ConfigError, unknown
from demiglace.methods.alp_kd import AlpKD
from demiglace.methods.annealing_kd import AnnealingKD
from demiglace.methods.base import Method
from demiglace.methods.ckd import CombinationKD
from demiglace.methods.combined_kd import CombinedKD
from demiglace.methods.continuation_kd import ContinuationKD
from demiglace.methods.distil import Distil
from demiglace.methods.divergence_kd import JensenShannon, ReverseKL, SkewKL, SkewReverseKL
from demiglace.methods.from_yaml import read_method
from demiglace.methods.last_layer_kd import LastLayerKD
from demiglace.methods.mate_kd import MateKD
from demiglace.methods.minilm import MiniLM
from demiglace.methods.minilmv2 import MiniLMv2
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


class MethodOptions(Protocol):
    """A frozen dataclass of a method's options."""

    def method(self) -> Method:
        """The method with these options."""


@dataclass(frozen=True)
class MethodInfo:
    """A published method: its name in configs, its options, and where it comes from."""

    name: str
    options: type[Any]
    title: str
    paper: str
    url: str = ""


_ROWS = (
    MethodInfo("none", NoDistillation, "no teacher", "the control"),
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
        "logits on the text and on text made to part it from the teacher",
        "Rashid et al. 2021",
        "https://arxiv.org/abs/2105.05912",
    ),
    MethodInfo(
        "universal-kd",
        UniversalKD,
        "what classifiers on all layers say",
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
        "random layers, each for itself",
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


def method_options(name: str, options: Mapping[str, Any]) -> MethodOptions:
    """The checked options of a named method. Raises `ConfigError` for unknown methods and options."""
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS))
    try:
        return build(METHODS[name].options, options)
    except ConfigError as error:
        raise ConfigError(f"method {name}: {error}") from error


def build_method(name: str, options: Mapping[str, Any]) -> Method:
    """The named method with these options, or the one that a YAML file composes (see `compose`), which has none.

    Raises `ConfigError` for unknown methods, options and keys.
    """
    if not is_file(name):
        return method_options(name, options).method()
    if options:
        raise ConfigError(f"--method-options go with a named method; {name} says everything itself.")
    return read_method(name)


def is_file(name: str) -> bool:
    """Whether a method is given as a YAML file."""
    return name.endswith((".yaml", ".yml"))
