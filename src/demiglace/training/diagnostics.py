"""Diagnostics of a run: whether each loss term trains the student, whether one dominates, whether features collapse.

They do not change the run: its weights, gradients and random numbers stay as they are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.console import say
from demiglace.data.batching import Batch
from demiglace.errors import ModelError
from demiglace.methods.base import Term, TrainingProgress
from demiglace.methods.terms.logits import LogitDistillation
from demiglace.methods.terms.scheduled import ScheduledTerm
from demiglace.models.layer_stack import layer_stack
from demiglace.models.loading import seeded
from demiglace.signals.request import Signals
from demiglace.training.log import RunLog
from demiglace.training.objective import Objective, PerturbedBatch

_STEPS_BETWEEN = 200  # steps between measurements of gradient norms, so that they take less than 1 % of the time
_ROWS = 8  # rows of such a measurement
_FIRST_ROWS = 32  # rows of the measurement in the first steps of a phase, which is printed
_MAX_RATIO = 30.0  # of the gradient norms of two weighted terms

_THRESHOLDS = {"feature_variance": 0.02, "centered_cosine": 0.3}  # lower values give a warning
_MEANING = {
    "feature_variance": (
        "the features of all rows are nearly equal, so {term} trains almost nothing; try projection=none, "
        "another pooling or a lower --learning-rate."
    ),
    "centered_cosine": (
        "student and teacher hardly agree on the differences between rows, so {term} trains what all rows have in "
        "common; try projection=none or start=matched."
    ),
}
_AGREEMENT_STEPS = 100  # steps before centered_cosine is checked; a student with random weights starts low

FetchBatch = Callable[[np.ndarray, TrainingProgress], tuple[Batch, Signals, PerturbedBatch | None]]


def loss_shares(objective: Objective, values: Sequence[float]) -> dict[str, float]:
    """Return each term's share of the total, |weight · value| / Σ |weight · value|; all are 0 if the total is 0."""
    parts = [abs(row.weight * value) for row, value in zip(objective.rows, values, strict=True)]
    total = sum(parts) or 1.0
    return {name: part / total for name, part in zip(objective.names, parts, strict=True)}


def gradient_norms(objective: Objective, terms: Tensor, phase: int) -> tuple[int, dict[str, float]]:
    """Compute ‖∂(weight · term) / ∂W‖₂ of the phase's terms, W the parameters of the last layer that all of them train.

    terms: of `Objective.term_values`, unweighted [terms], with their graph. Return the number of that layer, from 1,
    and the norm of each term. If the terms share no layer, use the first one. `grad` of the parameters is unchanged.
    GradNorm weights terms by these norms (Chen et al. 2018, arXiv 1711.02257).
    """
    layers = _layers(objective.student)
    flat = [p for layer in layers for p in layer]
    norms: dict[str, list[float]] = {}
    for name, row, value, active in zip(objective.names, objective.rows, terms, objective.active(phase), strict=True):
        if active and value.requires_grad:
            grads = iter(torch.autograd.grad(row.weight * value, flat, retain_graph=True, allow_unused=True))
            norms[name] = [_norm([next(grads) for _ in layer]) for layer in layers]
    nonzero = [norm for norm in norms.values() if any(norm)]
    shared = [i for i in range(len(layers)) if all(norm[i] > 0 for norm in nonzero)]
    last = shared[-1] if shared else 0
    return last + 1, {name: norm[last] for name, norm in norms.items()}


def _layers(student: PreTrainedModel) -> list[list[nn.Parameter]]:
    """Return the trained parameters of each layer, or of the full model if its layers cannot be found."""
    try:
        blocks: Iterable[nn.Module] = layer_stack(student)
    except ModelError:
        blocks = [student]
    layers = [[p for p in block.parameters() if p.requires_grad] for block in blocks]
    # if all layers are frozen, use the other parameters, such as the head
    return layers if any(layers) else [[p for p in student.parameters() if p.requires_grad]]


def _norm(gradients: Sequence[Tensor | None]) -> float:
    """Return the joint norm of all gradients, 0 if there are none."""
    norms = [g.float().norm() for g in gradients if g is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def imbalance_warning(norms: Mapping[str, float]) -> str | None:
    """Return a warning if one term's gradient norm is over 30 times another's; norms of 0 are ignored."""
    nonzero = {name: norm for name, norm in norms.items() if norm > 0}
    if not nonzero:
        return None
    largest, smallest = max(nonzero, key=nonzero.__getitem__), min(nonzero, key=nonzero.__getitem__)
    ratio = nonzero[largest] / nonzero[smallest]
    if ratio <= _MAX_RATIO:
        return None
    return (
        f"warning: the gradient of {largest} is {ratio:,.0f} times as large as that of {smallest}, which has almost no "
        "effect; change their weights."
    )


def _threshold(name: str, step: int) -> float | None:
    """Return the value below which a diagnostic gives a warning at this step, or None if it never does."""
    key = name.partition(".")[2]
    return None if key == "centered_cosine" and step < _AGREEMENT_STEPS else _THRESHOLDS.get(key)


class Diagnostics:
    """Checks of a run after each log window, on the main process; disabled by `--diagnostics off`."""

    def __init__(self, objective: Objective, config: TrainConfig, log: RunLog, fetch_batch: FetchBatch):
        self._objective, self._config, self._log, self._fetch_batch_and_signals = objective, config, log, fetch_batch
        self._checked: set[int] = set()
        self._low: set[str] = set()
        self._warned: set[str] = set()

    def on_log(self, record: Mapping[str, Any], rows: np.ndarray, steps: int, now: TrainingProgress) -> None:
        """Check a window of `steps` steps.

        record: its record in the log; rows and now: of its last step.
        """
        if self._config.diagnostics == "off":
            return
        end = record["step"]
        # not in the first step of a phase, where a rising weight is still 0
        is_mixed = len(self._objective.rows) > 1
        if is_mixed and now.phase not in self._checked and now.phase_epoch == 0 and now.fraction > 0:
            self._checked.add(now.phase)
            self._first_steps(record, rows[:_FIRST_ROWS], now)
        if end <= steps or end // _STEPS_BETWEEN > (end - steps) // _STEPS_BETWEEN:
            layer, norms = self._norms(rows[:_ROWS], now)
            self._log.write("gradients", {"step": end, "layer": layer, "terms": norms})
        self._watch_features(end, record["diagnostics"])

    def _first_steps(self, record: Mapping[str, Any], rows: np.ndarray, now: TrainingProgress) -> None:
        """Print each term's share of the gradient. Warn about terms without a gradient and about very unequal ones.

        Shares of the loss would mislead: a small term may have a large gradient, and a large one a small gradient.
        """
        layer, norms = self._norms(rows, now)
        terms, total = record["terms"], sum(norms.values()) or 1.0
        kinds = dict(zip(self._objective.names, self._objective.rows, strict=True))
        parts = (
            f"{name} {terms[name]:.4g} ({norm / total:.1%}{self._temperature(kinds[name].term)})"
            for name, norm in norms.items()
        )
        say(f"first steps: loss terms and their shares of the gradient at layer {layer}: {', '.join(parts)}")
        for name, norm in norms.items():
            if terms[name] == 0 == norm:
                say(f"warning: {name} is 0 in the first steps and has no gradient, so it trains nothing.")
        if warning := imbalance_warning(norms):
            say(warning)

    def _norms(self, rows: np.ndarray, now: TrainingProgress) -> tuple[int, dict[str, float]]:
        """Compute the terms' gradient norms on these rows at the current weights; see `gradient_norms`."""
        with seeded(self._config.seed), torch.enable_grad():
            batch, signals, perturbed = self._fetch_batch_and_signals(rows, now)
            labels, _, labelled = batch.units
            counts = float(len(rows)), max(1.0, float(labelled.sum()))
            units = None if batch.words is None else max(1.0, float(len(labels)))
            terms = self._objective.term_values(batch, signals, now, *counts, perturbed, units)
            return gradient_norms(self._objective, terms, now.phase)

    def _watch_features(self, step: int, values: Mapping[str, float]) -> None:
        """Warn once about each term whose diagnostics are too low in two consecutive windows."""
        low = {n for n, value in values.items() if (threshold := _threshold(n, step)) is not None and value < threshold}
        for name in (low & self._low) - self._warned:
            term, _, key = name.partition(".")
            say(f"warning: {name} is {values[name]:.1e}: {_MEANING[key].format(term=term)}")
            self._warned.add(name)
        self._low = low

    def _temperature(self, term: Term) -> str:
        """Return the effect of a term's temperature on its gradient, "" for a term without one."""
        if isinstance(term, ScheduledTerm):
            return self._temperature(term.term)
        is_regression = self._objective.student.config.num_labels == 1
        if not isinstance(term, LogitDistillation) or term.divergence in ("squared", "hard") or is_regression:
            return ""
        return f", τ = {term.temperature:g}, times τ² = {term.temperature**2:g}"
