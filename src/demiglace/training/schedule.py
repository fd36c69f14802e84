"""The schedule of a run: the phases of a method mapped to epochs, and the learning rate of each step."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from demiglace.config.training import TrainConfig
from demiglace.errors import ConfigError
from demiglace.methods.base import Method, TrainingProgress
from demiglace.methods.registry import MethodObject, is_file

# Minimum epochs of a phase when training on a task. In a last phase of one epoch there is no best epoch to select,
# while methods of one phase select from all of their epochs. The shortest phases of the papers have 3 epochs (TinyBERT,
# Combined-KD) and 4 (Annealing-KD).
LEAST_EPOCHS = 2


@dataclass(frozen=True)
class TrainingSchedule:
    """Phases, epochs and learning rates of a run."""

    config: TrainConfig
    epoch_steps: int  # steps of each epoch; --max-steps may end the last epoch earlier
    ends: tuple[int, ...]  # phase i is the epochs from ends[i - 1] to below ends[i]

    @classmethod
    def of(cls, config: TrainConfig, phases: Sequence[float], epoch_steps: int) -> "TrainingSchedule":
        """Return the schedule: epochs are divided in proportion to the shares of the phases, at least one for each.

        Raises `ConfigError` if there are fewer epochs than phases.
        """
        return cls(config, epoch_steps, phase_ends(epochs_of(config, epoch_steps), phases))

    @property
    def steps(self) -> int:
        """Return the number of steps of the full run."""
        return self.config.max_steps or self.epochs * self.epoch_steps

    @property
    def epochs(self) -> int:
        """Return the number of epochs, one that ends early included."""
        return self.ends[-1]

    def steps_of_phase(self, phase: int) -> int:
        """Return the number of steps of a phase."""
        first = self.ends[phase - 1] if phase else 0
        return min(self.ends[phase] * self.epoch_steps, self.steps) - first * self.epoch_steps

    @property
    def last_phase(self) -> int:
        """Return the first epoch of the last phase."""
        return self.first_of_phase(self.ends[-1] - 1)

    def first_of_phase(self, epoch: int) -> int:
        """Return the first epoch of the phase of this epoch."""
        return self._phase(epoch)[1]

    def progress(self, step: int) -> TrainingProgress:
        """Return the training progress after `step` steps."""
        epoch = step // self.epoch_steps
        phase, first = self._phase(epoch)
        return TrainingProgress(
            seed=self.config.seed,
            epoch=epoch,
            step=step,
            phase=phase,
            phase_epoch=epoch - first,
            phase_epochs=self.ends[phase] - first,
            fraction=(step - first * self.epoch_steps) / self.steps_of_phase(phase),
        )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step.

        It rises linearly over the first `warmup_ratio` share of a phase's steps. What follows is up to `lr_scheduler`:
        linear: it falls linearly to 0 at the end of the phase. cosine: it falls to 0 along half a cosine (Loshchilov
        and Hutter 2017, arXiv 1608.03983). constant: it stays (DeepSpeed's WarmupLR). wsd: it stays, and falls over the
        last `decay_ratio` share of the steps as 1 - sqrt(x) (Hägele et al. 2024, arXiv 2405.18392).
        """
        phase, first = self._phase(step // self.epoch_steps)
        done, steps = step - first * self.epoch_steps, self.steps_of_phase(phase)
        warmup_steps = round(steps * self.config.warmup_ratio)
        if done < warmup_steps:
            return self.config.learning_rate * (done + 1) / warmup_steps
        return self.config.learning_rate * self._share_of_peak(done, warmup_steps, steps)

    def _share_of_peak(self, done: int, warmup_steps: int, steps: int) -> float:
        """Return the share of the peak learning rate after `done` of a phase's steps, its warm-up being over."""
        match self.config.lr_scheduler:
            case "constant":
                return 1.0
            case "cosine":
                return (1 + math.cos(math.pi * (done - warmup_steps) / (steps - warmup_steps))) / 2
            case "wsd":
                decay_steps = max(1, round(steps * self.config.decay_ratio))
                return 1 - math.sqrt(max(0, done - (steps - decay_steps)) / decay_steps)
        return (steps - done) / (steps - warmup_steps)

    def _phase(self, epoch: int) -> tuple[int, int]:
        """Return the phase of an epoch, and the first epoch of that phase."""
        phase = next(i for i, end in enumerate(self.ends) if epoch < end)
        return phase, self.ends[phase - 1] if phase else 0


def epochs_of(config: TrainConfig, epoch_steps: int) -> int:
    """Return the number of epochs that a run begins: --epochs, or as many as --max-steps needs."""
    return config.epochs if config.max_steps is None else -(-config.max_steps // epoch_steps)


def phase_ends(epochs: int, phases: Sequence[float]) -> tuple[int, ...]:
    """Return the epoch at which each phase ends, exclusive: (7, 10) for 10 epochs in shares of .7 and .3.

    Raises `ConfigError` if there are fewer epochs than phases.
    """
    if epochs < len(phases):
        raise ConfigError(
            f"the method trains in {len(phases)} phases and --epochs is {epochs}; give at least {len(phases)}."
        )
    ends: list[int] = []
    total, done = sum(phases), 0.0
    for i, share in enumerate(phases):
        done += share
        least, most = (ends[-1] if ends else 0) + 1, epochs - (len(phases) - 1 - i)
        ends.append(min(max(round(epochs * done / total), least), most))
    return tuple(ends)


def check_phases(
    name: str, method: Method, epochs: int, *, least: int = LEAST_EPOCHS, max_steps: tuple[int, int] | None = None
) -> None:
    """Raise `ConfigError` if a phase of the method would have fewer than `least` epochs.

    name: of the method. A method that allows short phases needs one epoch for each. max_steps: --max-steps and the
    steps of an epoch, where they decide the epochs.
    """
    count, shortest = len(method.phases), _shortest(epochs, method.phases)
    least = 1 if count == 1 or method.short_phases else least
    if shortest >= least:
        return
    # with fewer epochs, the shortest phase would have fewer than `least`
    fewest = int((least - 1) * sum(method.phases) / min(method.phases))
    enough = next(n for n in itertools.count(max(fewest, count)) if _shortest(n, method.phases) >= least)
    shares = " and ".join(f"{share / sum(method.phases):.0%}" for share in method.phases)
    option = "short_phases: true in the file" if is_file(name) else "--method-options.short-phases true"
    option = "short_phases=True in the Method" if isinstance(name, MethodObject) else option
    allow = "" if method.short_phases else f", or allow phases of one epoch ({option})"
    given, remedy = f"--epochs {epochs}", f"--epochs {enough}"
    if max_steps is not None:
        given = f"--max-steps {max_steps[0]}, in epochs of {max_steps[1]} steps,"
        remedy = f"--max-steps {enough * max_steps[1]}"
    raise ConfigError(
        f"method {name} trains in {count} phases, of {shares} of the epochs. With {given} the shortest has {shortest}, "
        f"and each phase needs at least {least}. Give {remedy} or more{allow}."
    )


def check_max_steps(name: str, method: Method, config: TrainConfig, rows: int, *, least: int = LEAST_EPOCHS) -> None:
    """Raise `ConfigError`, as `check_phases` does, if --max-steps ends the run too early for these training rows."""
    if config.max_steps is not None:
        epoch_steps = -(-rows // config.batch_size)
        epochs = epochs_of(config, epoch_steps)
        check_phases(name, method, epochs, least=least, max_steps=(config.max_steps, epoch_steps))


def _shortest(epochs: int, phases: Sequence[float]) -> int:
    """Return the epochs of the shortest phase, or 0 if there are fewer epochs than phases."""
    if epochs < len(phases):
        return 0
    return min(end - begin for begin, end in itertools.pairwise((0, *phase_ends(epochs, phases))))
