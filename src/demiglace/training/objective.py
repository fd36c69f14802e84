"""The student and its loss as one module: what is optimised, and what a distributed run wraps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batches import Batch
from demiglace.methods.base import Method, Problem, Progress, Requests, TermLoss, Weighted
from demiglace.models.precision import autocast
from demiglace.models.shape import ModelShape
from demiglace.signals.capture import capture
from demiglace.signals.request import Signals


@dataclass(frozen=True)
class Perturbed:
    """Other text of the same rows, and what the teacher says of it."""

    batch: Batch
    teacher: Signals


class Objective(nn.Module):
    """Σ over terms of weight · (sum over rows of the term's loss) / (the step's count of rows it applies to).

    Terms of another phase than the present one are left out, and so are the signals that only they need.
    """

    def __init__(self, student: PreTrainedModel, method: Method, teacher: ModelShape, problem: Problem, precision: str):
        super().__init__()
        shape = ModelShape.of(student)
        self.student = student
        self.requests: Requests = method.requests(shape, teacher)
        self._phases = [method.requests(shape, teacher, phase).student for phase in range(len(method.phases))]
        self.phases = method.phases
        self._active = [method.active(phase) for phase in range(len(method.phases))]
        self._perturbed = method.perturbed_requests(shape, teacher).student
        self.terms = nn.ModuleList(w.term.build(shape, teacher, problem) for w in method.terms)
        self.names = unique_names(method)
        self._rows = method.terms
        self._precision = precision

    def forward(
        self,
        batch: Batch,
        teacher: Signals,
        progress: Progress,
        rows: float,
        labelled: float,
        perturbed: Perturbed | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The batch's part of the step's loss, and of each term (unweighted, detached, [terms]; 0 out of its phase).

        `rows` and `labelled` count the whole step, over all its forward passes and processes, so that parts add up.
        """
        values = self.term_values(batch, teacher, progress, rows, labelled, perturbed)
        weights = values.new_tensor([w.weight for w in self._rows])
        return (values * weights).sum(), values.detach()

    def term_values(
        self,
        batch: Batch,
        teacher: Signals,
        progress: Progress,
        rows: float,
        labelled: float,
        perturbed: Perturbed | None = None,
    ) -> Tensor:
        """The unweighted terms [terms], with gradients."""
        device, active = batch.input_ids.device, self._active[progress.phase]
        with autocast(self._precision, device):
            heard = {"text": (capture(self.student, batch, self._phases[progress.phase]), teacher)}
            if perturbed is not None:
                heard["perturbed"] = capture(self.student, perturbed.batch, self._perturbed), perturbed.teacher
        with torch.autocast(device.type, enabled=False):
            parts = [
                self._part(term, w, *heard[w.on], batch, progress) / (labelled if w.term.needs_labels else rows)
                if on
                else batch.weights.new_zeros(())
                for term, w, on in zip(self.terms, self._rows, active, strict=True)
            ]
        return torch.stack(parts)

    @staticmethod
    def _part(
        term: nn.Module, row: Weighted, student: Signals, teacher: Signals, batch: Batch, progress: Progress
    ) -> Tensor:
        weights = batch.weights * batch.labelled if row.term.needs_labels else batch.weights
        return (term(student, teacher, batch.labels, progress) * weights).sum()

    @property
    def rows(self) -> tuple[Weighted, ...]:
        """The method's terms with their weights."""
        return self._rows

    def perturbs(self, phase: int) -> bool:
        """Whether a term of the phase is on perturbed text."""
        return any(on and w.on == "perturbed" for on, w in zip(self._active[phase], self._rows, strict=True))

    def active(self, phase: int) -> tuple[bool, ...]:
        """Which of the terms count in a phase."""
        return self._active[phase]

    def pairs(self, progress: Progress) -> dict[str, list[list[int]]]:
        """The layer pairs of each term that matches layers in this phase, for the log."""
        terms = zip(self.names, self.terms, self._active[progress.phase], strict=True)
        found = {name: _term(t).pairs(progress) for name, t, active in terms if active}
        return {name: [list(p) for p in pairs] for name, pairs in found.items() if pairs}

    def diagnostics(self) -> Mapping[str, Tensor]:
        """What the terms' last forward passes have to say."""
        return {
            f"{name}.{key}": value
            for name, t in zip(self.names, self.terms, strict=True)
            for key, value in _term(t).diagnostics.items()
        }


def unique_names(method: Method) -> list[str]:
    """The terms' names; the second of the same kind is `layers2`."""
    names: list[str] = []
    for w in method.terms:
        count = sum(n.rstrip("0123456789") == w.term.name for n in names)
        names.append(w.term.name + (str(count + 1) if count else ""))
    return names


def _term(module: nn.Module) -> TermLoss:
    assert isinstance(module, TermLoss)
    return module
