"""Students of a model: a grid over depth and vocabulary, and which of two students is smaller in every respect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedConfig

from demiglace.errors import ConfigError
from demiglace.models.layer_kinds import number_of_layers
from demiglace.models.truncate import AUTO, choose_layers, truncate_config

_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_EACH = 6  # up to this number of layers, each number is tried


Vocabulary = Literal["full", "trim"]


@dataclass(frozen=True)
class Student:
    """The shape of a student."""

    layers: int
    vocabulary: Vocabulary = "full"  # trim: the tokens that the training texts use

    @property
    def key(self) -> str:
        """Return its name in paths: ``layers-3-trimmed``."""
        return f"layers-{self.layers}" + ("-trimmed" if self.vocabulary == "trim" else "")

    @property
    def name(self) -> str:
        """Return its name in tables: ``3 layers, trimmed vocabulary``."""
        words = [f"{self.layers} layer{'s' if self.layers > 1 else ''}"]
        return ", ".join([*words, *(["trimmed vocabulary"] if self.vocabulary == "trim" else [])])

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of `demiglace distill` that make it from its teacher."""
        return {"layers": self.layers} | ({"vocabulary": "trim"} if self.vocabulary == "trim" else {})

    def is_within(self, other: "Student") -> bool:
        """Return whether no dimension is larger than that of the other student, so that it costs no more."""
        return self.layers <= other.layers and (self.vocabulary == "trim" or other.vocabulary == "full")

    @property
    def capacity(self) -> tuple[float, ...]:
        """Return what students are ordered by: a larger one is expected to reach a better quality."""
        return self.layers, self.vocabulary == "full"


def grid(
    config: PreTrainedConfig, layers: Sequence[int] | None, vocabularies: Sequence[Vocabulary] = ("full",)
) -> list[Student]:
    """Return the students of a model of this config, the largest first, without the model itself.

    layers: numbers of layers to try; None: 1, 2, 3, 4, 6, 8, 12, … up to the model's. vocabularies: of the students.
    Raises `ConfigError` for more layers than the model has, and if nothing but the model itself is left.
    """
    full = full_student(config)
    depths = set(layers or (*(n for n in _DEPTHS if n <= full.layers), *range(1, min(full.layers, _EACH) + 1)))
    if wrong := sorted(n for n in depths if n > full.layers):
        raise ConfigError(
            f"--layers was given {', '.join(map(str, wrong))}; the model has {full.layers} layers: give 1 to "
            f"{full.layers}."
        )
    found = [s for n in depths for vocabulary in vocabularies if (s := Student(n, vocabulary)) != full]
    if not found:
        raise ConfigError(
            f"--layers {full.layers} is the model itself, which is measured in every precision anyway; give fewer "
            "layers, or --vocabulary trim."
        )
    return sorted(found, key=lambda s: s.capacity, reverse=True)


def full_student(config: PreTrainedConfig) -> Student:
    """Return the shape of the model itself."""
    return Student(number_of_layers(config))


def config_of(student: Student, config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of a student of a model, with the model's vocabulary.

    Raises `ModelError` if the architecture has no such student.
    """
    return truncate_config(config, choose_layers(config, student.layers, AUTO, None))
