"""The one training loop, for every method, with a teacher or without, on one process or many.

A step is `batch_size` rows over all processes. Each process takes its share of them, in forward passes of at most
`batch_tokens` tokens; every part of the loss is divided by the whole step's count of rows, so without dropout neither
the number of parts nor of processes changes the result but for rounding. Dropout is drawn part by part and process by
process. Everything random is a pure function of (seed, epoch, step, process): a run that is cut off and resumed on as
many processes is the same run.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.console import Bar, progress
from demiglace.data.batching import Batch, collate, epoch_steps, split_by_tokens
from demiglace.data.text.blocks import Blocks
from demiglace.data.tokenise import TokenizedSplit
from demiglace.errors import DivergedError, ModelError
from demiglace.methods.base import Epoch, TrainingProgress
from demiglace.signals.online import SignalSource
from demiglace.signals.request import Signals
from demiglace.training.adversarial_generator import Adversary
from demiglace.training.checkpoint import load_checkpoint, prefixed, save_checkpoint, unprefixed
from demiglace.training.diagnostics import Diagnostics, loss_shares
from demiglace.training.fsdp import apply_fsdp, full_state_dict, full_tensor, load, no_grad_sync, unsharded_copy
from demiglace.training.log import RunLog
from demiglace.training.objective import Objective, PerturbedBatch
from demiglace.training.optimiser import make_optimiser, optimiser_tensors, restore_optimiser
from demiglace.training.schedule import TrainingSchedule

_FIT_ROWS = 512  # training rows that the terms' weights are fitted to, where their start needs some


Evaluate = Callable[[PreTrainedModel], dict[str, float]]


@dataclass
class TrainerState:
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
class ModelSelection:
    """The validation metric that chooses the best epoch; without `evaluate` the last epoch is the best."""

    evaluate: Evaluate | None = None
    metric: str = ""
    higher_is_better: bool = True


class Loop:
    """One training run in one directory. `lines` tells where row i was read, for messages."""

    def __init__(
        self,
        objective: Objective,
        examples: TokenizedSplit | Blocks,
        source: SignalSource | None,
        goal: ModelSelection,
        config: TrainConfig,
        directory: Path,
        accelerator: Accelerator,
        lines: Sequence[tuple[str, int]],
        adversary: Adversary | None = None,
        starts_from: Epoch = "last",
    ):
        """starts_from: the epoch whose weights a later phase starts from, as in `Method`."""
        self._starts_from = starts_from
        self._examples, self._source, self._goal, self._config = examples, source, goal, config
        self._directory, self._accelerator, self._lines = directory, accelerator, lines
        self._plain, self._adversary = objective.to(accelerator.device), adversary
        self._sharded = config.sharding == "full" and accelerator.num_processes > 1
        self._lengths, self._labelled = examples.lengths, examples.labelled
        self._fit_terms()
        self._copy = unsharded_copy(objective.student) if self._sharded else objective.student
        if self._sharded:
            apply_fsdp(objective, objective.student, accelerator.device)
        self._objective = objective if self._sharded else accelerator.prepare_model(objective)
        self._optimiser = make_optimiser(objective, config)  # behind `apply_fsdp`, which makes other parameters
        self._log = RunLog(directory / "log.jsonl", accelerator.is_main_process)
        self._diagnostics = Diagnostics(objective, config, self._log, self._fetch_batch_and_signals)
        self._window: list[Tensor] = []
        self._epoch_length = len(epoch_steps(self._lengths, config.batch_size, config.seed, 0))
        self._timetable = TrainingSchedule.of(config, objective.phases, self._epoch_length)
        self.state = TrainerState()
        self._saved, self._saved_best = time.perf_counter(), self.state.best_epoch  # of the last checkpoint

    def _fit_terms(self) -> None:
        """Fit what the terms start from to the first rows; a run that resumes has it in its checkpoint.

        Every process does so on the same rows, before the model is shared out or wrapped.
        """
        if self._source is None or self._last.exists() or not self._plain.needs_fit:
            return
        rows = np.concatenate(epoch_steps(self._lengths, self._config.batch_size, self._config.seed, 0))[:_FIT_ROWS]
        parts = split_by_tokens(np.sort(rows), self._lengths, self._config.batch_tokens)
        for phase in range(len(self._plain.phases)):
            batches = (collate(self._examples, part, self._accelerator.device) for part in parts)
            fetched = ((batch, self._source.fetch(batch, phase)) for batch in batches)
            self._plain.fit(fetched, TrainingProgress(self._config.seed, 0, 0, phase))

    @property
    def _last(self) -> Path:
        return self._directory / "checkpoints" / "last.safetensors"

    def _best(self, epoch: int) -> Path:
        return self._directory / "checkpoints" / f"best-{epoch}.safetensors"

    def run(self) -> TrainerState:
        """Train to the end, from the last checkpoint where there is one. Raises `DivergedError`, `RunError`."""
        self._resume()
        while self.state.step < self._timetable.steps and not self.state.stopped:
            self._epoch(self.state.step // self._epoch_length)
        return self.state

    def best_weights(self) -> dict[str, Tensor]:
        """The student's weights of the best epoch."""
        return load_checkpoint(self._best(self.state.best_epoch))[0]

    def student(self) -> PreTrainedModel:
        """The student as it is now, whole; all processes have to ask."""
        if self._sharded:
            self._copy.load_state_dict(full_state_dict(self._plain.student.state_dict()))
        return self._copy

    def _epoch(self, epoch: int) -> None:
        plan = epoch_steps(self._lengths, self._config.batch_size, self._config.seed, epoch)
        first = self.state.step - epoch * self._epoch_length
        self._clock = time.perf_counter()
        if first == 0:
            self._log_mapping(epoch)
            self._begin_phase(epoch)
        done = sum(map(len, plan[:first]))
        title = f"epoch {epoch + 1}/{self._config.epochs}"
        with progress(title, len(self._examples), "rows", done) as bar:
            for index in range(first, len(plan)):
                self._step(epoch, plan[index])
                self._on_step_end(epoch, plan, index, bar)
        self._end_epoch(epoch, self._validate(plan[-1]))

    def _begin_phase(self, epoch: int) -> None:
        """Before the first step of a later phase, reset the optimizer and load the weights that the phase starts from.

        No checkpoint is written between this and the phase's first step, so a resumed run does the same.
        """
        if epoch == 0 or epoch != self._timetable.first_of_phase(epoch):
            return
        if self._starts_from == "best":
            load(self._plain.student, self.best_weights())
        self._optimiser.state.clear()
        start = self.state.best_epoch if self._starts_from == "best" else epoch - 1
        self._log.write("phase", {"epoch": epoch, "step": self.state.step, "starts_from_epoch": start})

    def _step(self, epoch: int, rows: np.ndarray) -> None:
        step = self.state.step
        self._seed_step_rng(step)
        self._plain.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self._timetable.learning_rate(step)
        counts = float(len(rows)), float(max(1, self._labelled[rows].sum()))
        now = self._timetable.progress(step)
        self._train_generator(rows, now)
        total = self._forward_backward(rows, now, counts)
        norm = self._accelerator.clip_grad_norm_(self._plain.parameters(), self._config.max_grad_norm)
        self._optimiser.step()
        self._optimiser.zero_grad()
        assert norm is not None
        self._window.append(torch.cat([total, full_tensor(norm.detach()).reshape(1).float()]))
        self.state.step += 1
        self.state.rows += len(rows)

    def _forward_backward(self, rows: np.ndarray, now: TrainingProgress, counts: tuple[float, float]) -> Tensor:
        """Forward and backward over this process's share of the step; the sums of loss and terms, [1 + terms]."""
        parts = self._local_microbatches(rows)
        ranks = self._accelerator.num_processes
        total = torch.zeros(1 + len(self._plain.names), device=self._accelerator.device)
        for i, (part, weight) in enumerate(parts):
            batch, signals, perturbed = self._fetch_batch_and_signals(part, now, weight)
            if i < len(parts) - 1:
                with self._no_grad_sync():
                    loss, terms = self._objective(batch, signals, now, *counts, perturbed)
                    (loss * ranks).backward()
            else:
                loss, terms = self._objective(batch, signals, now, *counts, perturbed)
                (loss * ranks).backward()  # the exchange of gradients averages over the processes
            total += torch.cat([loss.detach().reshape(1), terms])
        return total

    def _no_grad_sync(self) -> AbstractContextManager[None]:
        """Inside, the gradients are this process's alone."""
        if self._sharded:
            return no_grad_sync(self._objective)
        return self._accelerator.no_sync(self._objective)  # type: ignore[no-any-return]

    def _local_microbatches(self, rows: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """This process's rows of a step, in parts of at most `batch_tokens`, each with what its rows count for.

        Parts that count for nothing are added where the process must take part all the same: it has no rows, or fewer
        parts than another one, and a model that is shared out is gathered by all in each forward and backward pass.
        """
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        cut = [split_by_tokens(rows[r::ranks], self._lengths, self._config.batch_tokens) for r in range(ranks)]
        needed = max(map(len, cut)) if self._sharded else 1
        return [(part, 1.0) for part in cut[rank]] + [(rows[:1], 0.0)] * (needed - len(cut[rank]))

    def _train_generator(self, rows: np.ndarray, now: TrainingProgress) -> None:
        """The generator's step, where it is due: on the rows of the student's step that follows."""
        adversary = self._adversary
        if adversary is None or not self._plain.perturbs(now.phase) or not adversary.options.learns_at(now.step):
            return
        device = self._accelerator.device
        batches = [
            collate(self._examples, part, device, weight, now.epoch) for part, weight in self._local_microbatches(rows)
        ]
        adversary.learn(self._plain.student, batches, len(rows), now, self._sum)

    def _sum(self, value: Tensor) -> Tensor:
        return self._accelerator.reduce(value, "sum")  # type: ignore[no-any-return]

    def _fetch_batch_and_signals(
        self, rows: np.ndarray, now: TrainingProgress, weight: float = 1.0
    ) -> tuple[Batch, Signals, PerturbedBatch | None]:
        """A batch, and what the teacher says of it and of the text that an augmentation made of it."""
        batch = collate(self._examples, rows, self._accelerator.device, weight, now.epoch)
        signals = self._source.fetch(batch, now.phase) if self._source else Signals()
        perturbs = self._adversary is not None and self._plain.perturbs(now.phase)
        return batch, signals, self._adversary.perturb(batch, now) if self._adversary and perturbs else None

    def _on_step_end(self, epoch: int, plan: list[np.ndarray], index: int, bar: Bar) -> None:
        bar.advance(len(plan[index]))
        is_last = index == len(plan) - 1
        if len(self._window) < self._config.log_steps and not is_last:
            return
        loss = self._log_window(epoch, plan, index)
        bar.advance(0, f"loss {loss:.4f}")
        if not is_last and self._is_save_due():
            self._save()

    def _is_save_due(self) -> bool:
        """Whether a checkpoint is to be written now; of a sharded model all processes have to agree on it."""
        is_due = time.perf_counter() - self._saved >= self._config.checkpoint_seconds
        if not self._sharded:
            return is_due
        return bool(broadcast(torch.tensor([is_due], device=self._accelerator.device, dtype=torch.int))[0])

    def _log_window(self, epoch: int, plan: list[np.ndarray], index: int) -> float:
        """Read the window's losses off the device, check them, log their mean; returns the mean loss."""
        values = torch.stack(self._window)
        values[:, :-1] = self._accelerator.reduce(values[:, :-1].contiguous(), "sum")
        self._window = []
        table = values.cpu().numpy()
        self._check_finite(table, plan, index)
        loss, *terms, norm = table.mean(axis=0).tolist()
        record = {
            "step": self.state.step,
            "epoch": epoch,
            "lr": self._optimiser.param_groups[0]["lr"],
            "loss": loss,
            "terms": dict(zip(self._plain.names, terms, strict=True)),
            "shares": loss_shares(self._plain, terms),
            "gradient_norm": norm,
            "diagnostics": self._collect_diagnostics(self._timetable.progress(self.state.step - 1).phase),
        }
        self._log.write("step", record)
        if self._accelerator.is_main_process and not self._sharded:
            self._diagnostics.on_log(record, plan[index], len(table), self._timetable.progress(self.state.step - 1))
        if self._config.report_to:
            self._accelerator.log({"loss": loss} | record["terms"] | {"lr": record["lr"]}, self.state.step)
        return loss

    def _collect_diagnostics(self, phase: int) -> dict[str, float]:
        """Return the numbers that the phase's terms and the generator kept of their last steps."""
        found = {k: float(v) for k, v in self._plain.diagnostics(phase).items()}
        return found | (self._adversary.diagnostics() if self._adversary else {})

    def _check_finite(self, table: np.ndarray, plan: list[np.ndarray], index: int) -> None:
        bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if not len(bad):
            return
        back = len(table) - 1 - int(bad[0])
        rows = plan[index - back]
        loss, norm = table[bad[0]][0], table[bad[0]][-1]
        raise self._diverged(
            f"step {self.state.step - back} has loss {loss:g} and gradient norm {norm:g}. Its {len(rows)} rows begin",
            rows,
        )

    def _diverged(self, what: str, rows: np.ndarray) -> DivergedError:
        """The error that says `what` of these rows, and what can be done."""
        where = ", ".join(f"{file}:{line}" for file, line in (self._lines[r] for r in rows[:5]))
        kept = f"The last good state is in {self._last.parent}." if self._last.exists() else "No state was kept yet."
        return DivergedError(
            f"{what} with {where}. Look at those rows, or give a lower --learning-rate (now "
            f"{self._config.learning_rate:g}) or --precision fp32, and another --output. {kept}"
        )

    def _validate(self, rows: np.ndarray) -> dict[str, float]:
        """The validation metrics now, after the step of these rows."""
        self._update_clock()
        if self._goal.evaluate is None:
            return {}
        try:
            return self._goal.evaluate(self.student())
        except ModelError as error:  # the last update broke what the loss before it could not yet show
            raise self._diverged(
                f"after step {self.state.step}, {error} The step's {len(rows)} rows begin", rows
            ) from error

    def _end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        state = self.state
        state.history.append(metrics)
        value = metrics.get(self._goal.metric)
        if value is None or not self._config.load_best_model_at_end or self._is_best(epoch, value):
            self._keep_as_best(epoch, value)
        patience = self._config.patience
        waited = epoch - max(state.best_epoch, self._timetable.last_phase)
        state.stopped = patience is not None and epoch >= self._timetable.last_phase and waited >= patience
        seconds = time.perf_counter() - self._clock
        self._log.write("epoch", {"epoch": epoch, "step": state.step, "metrics": metrics, "seconds": seconds})
        if self._config.report_to and metrics:
            self._accelerator.log({f"validation.{k}": v for k, v in metrics.items()}, state.step)
        self._clock = time.perf_counter()
        if self._is_save_due():  # where epochs are short, a checkpoint of each would cost more than a lost epoch does
            self._save()
        self._accelerator.wait_for_everyone()

    def _keep_as_best(self, epoch: int, value: float | None) -> None:
        """Write the weights; those of the best epoch before stay as long as the last checkpoint goes back to them."""
        before = self.state.best_epoch
        self.state.best_epoch, self.state.best_value = epoch, value
        weights = self.student().state_dict()
        if self._accelerator.is_main_process:
            save_checkpoint(self._best(epoch), weights, {"epoch": epoch, "value": value})
            if before != self._saved_best:
                self._best(before).unlink(missing_ok=True)

    def _is_best(self, epoch: int, value: float) -> bool:
        """Return whether this epoch's model is the best of its phase so far."""
        best = self.state.best_value
        if best is None or self.state.best_epoch < self._timetable.first_of_phase(epoch):
            return True
        return value > best if self._goal.higher_is_better else value < best

    def _log_mapping(self, epoch: int) -> None:
        now = self._timetable.progress(self.state.step)
        for term, pairs in self._plain.pairs(now).items():
            self._log.write("mapping", {"epoch": epoch, "step": self.state.step, "term": term, "pairs": pairs})

    def _seed_step_rng(self, step: int) -> None:
        """Dropout as a function of the step, so that no generator's state needs saving."""
        words = (self._config.seed, step, self._accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def _update_clock(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        tensors = prefixed("objective.", full_state_dict(self._plain.state_dict()))
        tensors |= prefixed("optimiser.", full_state_dict(optimiser_tensors(self._optimiser)))
        if self._accelerator.is_main_process:
            self._update_clock()
            self.state.log_size = self._log.size
            tensors |= prefixed("adversary.", self._adversary.tensors() if self._adversary else {})
            save_checkpoint(self._last, tensors, vars(self.state))
            if self._saved_best not in (-1, self.state.best_epoch):
                self._best(self._saved_best).unlink(missing_ok=True)
        self._saved, self._saved_best = time.perf_counter(), self.state.best_epoch

    def _resume(self) -> None:
        if not self._last.exists():
            self._log.cut(0)
            return
        tensors, position = load_checkpoint(self._last)
        self.state = TrainerState(**position)
        load(self._plain, unprefixed("objective.", tensors))
        restore_optimiser(self._optimiser, unprefixed("optimiser.", tensors))
        if self._adversary:
            self._adversary.restore(unprefixed("adversary.", tensors))
        self._log.cut(self.state.log_size)
        self._saved_best = self.state.best_epoch
        if self.state.best_epoch >= 0:
            self.best_weights()  # if they are damaged, say so now and not after the training
