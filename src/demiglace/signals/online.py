"""Sources of the teacher's signals: the protocol, and the teacher that is run on every batch."""

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import PreTrainedModel

from demiglace.data.batching import Batch, collate
from demiglace.data.tokenize import TokenizedSplit
from demiglace.models.precision import autocast
from demiglace.signals.capture import capture
from demiglace.signals.request import SignalRequest, Signals


class SignalSource(Protocol):
    """Anything that returns the teacher's signals for a batch."""

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """Return the teacher's signals for the batch, without gradients, at least those that this phase needs."""


class OnlineTeacher:
    """The teacher model, in eval mode and without gradients."""

    def __init__(self, model: PreTrainedModel, requests: SignalRequest | Sequence[SignalRequest], precision: str):
        """Freeze the model. requests: one for each phase of the method, or a single one for a single phase."""
        self._model = model.eval().requires_grad_(False)
        self._requests = [requests] if isinstance(requests, SignalRequest) else list(requests)
        self._precision = precision

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """Run the teacher on the batch, unless the phase needs none of its signals."""
        request = self._requests[phase]
        if request.is_empty:
            return Signals()
        # no_grad, not inference_mode: inference tensors could not enter the student's graph
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            return capture(self._model, batch, request)


class RetokenizedSource:
    """A source that reads the rows of a batch with the teacher's tokenizer, which is not the student's."""

    def __init__(self, source: SignalSource, rows: TokenizedSplit):
        """Wrap a source. rows: those that the batches name, in the teacher's tokens."""
        self._source, self._rows = source, rows

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """Return the source's signals for the same rows."""
        return self._source.fetch(collate(self._rows, batch.rows, batch.input_ids.device), phase)
