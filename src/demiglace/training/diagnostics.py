"""What a run tells about its own health: does every loss term teach, does one drown another, do features collapse.

Nothing here changes the run: no weight, no gradient and no random number of it.
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

_STEPS_BETWEEN = 200  # from one look at the gradients to the next: so they cost less than 1 % of the time
_ROWS = 8  # rows that such a look takes
_FIRST_ROWS = 32  # rows of the look in a phase's first steps, which the user is shown
_FAR_APART = 30.0  # times that one weighted term's gradient may be another's

_LEAST = {"feature_variance": 0.02, "centered_cosine": 0.3}  # healthy terms lie above
_MEANING = {
    "feature_variance": (
        "the features of all rows are nearly the same, so {term} trains next to nothing; try projection=none, "
        "another pooling or a lower --learning-rate."
    ),
    "centered_cosine": (
        "student and teacher hardly agree on what distinguishes one row from another, so {term} trains what all rows "
        "share; try projection=none, or start=matched."
    ),
}
_SETTLED = 100  # steps after which two models should agree; a student with new weights does not at the start

FetchBatch = Callable[[np.ndarray, TrainingProgress], tuple[Batch, Signals, PerturbedBatch | None]]


def loss_shares(objective: Objective, values: Sequence[float]) -> dict[str, float]:
    """Each term's share of the total: |weight · value| / Σ |weight · value|, all 0 where the total is."""
    parts = [abs(row.weight * value) for row, value in zip(objective.rows, values, strict=True)]
    total = sum(parts) or 1.0
    return {name: part / total for name, part in zip(objective.names, parts, strict=True)}


def gradient_norms(objective: Objective, terms: Tensor, phase: int) -> tuple[int, dict[str, float]]:
    """‖∂(weight · term) / ∂W‖₂ for the phase's terms, W the parameters of the last layer that they share.

    terms: those of `Objective.term_values`, unweighted [terms], with their graph. Returns that layer's number, from 1,
    and the norms by term; where those that reach any layer share none, the first one's. No `grad` is touched.
    (Chen et al. 2018, GradNorm, arXiv 1711.02257, weigh terms by these.)
    """
    layers = _layers(objective.student)
    flat = [p for layer in layers for p in layer]
    norms: dict[str, list[float]] = {}
    for name, row, value, on in zip(objective.names, objective.rows, terms, objective.active(phase), strict=True):
        if on and value.requires_grad:
            found = iter(torch.autograd.grad(row.weight * value, flat, retain_graph=True, allow_unused=True))
            norms[name] = [_norm([next(found) for _ in layer]) for layer in layers]
    felt = [norm for norm in norms.values() if any(norm)]
    reached = [i for i in range(len(layers)) if all(norm[i] > 0 for norm in felt)]
    last = reached[-1] if reached else 0
    return last + 1, {name: norm[last] for name, norm in norms.items()}


def _layers(student: PreTrainedModel) -> list[list[nn.Parameter]]:
    """The trained parameters of each layer; of the whole model where its layers are not found."""
    try:
        blocks: Iterable[nn.Module] = layer_stack(student)
    except ModelError:
        blocks = [student]
    layers = [[p for p in block.parameters() if p.requires_grad] for block in blocks]
    # where all layers are frozen, what is left, such as the head
    return layers if any(layers) else [[p for p in student.parameters() if p.requires_grad]]


def _norm(gradients: Sequence[Tensor | None]) -> float:
    """Of all of them together."""
    there = [g.float().norm() for g in gradients if g is not None]
    return float(torch.stack(there).norm()) if there else 0.0


def imbalance_warning(parts: Mapping[str, float]) -> str | None:
    """Return a warning where one term's gradient norm is over 30 times another's; terms of norm 0 do not count."""
    there = {name: part for name, part in parts.items() if part > 0}
    if not there:
        return None
    most, least = max(there, key=there.__getitem__), min(there, key=there.__getitem__)
    times = there[most] / there[least]
    if times <= _FAR_APART:
        return None
    return (
        f"warning: the gradient of {most} is {times:,.0f} times as large as that of {least}, which has next to no "
        "effect; change their weights."
    )


def _bound(name: str, step: int) -> float | None:
    """Return the value below which a diagnostic is a warning at this step; None for one that is not watched."""
    key = name.partition(".")[2]
    return None if key == "centered_cosine" and step < _SETTLED else _LEAST.get(key)


class Diagnostics:
    """Looks at a run after each window of its log, on the main process, unless `--diagnostics off`."""

    def __init__(self, objective: Objective, config: TrainConfig, log: RunLog, hear: FetchBatch):
        self._objective, self._config, self._log, self._fetch_batch_and_signals = objective, config, log, hear
        self._checked: set[int] = set()
        self._low: set[str] = set()
        self._warned: set[str] = set()

    def on_log(self, record: Mapping[str, Any], rows: np.ndarray, steps: int, now: TrainingProgress) -> None:
        """Look at a window of `steps` steps: its record in the log, the rows of its last step, and where that was."""
        if self._config.diagnostics == "off":
            return
        end = record["step"]
        # from a phase's second step on: at the first one, a weight that rises from 0 is still 0
        is_mixed = len(self._objective.rows) > 1
        if is_mixed and now.phase not in self._checked and now.phase_epoch == 0 and now.fraction > 0:
            self._checked.add(now.phase)
            self._first_steps(record, rows[:_FIRST_ROWS], now)
        if end <= steps or end // _STEPS_BETWEEN > (end - steps) // _STEPS_BETWEEN:
            layer, norms = self._norms(rows[:_ROWS], now)
            self._log.write("gradients", {"step": end, "layer": layer, "terms": norms})
        self._watch_features(end, record["diagnostics"])

    def _first_steps(self, record: Mapping[str, Any], rows: np.ndarray, now: TrainingProgress) -> None:
        """Print each term's share of the gradient; warn of a term without any and of two that are far apart.

        Shares of the loss would mislead: a term may be small and steep, or large and flat.
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
        """Compute the terms' gradient norms on these rows at the present weights; see `gradient_norms`."""
        with seeded(self._config.seed), torch.enable_grad():
            batch, signals, perturbed = self._fetch_batch_and_signals(rows, now)
            labelled = max(1.0, float(batch.labelled.sum()))
            terms = self._objective.term_values(batch, signals, now, float(len(rows)), labelled, perturbed)
            return gradient_norms(self._objective, terms, now.phase)

    def _watch_features(self, step: int, values: Mapping[str, float]) -> None:
        """Warn once of each term whose features say nothing of the rows, in two windows running."""
        low = {n for n, value in values.items() if (bound := _bound(n, step)) is not None and value < bound}
        for name in (low & self._low) - self._warned:
            term, _, key = name.partition(".")
            say(f"warning: {name} is {values[name]:.1e}: {_MEANING[key].format(term=term)}")
            self._warned.add(name)
        self._low = low

    def _temperature(self, term: Term) -> str:
        """What a term's temperature does to its gradient; nothing where outputs are compared as numbers."""
        if isinstance(term, ScheduledTerm):
            return self._temperature(term.term)
        is_regression = self._objective.student.config.num_labels == 1
        if not isinstance(term, LogitDistillation) or term.divergence in ("squared", "hard") or is_regression:
            return ""
        return f", τ = {term.temperature:g}, times τ² = {term.temperature**2:g}"
