"""The student and its loss as one module: what is optimised, and what a distributed run wraps."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batches import Batch
from demiglace.methods.base import Method, Problem, Progress, Requests, TermLoss
from demiglace.models.precision import autocast
from demiglace.models.shape import ModelShape
from demiglace.signals.capture import capture
from demiglace.signals.request import Signals


class Objective(nn.Module):
    """Σ over terms of weight · (sum over rows of the term's loss) / (the step's count of rows it applies to)."""

    def __init__(self, student: PreTrainedModel, method: Method, teacher: ModelShape, problem: Problem, precision: str):
        super().__init__()
        shape = ModelShape.of(student)
        self.student = student
        self.requests: Requests = method.requests(shape, teacher)
        self.terms = nn.ModuleList(w.term.build(shape, teacher, problem) for w in method.terms)
        self.names = unique_names(method)
        self._weights = [w.weight for w in method.terms]
        self._needs_labels = [w.term.needs_labels for w in method.terms]
        self._precision = precision

    def forward(
        self, batch: Batch, teacher: Signals, progress: Progress, rows: float, labelled: float
    ) -> tuple[Tensor, Tensor]:
        """The batch's part of the step's loss, and of each term (unweighted, detached, [terms]).

        `rows` and `labelled` count the whole step, over all its forward passes and processes, so that parts add up.
        """
        device = batch.input_ids.device
        with autocast(self._precision, device):
            student = capture(self.student, batch, self.requests.student)
        with torch.autocast(device.type, enabled=False):
            parts = [
                self._part(term, needs_labels, student, teacher, batch, progress) / (labelled if needs_labels else rows)
                for term, needs_labels in zip(self.terms, self._needs_labels, strict=True)
            ]
        values = torch.stack(parts)
        return (values * values.new_tensor(self._weights)).sum(), values.detach()

    @staticmethod
    def _part(
        term: nn.Module,
        needs_labels: bool,
        student: Signals,
        teacher: Signals,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        weights = batch.weights * batch.labelled if needs_labels else batch.weights
        return (term(student, teacher, batch.labels, progress) * weights).sum()

    def pairs(self, progress: Progress) -> dict[str, list[list[int]]]:
        """The layer pairs of each term that matches layers, for the log."""
        found = {name: _term(t).pairs(progress) for name, t in zip(self.names, self.terms, strict=True)}
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
