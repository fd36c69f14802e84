"""The table of methods: one row each. To add a method, write its file and its row here, and its row in the tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from demiglace.config import build
from demiglace.errors import ConfigError, unknown
from demiglace.methods.alp_kd import AlpKD
from demiglace.methods.base import Method
from demiglace.methods.none import NoDistillation
from demiglace.methods.pkd import PKD
from demiglace.methods.rail_kd_c import RailKDConcatenated
from demiglace.methods.rail_kd_l import RailKDLayerwise
from demiglace.methods.vanilla_kd import VanillaKD


class MethodOptions(Protocol):
    """A frozen dataclass of a method's options."""

    def method(self) -> Method:
        """The method with these options."""


@dataclass(frozen=True)
class Row:
    """A published method: its name in configs, its options, and where it comes from."""

    name: str
    options: type[Any]
    title: str
    paper: str
    url: str = ""


_ROWS = (
    Row("none", NoDistillation, "no teacher", "the control"),
    Row(
        "vanilla-kd",
        VanillaKD,
        "distillation of logits",
        "Hinton et al. 2015",
        "https://arxiv.org/abs/1503.02531",
    ),
    Row("pkd", PKD, "fixed layers, first token", "Sun et al. 2019", "https://arxiv.org/abs/1908.09355"),
    Row(
        "alp-kd",
        AlpKD,
        "attention over all layers",
        "Passban et al. 2021",
        "https://arxiv.org/abs/2012.14022",
    ),
    Row(
        "rail-kd-l",
        RailKDLayerwise,
        "random layers, each for itself",
        "Haidar et al. 2022",
        "https://arxiv.org/abs/2109.10164",
    ),
    Row(
        "rail-kd-c",
        RailKDConcatenated,
        "random layers, concatenated",
        "Haidar et al. 2022",
        "https://arxiv.org/abs/2109.10164",
    ),
)
METHODS: dict[str, Row] = {row.name: row for row in _ROWS}


def method_options(name: str, options: Mapping[str, Any]) -> MethodOptions:
    """The checked options of a named method. Raises `ConfigError` for unknown methods and options."""
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS))
    try:
        return build(METHODS[name].options, options)
    except ConfigError as error:
        raise ConfigError(f"method {name}: {error}") from error


def build_method(name: str, options: Mapping[str, Any]) -> Method:
    """The named method with these options."""
    return method_options(name, options).method()
