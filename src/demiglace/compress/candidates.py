"""Students of a model: a grid over depth, width and vocabulary; which of two students is smaller in every respect."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from transformers import PreTrainedConfig

from demiglace.config.command_options import STATIC
from demiglace.errors import ConfigError
from demiglace.models.layer_kinds import number_of_layers
from demiglace.models.truncate import AUTO, choose_layers, truncate_config
from demiglace.models.width import SIZES, narrow_config, sizes_of, width_options

Vocabulary = Literal["full", "trim"]
_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_EACH = 6  # up to this number of layers, each number is tried
_SHARES = {"intermediate_size": (1 / 2,), "num_attention_heads": (1 / 2,), "hidden_size": (2 / 3, 1 / 2)}
_WORDS = {"intermediate_size": "feed-forward", "num_attention_heads": "heads", "hidden_size": "hidden"}


@dataclass(frozen=True)
class Student:
    """The shape of a student."""

    layers: int  # 0: static
    vocabulary: Vocabulary = "full"  # trim: the tokens that the training texts use
    intermediate_size: int | None = None  # this size and the next ones: None for that of the model
    num_attention_heads: int | None = None
    hidden_size: int | None = None
    weights: int = field(
        default=0, compare=False
    )  # in matrices of the layers: a larger student is expected to be better

    @property
    def is_static(self) -> bool:
        """Return whether it has token vectors and a linear layer alone."""
        return self.layers == 0

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the width that are smaller than the model's."""
        return {name: size for name in SIZES if (size := getattr(self, name)) is not None}

    @property
    def key(self) -> str:
        """Return its name in paths: ``layers-3-hidden-256-trimmed``."""
        words = [STATIC if self.is_static else f"layers-{self.layers}"]
        words += [f"{_WORDS[name]}-{size}" for name, size in self.sizes.items()]
        return "-".join([*words, *(["trimmed"] if self.vocabulary == "trim" else [])])

    @property
    def name(self) -> str:
        """Return its name in tables: ``3 layers, hidden 256, trimmed vocabulary``."""
        words = [STATIC if self.is_static else f"{self.layers} layer{'s' if self.layers > 1 else ''}"]
        words += [f"{_WORDS[name]} {size:,}" for name, size in self.sizes.items()]
        return ", ".join([*words, *(["trimmed vocabulary"] if self.vocabulary == "trim" else [])])

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of `demiglace distill` that make it from its teacher."""
        shape = {"student": STATIC} if self.is_static else {"layers": self.layers} | self.sizes
        return shape | ({"vocabulary": "trim"} if self.vocabulary == "trim" else {})

    def is_within(self, other: "Student") -> bool:
        """Return whether no dimension is larger than that of the other student, so that it costs no more.

        A static student is compared with none: its table may be larger than that of a trimmed student.
        """
        if self.is_static or other.is_static:
            return self == other
        if self.layers > other.layers or (self.vocabulary, other.vocabulary) == ("full", "trim"):
            return False
        pairs = ((getattr(self, name), getattr(other, name)) for name in SIZES)
        return all(theirs is None or (own is not None and own <= theirs) for own, theirs in pairs)

    @property
    def capacity(self) -> tuple[float, ...]:
        """Return what students are ordered by: a larger one is expected to reach a better quality.

        The hidden size comes first, because narrower hidden states cost far more points than fewer feed-forward units
        (docs/tutorial.md, "Narrower students").
        """
        return self.hidden_size or math.inf, self.weights, self.vocabulary == "full"


def grid(
    config: PreTrainedConfig,
    layers: Sequence[int] | None,
    vocabularies: Sequence[Vocabulary] = ("full",),
    *,
    narrow: bool = False,
) -> list[Student]:
    """Return the students of a model of this config, the largest first, without the model itself.

    layers: numbers of layers to try; None: 1 to 6, 8, 12, … up to the model's. vocabularies: of the students.
    narrow: also with fewer feed-forward units, heads and hidden channels, where the architecture allows it. Raises
    `ConfigError` for more layers than the model has, and if nothing but the model itself is left.
    """
    full = full_student(config)
    depths = set(layers or (*(n for n in _DEPTHS if n <= full.layers), *range(1, min(full.layers, _EACH) + 1)))
    if wrong := sorted(n for n in depths if n > full.layers):
        raise ConfigError(
            f"--layers was given {', '.join(map(str, wrong))}; the model has {full.layers} layers: give 1 to "
            f"{full.layers}."
        )
    widths = list(_widths(config)) if narrow else [{}]
    found = [
        student
        for depth, vocabulary, sizes in product(depths, vocabularies, widths)
        if (student := Student(depth, vocabulary, **sizes, weights=_weights(config, depth, sizes))) != full
    ]
    if not found:
        raise ConfigError(
            f"--layers {full.layers} is the model itself, which is measured in every precision anyway; give fewer "
            "layers, or --vocabulary trim."
        )
    return sorted(found, key=lambda s: s.capacity, reverse=True)


def _widths(config: PreTrainedConfig) -> Iterator[dict[str, int]]:
    """Yield the sizes of narrower students, at first none: of each dimension all, two thirds or half of the units."""
    present, options = sizes_of(config), width_options(config)
    axes: list[list[tuple[str, int | None]]] = []
    for name, possible in options.items():
        wanted = [present[name] * share for share in _SHARES[name]]
        nearest = {min(possible, key=lambda size: abs(size - w)) for w in wanted} - {present[name]}
        axes.append([(name, None), *((name, size) for size in sorted(nearest, reverse=True))])
    for choice in product(*axes):
        yield {name: size for name, size in choice if size is not None}


def _weights(config: PreTrainedConfig, layers: int, sizes: Mapping[str, int]) -> int:
    """Return about how many weights the matrices of the layers have: attention 4·d·a, feed-forward 2·d·f each."""
    present = sizes_of(config)
    width = {name: sizes.get(name, size) for name, size in present.items()}
    hidden = width.get("hidden_size", 1)
    share = width["num_attention_heads"] / present["num_attention_heads"] if "num_attention_heads" in sizes else 1.0
    attention = share * present.get("hidden_size", 1) if "num_attention_heads" in sizes else hidden
    return round(layers * hidden * (4 * attention + 2 * width.get("intermediate_size", 4 * hidden)))


def full_student(config: PreTrainedConfig) -> Student:
    """Return the shape of the model itself."""
    layers = number_of_layers(config)
    return Student(layers, weights=_weights(config, layers, {}))


def static_student_shape(vocabularies: Sequence[Vocabulary]) -> Student:
    """Return the static student, with the smallest of the vocabularies."""
    return Student(0, "trim" if "trim" in vocabularies else "full")


def config_of(student: Student, config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of a student that has layers, with the model's vocabulary.

    Raises `ModelError` if the architecture has no such student.
    """
    truncated = truncate_config(config, choose_layers(config, student.layers, AUTO, None))
    return narrow_config(truncated, **student.sizes) if student.sizes else truncated
