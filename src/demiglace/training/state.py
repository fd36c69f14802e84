"""Where a run stands, and what it is after."""

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel

Evaluate = Callable[[PreTrainedModel], dict[str, float]]


@dataclass
class State:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    log_size: int = 0
    seconds: float = 0.0
    rows: int = 0
    best_epoch: int = -1
    best_value: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True)
class Goal:
    """The validation metric that chooses the best epoch; without `evaluate` the last epoch is the best."""

    evaluate: Evaluate | None = None
    metric: str = ""
    higher_is_better: bool = True
