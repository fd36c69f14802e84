"""Callbacks of a training run: functions of a Python program that are called after each step and each epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demiglace.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StepEvent:
    """An optimizer step that is done."""

    step: int  # from 1
    steps: int  # of the run, if it is not stopped early
    epoch: int  # from 1
    learning_rate: float
    read_loss: Callable[[], float]

    @property
    def loss(self) -> float:
        """Return the loss of the step, of this process's share. It is copied from the device when it is read."""
        return self.read_loss()


@dataclass(frozen=True)
class EpochEvent:
    """An epoch that is done and validated."""

    epoch: int  # from 1
    epochs: int  # of the run, if it is not stopped early
    step: int  # optimizer steps done
    metrics: Mapping[str, float]  # of the validation split
    is_best: bool  # whether it is the best epoch so far
    model: "PreTrainedModel"  # the student with its current weights; do not change them


class Callback:
    """Base class of callbacks: override one of its methods, or both.

    Each process of a `torchrun` calls them. An exception that a method raises ends the run: the checkpoint is saved
    first, so the same call without that exception resumes there. With several processes the last checkpoint is kept.
    """

    def on_step(self, event: StepEvent) -> None:
        """Receive an optimizer step that is done."""

    def on_epoch(self, event: EpochEvent) -> None:
        """Receive an epoch that is done, after its validation and its checkpoint."""


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise `ConfigError` for an object that is no callback."""
    if not isinstance(callbacks, (list, tuple)):
        raise ConfigError(f"callbacks was given a {type(callbacks).__name__}; expected a list of callbacks.")
    for each in callbacks:
        if isinstance(each, type) or not isinstance(each, Callback):
            hint = ": call the class" if isinstance(each, type) else ""
            named = each.__name__ if isinstance(each, type) else type(each).__name__
            raise ConfigError(
                f"callbacks holds {named}{hint}; expected objects of classes derived from demiglace.Callback, with "
                "on_step(event) or on_epoch(event)."
            )
