"""The training loop of all methods, with or without a teacher, on one or several processes.

A step is `batch_size` rows over all processes. Each process splits its share into microbatches of at most
`batch_tokens` tokens. The loss of a microbatch is divided by the number of rows of the full step, so without dropout
the result does not depend on the number of microbatches or processes, except for rounding. Dropout is drawn for each
microbatch and process. All randomness is a pure function of (seed, epoch, step, process), so a run that is interrupted
and resumed on as many processes gives the same result.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from torch.amp import GradScaler
from transformers import PreTrainedModel

from demiglace.callbacks import EpochEvent, StepEvent
from demiglace.config.training import TrainConfig
from demiglace.console import Bar, progress, say
from demiglace.data.batching import Batch, collate, epoch_steps, split_by_tokens
from demiglace.data.text.blocks import Blocks
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import DivergedError, ModelError
from demiglace.methods.base import Epoch, TrainingProgress
from demiglace.signals.online import SignalSource
from demiglace.signals.request import Signals
from demiglace.training.adversarial_generator import AdversarialGenerator
from demiglace.training.checkpoint import load_checkpoint, prefixed, save_checkpoint, unprefixed
from demiglace.training.diagnostics import Diagnostics, loss_shares
from demiglace.training.fsdp import apply_fsdp, full_state_dict, full_tensor, load, no_grad_sync, unsharded_copy
from demiglace.training.log import RunLog
from demiglace.training.objective import Objective, PerturbedBatch
from demiglace.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from demiglace.training.schedule import TrainingSchedule

_FIT_ROWS = 512  # training rows for the initial weights of terms that need a fit

Evaluate = Callable[[PreTrainedModel], dict[str, float]]


@dataclass
class TrainerState:
    """Trainer state, saved in every checkpoint."""

    step: int = 0  # optimizer steps done
    log_size: int = 0  # bytes of the log
    seconds: float = 0.0  # of training, over all sessions of the run
    rows: int = 0  # rows trained on
    best_epoch: int = -1  # from 0; -1 before the first validation
    best_value: float | None = None  # validation metric of the best epoch
    history: list[dict[str, float]] = field(default_factory=list)  # validation metrics of each epoch
    stopped: bool = False  # by early stopping
    skipped_steps: int = 0  # fp16: steps without an update, because scaled gradients overflowed
    scaler: dict[str, Any] = field(default_factory=dict)  # fp16: state of the loss scaling


@dataclass(frozen=True)
class ModelSelection:
    """The criterion that selects the best epoch."""

    evaluate: Evaluate | None = None  # returns the validation metrics of a model; None: the last epoch is the best
    metric: str = ""  # name of the metric that selects
    higher_is_better: bool = True


class Loop:
    """One training run in a run directory."""

    def __init__(
        self,
        objective: Objective,
        examples: TokenizedSplit | Blocks,
        source: SignalSource | None,
        selection: ModelSelection,
        config: TrainConfig,
        directory: Path,
        accelerator: Accelerator,
        source_locations: Sequence[tuple[str, int]],
        adversary: AdversarialGenerator | None = None,
        starts_from: Epoch = "last",
    ):
        """Prepare model, optimizer, log and schedule.

        source_locations: (file, line) of each training row, for messages. starts_from: the epoch whose weights a later
        phase starts from, as in `Method`.
        """
        self._starts_from = starts_from
        self._examples, self._source, self._selection, self._config = examples, source, selection, config
        self._directory, self._accelerator, self._source_locations = directory, accelerator, source_locations
        self._unwrapped, self._adversary = objective.to(accelerator.device), adversary
        self._sharded = config.sharding == "full" and accelerator.num_processes > 1
        self._lengths, self._labelled, self._units = examples.lengths, examples.labelled, examples.units
        self._fit_terms()
        self._unsharded_student = unsharded_copy(objective.student) if self._sharded else objective.student
        if self._sharded:
            apply_fsdp(objective, objective.student, accelerator.device)
        self._objective = objective if self._sharded else accelerator.prepare_model(objective)
        self._optimizer = make_optimizer(objective, config)  # after `apply_fsdp`, which replaces the parameters
        self._scaler = GradScaler(accelerator.device.type, enabled=objective.precision == "fp16")
        self._log = RunLog(directory / "log.jsonl", accelerator.is_main_process)
        self._diagnostics = Diagnostics(objective, config, self._log, self._fetch_batch_and_signals)
        self._window: list[Tensor] = []
        self._loss = torch.zeros(())  # of the last step
        self._epoch_length = len(epoch_steps(self._lengths, config.batch_size, config.seed, 0))
        self._schedule = TrainingSchedule.of(config, objective.phases, self._epoch_length)
        if config.max_steps is not None:
            epochs = config.max_steps / self._epoch_length
            say(f"--max-steps {config.max_steps:,}: {epochs:.3g} epochs of {self._epoch_length:,} steps")
        self.state = TrainerState()
        # time and best epoch of the last checkpoint
        self._saved, self._saved_best = time.perf_counter(), self.state.best_epoch

    def _fit_terms(self) -> None:
        """Fit the initial weights of terms to the first rows, unless a checkpoint has them.

        All processes use the same rows. This runs before the model is sharded or wrapped.
        """
        if self._source is None or self._last.exists() or not self._unwrapped.needs_fit:
            return
        rows = np.concatenate(epoch_steps(self._lengths, self._config.batch_size, self._config.seed, 0))[:_FIT_ROWS]
        microbatches = split_by_tokens(np.sort(rows), self._lengths, self._config.batch_tokens)
        for phase in range(len(self._unwrapped.phases)):
            batches = (collate(self._examples, part, self._accelerator.device) for part in microbatches)
            fetched = ((batch, self._source.fetch(batch, phase)) for batch in batches)
            self._unwrapped.fit(fetched, TrainingProgress(self._config.seed, 0, 0, phase))

    @property
    def _last(self) -> Path:
        return self._directory / "checkpoints" / "last.safetensors"

    def _best(self, epoch: int) -> Path:
        return self._directory / "checkpoints" / f"best-{epoch}.safetensors"

    def run(self) -> TrainerState:
        """Train to the end, from the last checkpoint if there is one, and return the final state.

        Raises `DivergedError` for a loss or gradient that is not finite, `RunError` for a damaged or unwritable file.
        """
        self._resume()
        while self.state.step < self._schedule.steps and not self.state.stopped:
            self._epoch(self.state.step // self._epoch_length)
        return self.state

    def best_weights(self) -> dict[str, Tensor]:
        """Return the student's weights of the best epoch."""
        return load_checkpoint(self._best(self.state.best_epoch))[0]

    def student(self) -> PreTrainedModel:
        """Return the student with its current, unsharded weights. All processes must call this."""
        if self._sharded:
            self._unsharded_student.load_state_dict(full_state_dict(self._unwrapped.student.state_dict()))
        return self._unsharded_student

    def _epoch(self, epoch: int) -> None:
        step_rows = epoch_steps(self._lengths, self._config.batch_size, self._config.seed, epoch)
        step_rows = step_rows[
            : self._schedule.steps - epoch * self._epoch_length
        ]  # --max-steps ends the last one early
        first = self.state.step - epoch * self._epoch_length
        self._clock = time.perf_counter()
        if first == 0:
            self._log_mapping(epoch)
            self._begin_phase(epoch)
        done = sum(map(len, step_rows[:first]))
        title = f"epoch {epoch + 1}/{self._schedule.epochs}"
        with progress(title, sum(map(len, step_rows)), "rows", done) as bar:
            for index in range(first, len(step_rows)):
                self._step(epoch, step_rows[index])
                self._on_step_end(epoch, step_rows, index, bar)
                if index < len(step_rows) - 1:
                    self._call_back(epoch, step_rows, index)
        metrics = self._validate(step_rows[-1])
        self._end_epoch(epoch, metrics)
        self._call_back(epoch, step_rows, len(step_rows) - 1, metrics)

    def _begin_phase(self, epoch: int) -> None:
        """Before the first step of a later phase, reset the optimizer and load the weights that the phase starts from.

        No checkpoint is written between this and the phase's first step, so a resumed run does the same.
        """
        if epoch == 0 or epoch != self._schedule.first_of_phase(epoch):
            return
        if self._starts_from == "best":
            load(self._unwrapped.student, self.best_weights())
        self._optimizer.state.clear()
        start = self.state.best_epoch if self._starts_from == "best" else epoch - 1
        self._log.write("phase", {"epoch": epoch, "step": self.state.step, "starts_from_epoch": start})

    def _step(self, epoch: int, rows: np.ndarray) -> None:
        step = self.state.step
        self._seed_step_rng(step)
        self._unwrapped.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.learning_rate(step)
        counts = float(len(rows)), float(max(1, self._labelled[rows].sum()))
        units = float(max(1, self._units[rows].sum()))
        now = self._schedule.progress(step)
        self._train_generator(rows, now)
        total = self._forward_backward(rows, now, counts, units)
        self._scaler.unscale_(self._optimizer)
        norm = self._accelerator.clip_grad_norm_(self._unwrapped.parameters(), self._config.max_grad_norm)
        self._scaler.step(self._optimizer)  # no update if a gradient is not finite
        self._scaler.update()
        self._optimizer.zero_grad()
        assert norm is not None
        self._loss = total[0]
        self._window.append(torch.cat([total, full_tensor(norm.detach()).reshape(1).float()]))
        self.state.step += 1
        self.state.rows += len(rows)

    def _forward_backward(
        self, rows: np.ndarray, now: TrainingProgress, counts: tuple[float, float], units: float
    ) -> Tensor:
        """Run forward and backward over this process's share of the step; return summed loss and terms, [1 + terms]."""
        microbatches = self._local_microbatches(rows)
        ranks = self._accelerator.num_processes
        total = torch.zeros(1 + len(self._unwrapped.names), device=self._accelerator.device)
        for i, (part, weight) in enumerate(microbatches):
            batch, signals, perturbed = self._fetch_batch_and_signals(part, now, weight)
            if i < len(microbatches) - 1:
                with self._no_grad_sync():
                    loss, terms = self._objective(batch, signals, now, *counts, perturbed, units)
                    self._scaler.scale(loss * ranks).backward()
            else:
                loss, terms = self._objective(batch, signals, now, *counts, perturbed, units)
                self._scaler.scale(loss * ranks).backward()  # synchronization averages gradients over processes
            total += torch.cat([loss.detach().reshape(1), terms])
        return total

    def _no_grad_sync(self) -> AbstractContextManager[None]:
        """Return a context in which gradients are not synchronized over processes."""
        if self._sharded:
            return no_grad_sync(self._objective)
        return self._accelerator.no_sync(self._objective)  # type: ignore[no-any-return]

    def _local_microbatches(self, rows: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Return this process's rows of a step in microbatches of at most `batch_tokens`, each with its weight.

        Microbatches of weight 0 are added if the process has no rows, or, with a sharded model, fewer microbatches than
        another process: all processes gather its weights in each forward and backward pass.
        """
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        by_rank = [split_by_tokens(rows[r::ranks], self._lengths, self._config.batch_tokens) for r in range(ranks)]
        needed = max(map(len, by_rank)) if self._sharded else 1
        return [(part, 1.0) for part in by_rank[rank]] + [(rows[:1], 0.0)] * (needed - len(by_rank[rank]))

    def _train_generator(self, rows: np.ndarray, now: TrainingProgress) -> None:
        """Train the generator, if a step is due, on the rows of the student's step that follows."""
        adversary = self._adversary
        if adversary is None or not self._unwrapped.perturbs(now.phase) or not adversary.options.trains_at(now.step):
            return
        device = self._accelerator.device
        batches = [
            collate(self._examples, part, device, weight, now.epoch) for part, weight in self._local_microbatches(rows)
        ]
        adversary.train_step(self._unwrapped.student, batches, len(rows), now, self._reduce_sum)

    def _reduce_sum(self, value: Tensor) -> Tensor:
        return self._accelerator.reduce(value, "sum")  # type: ignore[no-any-return]

    def _fetch_batch_and_signals(
        self, rows: np.ndarray, now: TrainingProgress, weight: float = 1.0
    ) -> tuple[Batch, Signals, PerturbedBatch | None]:
        """Return a batch, the teacher's signals for it, and the perturbed batch, if the phase uses one."""
        batch = collate(self._examples, rows, self._accelerator.device, weight, now.epoch)
        signals = self._source.fetch(batch, now.phase) if self._source else Signals()
        perturbs = self._adversary is not None and self._unwrapped.perturbs(now.phase)
        return batch, signals, self._adversary.perturb(batch, now) if self._adversary and perturbs else None

    def _on_step_end(self, epoch: int, step_rows: list[np.ndarray], index: int, bar: Bar) -> None:
        bar.advance(len(step_rows[index]))
        is_last = index == len(step_rows) - 1
        if len(self._window) < self._config.log_steps and not is_last:
            return
        loss = self._log_window(epoch, step_rows, index)
        bar.advance(0, f"loss {loss:.4f}")
        if not is_last and self._is_save_due():
            self._save()

    def _call_back(
        self, epoch: int, step_rows: list[np.ndarray], index: int, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Call the callbacks after a step, and after an epoch, whose last step comes with its metrics.

        If one raises, save a checkpoint; several processes do not, because one of them alone cannot save.
        """
        if not self._config.callbacks:
            return
        try:
            for callback in self._config.callbacks:
                callback.on_step(self._step_event(epoch))
                if metrics is not None:
                    callback.on_epoch(self._epoch_event(epoch, metrics))
        except BaseException:
            if self._accelerator.num_processes == 1:
                if self._window:
                    self._log_window(epoch, step_rows, index)
                self._save()
            raise

    def _step_event(self, epoch: int) -> StepEvent:
        loss, rate = self._loss, self._optimizer.param_groups[0]["lr"]
        return StepEvent(self.state.step, self._schedule.steps, epoch + 1, rate, lambda: float(loss))

    def _epoch_event(self, epoch: int, metrics: Mapping[str, float]) -> EpochEvent:
        is_best = self.state.best_epoch == epoch
        return EpochEvent(epoch + 1, self._schedule.epochs, self.state.step, metrics, is_best, self.student())

    def _is_save_due(self) -> bool:
        """Return whether a checkpoint is due. With a sharded model, all processes use the answer of the first."""
        is_due = time.perf_counter() - self._saved >= self._config.checkpoint_seconds
        if not self._sharded:
            return is_due
        return bool(broadcast(torch.tensor([is_due], device=self._accelerator.device, dtype=torch.int))[0])

    def _log_window(self, epoch: int, step_rows: list[np.ndarray], index: int) -> float:
        """Copy the window's losses from the device, check them and log their means; return the mean loss."""
        values = torch.stack(self._window)
        values[:, :-1] = self._accelerator.reduce(values[:, :-1].contiguous(), "sum")
        self._window = []
        table = values.cpu().numpy()
        self._check_finite(table, step_rows, index)
        loss, *terms, _ = table.mean(axis=0).tolist()
        finite = np.isfinite(table[:, -1])
        self.state.skipped_steps += int((~finite).sum())
        record = {
            "step": self.state.step,
            "epoch": epoch,
            "lr": self._optimizer.param_groups[0]["lr"],
            "loss": loss,
            "terms": dict(zip(self._unwrapped.names, terms, strict=True)),
            "shares": loss_shares(self._unwrapped, terms),
            "gradient_norm": float(table[finite, -1].mean()) if finite.any() else None,
            "diagnostics": self._collect_diagnostics(self._schedule.progress(self.state.step - 1).phase),
        }
        self._log.write("step", record)
        if self._accelerator.is_main_process and not self._sharded:
            self._diagnostics.on_log(record, step_rows[index], len(table), self._schedule.progress(self.state.step - 1))
        if self._config.report_to:
            self._accelerator.log({"loss": loss} | record["terms"] | {"lr": record["lr"]}, self.state.step)
        return loss

    def _collect_diagnostics(self, phase: int) -> dict[str, float]:
        """Return the diagnostics of the phase's terms and of the generator from their last steps."""
        diagnostics = {k: float(v) for k, v in self._unwrapped.diagnostics(phase).items()}
        return diagnostics | (self._adversary.diagnostics() if self._adversary else {})

    def _check_finite(self, table: np.ndarray, step_rows: list[np.ndarray], index: int) -> None:
        # with loss scaling a gradient may overflow: the step is skipped and the scale halved
        scaled = self._scaler.is_enabled() and self._scaler.get_scale() >= 1
        bad = np.flatnonzero(~np.isfinite(table[:, :-1] if scaled else table).all(axis=1))
        if not len(bad):
            return
        back = len(table) - 1 - int(bad[0])
        rows = step_rows[index - back]
        loss, norm = table[bad[0]][0], table[bad[0]][-1]
        raise self._diverged(
            f"step {self.state.step - back} has loss {loss:g} and gradient norm {norm:g}. Its {len(rows)} rows start",
            rows,
        )

    def _diverged(self, what: str, rows: np.ndarray) -> DivergedError:
        """Return the error for these rows; what: the start of its message."""
        where = ", ".join(f"{file}:{line}" for file, line in (self._source_locations[r] for r in rows[:5]))
        saved = f"The last checkpoint is in {self._last.parent}." if self._last.exists() else "No checkpoint was saved."
        return DivergedError(
            f"{what} with {where}. Check those rows, or give a lower --learning-rate (now "
            f"{self._config.learning_rate:g}) or --precision fp32, and another --output. {saved}"
        )

    def _validate(self, rows: np.ndarray) -> dict[str, float]:
        """Return the current validation metrics; rows: of the last step, for the message of an error."""
        self._update_clock()
        if self._selection.evaluate is None:
            return {}
        try:
            return self._selection.evaluate(self.student())
        except ModelError as error:  # the last update broke the model; the loss was computed before it
            raise self._diverged(
                f"after step {self.state.step}, {error} The step's {len(rows)} rows start", rows
            ) from error

    def _end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        state = self.state
        state.history.append(metrics)
        value = metrics.get(self._selection.metric)
        if value is None or not self._config.load_best_model_at_end or self._is_best(epoch, value):
            self._keep_as_best(epoch, value)
        patience = self._config.patience
        waited = epoch - max(state.best_epoch, self._schedule.last_phase)
        state.stopped = patience is not None and epoch >= self._schedule.last_phase and waited >= patience
        seconds = time.perf_counter() - self._clock
        self._log.write("epoch", {"epoch": epoch, "step": state.step, "metrics": metrics, "seconds": seconds})
        if self._config.report_to and metrics:
            self._accelerator.log({f"validation.{k}": v for k, v in metrics.items()}, state.step)
        self._clock = time.perf_counter()
        if self._is_save_due():  # not in every epoch: for short epochs, writing costs more than repeating one
            self._save()
        self._accelerator.wait_for_everyone()

    def _keep_as_best(self, epoch: int, value: float | None) -> None:
        """Write the weights. Keep those of the previous best epoch while the last checkpoint refers to them."""
        previous = self.state.best_epoch
        self.state.best_epoch, self.state.best_value = epoch, value
        weights = self.student().state_dict()
        if self._accelerator.is_main_process:
            save_checkpoint(self._best(epoch), weights, {"epoch": epoch, "value": value})
            if previous != self._saved_best:
                self._best(previous).unlink(missing_ok=True)

    def _is_best(self, epoch: int, value: float) -> bool:
        """Return whether this epoch's model is the best of its phase so far."""
        best = self.state.best_value
        if best is None or self.state.best_epoch < self._schedule.first_of_phase(epoch):
            return True
        return value > best if self._selection.higher_is_better else value < best

    def _log_mapping(self, epoch: int) -> None:
        now = self._schedule.progress(self.state.step)
        for term, pairs in self._unwrapped.layer_pairs(now).items():
            self._log.write("mapping", {"epoch": epoch, "step": self.state.step, "term": term, "pairs": pairs})

    def _seed_step_rng(self, step: int) -> None:
        """Seed dropout with the step, so that no random state needs to be saved."""
        words = (self._config.seed, step, self._accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def _update_clock(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        tensors = prefixed("objective.", full_state_dict(self._unwrapped.state_dict()))
        tensors |= prefixed("optimizer.", full_state_dict(optimizer_tensors(self._optimizer)))
        if self._accelerator.is_main_process:
            self._update_clock()
            self.state.log_size = self._log.size
            self.state.scaler = self._scaler.state_dict()
            tensors |= prefixed("adversary.", self._adversary.tensors() if self._adversary else {})
            save_checkpoint(self._last, tensors, vars(self.state))
            if self._saved_best not in (-1, self.state.best_epoch):
                self._best(self._saved_best).unlink(missing_ok=True)
        self._saved, self._saved_best = time.perf_counter(), self.state.best_epoch

    def _resume(self) -> None:
        if not self._last.exists():
            self._log.truncate(0)
            return
        tensors, trainer_state = load_checkpoint(self._last)
        self.state = TrainerState(**trainer_state)
        load(self._unwrapped, unprefixed("objective.", tensors))
        restore_optimizer(self._optimizer, unprefixed("optimizer.", tensors))
        self._scaler.load_state_dict(self.state.scaler)
        if self._adversary:
            self._adversary.restore(unprefixed("adversary.", tensors))
        self._log.truncate(self.state.log_size)
        self._saved_best = self.state.best_epoch
        if self.state.best_epoch >= 0:
            self.best_weights()  # raises now, not after the training, if they are damaged
