"""Students that can be made from a model: a grid over depth, and which of two students is smaller in every respect."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedConfig

from demiglace.errors import ConfigError
from demiglace.models.layer_kinds import number_of_layers
from demiglace.models.truncate import AUTO, choose_layers, truncate_config

_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class Student:
    """The shape of a student. None: as in the teacher."""

    layers: int

    @property
    def key(self) -> str:
        """Return its name in paths: ``layers-3``."""
        return "-".join(f"{name.replace('_', '-')}-{value}" for name, value in self.options.items())

    @property
    def name(self) -> str:
        """Return its name in tables: ``3 layers``."""
        return f"{self.layers} layer{'s' if self.layers > 1 else ''}"

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of `demiglace distill` that make it from its teacher."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def is_within(self, other: "Student") -> bool:
        """Return whether no dimension is larger than that of the other student, so that it costs no more."""
        return self.layers <= other.layers

    @property
    def capacity(self) -> tuple[float, ...]:
        """Return what students are ordered by: a larger one is expected to reach a better quality."""
        return (self.layers,)


def grid(config: PreTrainedConfig, layers: Sequence[int] | None) -> list[Student]:
    """Return the students smaller than a model of this config, the largest first.

    layers: numbers of layers to try; None: 1, 2, 3, 4, 6, 8, 12, … below the model's. Raises `ConfigError` if no number
    is below the model's, and for one that is not.
    """
    most = number_of_layers(config)
    if layers is not None and (wrong := [n for n in layers if n >= most]):
        raise ConfigError(
            f"--layers was given {', '.join(map(str, wrong))}; the model has {most} layers, and it is measured itself "
            f"in every precision; give numbers below {most}."
        )
    depths = sorted({n for n in (layers or (*_DEPTHS, *range(1, min(most, 7)))) if n < most}, reverse=True)
    return [Student(n) for n in depths]


def full_student(config: PreTrainedConfig) -> Student:
    """Return the shape of the model itself."""
    return Student(number_of_layers(config))


def config_of(student: Student, config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of a student of a model. Raises `ModelError` if the architecture has no such student."""
    return truncate_config(config, choose_layers(config, student.layers, AUTO, None))
