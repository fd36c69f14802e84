"""The student and its loss as one module, which is optimised and which a distributed run wraps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.errors import ConfigError
from demiglace.methods.base import Method, SignalRequests, TermLoss, TrainingProgress, WeightedTerm
from demiglace.methods.terms.token_level import is_token_level, token_terms
from demiglace.models.language_model import HeadInput
from demiglace.models.precision import autocast
from demiglace.models.shape import ModelShape
from demiglace.signals.capture import capture
from demiglace.signals.request import Signals
from demiglace.tasks.base import Task


@dataclass(frozen=True)
class PerturbedBatch:
    """Perturbed text of the same rows, and the teacher's signals for it."""

    batch: Batch
    teacher: Signals


class Objective(nn.Module):
    """Σ over terms of weight · (sum over rows of the term's loss) / (the step's count of rows it applies to).

    Terms of other phases than the current one are skipped, and so are the signals that only they need. If the task has
    labels of words, terms on logits alone are sums over words, divided by the step's count of words. If the task's
    logits are per token, terms on logits alone are computed together, in chunks of tokens (`terms.token_level`), and a
    row's loss is the mean over its tokens.
    """

    def __init__(self, student: PreTrainedModel, method: Method, teacher: ModelShape, task: Task, precision: str):
        super().__init__()
        shape = ModelShape.of(student)
        self.student = student
        self.requests: SignalRequests = method.requests(shape, teacher)
        self._phases = [method.requests(shape, teacher, phase).student for phase in range(len(method.phases))]
        self.phases = method.phases
        self._active = [method.active(phase) for phase in range(len(method.phases))]
        self._perturbed = method.perturbed_requests(shape, teacher).student
        self.terms = nn.ModuleList(w.term.build(shape, teacher, task) for w in method.terms)
        self.names = term_names(method)
        for name, t, w in zip(self.names, self.terms, method.terms, strict=True):
            if w.input == "perturbed" and _term(t).needs_fit:
                raise ConfigError(
                    f"the term {name} is on perturbed text and starts from training rows (a fitted map or centered "
                    "states), which are not perturbed; take input: text, or start: random and centered: false."
                )
        self._rows = method.terms
        self.precision = precision
        of_logits = [is_token_level(w.term.requests(shape, teacher)) for w in method.terms]
        self._of_tokens = [task.unit == "token" and alone for alone in of_logits]
        self._of_units = [task.unit == "row" or alone for alone in of_logits]

    def forward(
        self,
        batch: Batch,
        teacher: Signals,
        progress: TrainingProgress,
        rows: float,
        labelled: float,
        perturbed: PerturbedBatch | None = None,
        units: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the batch's part of the step's loss, and each term: unweighted, detached [terms], 0 out of its phase.

        The counts are of the full step, over all its forward passes and processes, so that the parts add up. rows: all
        rows; units: rows, or words that have a token (None: as many as rows); labelled: units that have a label.
        """
        signals = self._forward_signals(batch, teacher, progress, perturbed)
        values = self._unit_terms(signals, batch, progress, (rows, rows if units is None else units, labelled))
        weights = [w.weight for w in self._rows]
        loss, values = (values * values.new_tensor(weights)).sum(), values.detach()
        together = self._token_terms_of(progress.phase)
        if together:
            of_tokens, values[together] = self._token_terms(together, weights, signals, batch, progress, rows)
            loss = loss + of_tokens
        return loss, values

    def term_values(
        self,
        batch: Batch,
        teacher: Signals,
        progress: TrainingProgress,
        rows: float,
        labelled: float,
        perturbed: PerturbedBatch | None = None,
        units: float | None = None,
    ) -> Tensor:
        """Return the unweighted terms [terms], each with its own gradient, for diagnostics."""
        signals = self._forward_signals(batch, teacher, progress, perturbed)
        values = list(self._unit_terms(signals, batch, progress, (rows, rows if units is None else units, labelled)))
        for i in self._token_terms_of(progress.phase):
            values[i], _ = self._token_terms([i], [1.0] * len(values), signals, batch, progress, rows)
        return torch.stack(values)

    @property
    def needs_fit(self) -> bool:
        """Return whether some term's weights must be fitted to training rows before the first step."""
        return any(_term(t).needs_fit for t in self.terms)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Batch, Signals]], progress: TrainingProgress) -> None:
        """Fit the weights of terms of `progress.phase` that need it to the states of these rows.

        batches: rows, and the teacher's signals for them.
        """
        terms = zip(map(_term, self.terms), self._rows, self._active[progress.phase], strict=True)
        fitted = [t for t, row, on in terms if on and t.needs_fit and (row.phase or 0) == progress.phase]
        if not fitted:
            return
        self.eval()
        for batch, teacher in batches:
            with autocast(self.precision, batch.input_ids.device):
                student = capture(self.student, batch, self._phases[progress.phase])
            for term in fitted:
                term.observe(student, teacher, progress)
        for term in fitted:
            term.fit()

    def _forward_signals(
        self, batch: Batch, teacher: Signals, progress: TrainingProgress, perturbed: PerturbedBatch | None
    ) -> dict[str, tuple[Signals, Signals]]:
        """Return the signals of student and teacher for the text, and for the perturbed text."""
        with autocast(self.precision, batch.input_ids.device):
            signals = {"text": (capture(self.student, batch, self._phases[progress.phase]), teacher)}
            if perturbed is not None:
                signals["perturbed"] = capture(self.student, perturbed.batch, self._perturbed), perturbed.teacher
        return signals

    def _unit_terms(
        self,
        signals: Mapping[str, tuple[Signals, Signals]],
        batch: Batch,
        progress: TrainingProgress,
        counts: tuple[float, float, float],
    ) -> Tensor:
        """Return the unweighted terms [terms] with gradients; 0 for those of another phase and those on tokens."""
        on = [a and not t for a, t in zip(self._active[progress.phase], self._of_tokens, strict=True)]
        rows, units, labelled = counts
        with torch.autocast(batch.input_ids.device.type, enabled=False):
            parts = [
                self._weighted_term_sum(i, *signals[w.input], batch, progress)
                / (labelled if w.term.needs_labels else units if self._of_units[i] else rows)
                if on[i]
                else batch.weights.new_zeros(())
                for i, w in enumerate(self._rows)
            ]
        return torch.stack(parts)

    def _token_terms_of(self, phase: int) -> list[int]:
        return [i for i, on in enumerate(self._active[phase]) if on and self._of_tokens[i]]

    def _token_terms(
        self,
        which: list[int],
        weights: list[float],
        signals: Mapping[str, tuple[Signals, Signals]],
        batch: Batch,
        progress: TrainingProgress,
        rows: float,
    ) -> tuple[Tensor, Tensor]:
        """Return Σ weight · term over these terms, with its gradient, and the terms themselves."""
        student, teacher = (s.head for s in signals["text"])
        assert isinstance(student, HeadInput)
        share = batch.weights / (rows * batch.labels.shape[1])
        with autocast(self.precision, batch.input_ids.device):
            return token_terms(
                [_term(self.terms[i]) for i in which],
                [weights[i] for i in which],
                student.at(batch.positions),
                None if teacher is None else teacher.at(batch.positions),
                batch.labels.flatten(),
                share[:, None].expand(batch.labels.shape).flatten(),
                progress,
            )

    def _weighted_term_sum(
        self, i: int, student: Signals, teacher: Signals, batch: Batch, progress: TrainingProgress
    ) -> Tensor:
        labels, weights, labelled = batch.units if self._of_units[i] else (batch.labels, batch.weights, batch.labelled)
        values = self.terms[i](student, teacher, labels, progress)
        return (values * (weights * labelled if self._rows[i].term.needs_labels else weights)).sum()

    @property
    def rows(self) -> tuple[WeightedTerm, ...]:
        """Return the method's terms with their weights."""
        return self._rows

    def perturbs(self, phase: int) -> bool:
        """Return whether a term of the phase is on perturbed text."""
        return any(on and w.input == "perturbed" for on, w in zip(self._active[phase], self._rows, strict=True))

    def active(self, phase: int) -> tuple[bool, ...]:
        """Return which of the terms count in a phase."""
        return self._active[phase]

    def layer_pairs(self, progress: TrainingProgress) -> dict[str, list[list[int]]]:
        """Return the layer pairs of each term that matches layers in this phase, for the log."""
        terms = zip(self.names, self.terms, self._active[progress.phase], strict=True)
        found = {name: _term(t).layer_pairs(progress) for name, t, active in terms if active}
        return {name: [list(p) for p in pairs] for name, pairs in found.items() if pairs}

    def diagnostics(self, phase: int = 0) -> Mapping[str, Tensor]:
        """Return the diagnostics of the phase's terms from their last forward pass."""
        return {
            f"{name}.{key}": value
            for name, t, on in zip(self.names, self.terms, self._active[phase], strict=True)
            if on
            for key, value in _term(t).diagnostics.items()
        }


def term_names(method: Method) -> list[str]:
    """Return the terms' names; the second `layers` is `layers2`."""
    names: list[str] = []
    for w in method.terms:
        count = sum(n.rstrip("0123456789") == w.term.name for n in names)
        names.append(w.term.name + (str(count + 1) if count else ""))
    return names


def _term(module: nn.Module) -> TermLoss:
    assert isinstance(module, TermLoss)
    return module
