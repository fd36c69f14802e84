"""Sources of the teacher's signals: the protocol, and the teacher asked anew for every batch."""

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.models.precision import autocast
from demiglace.signals.capture import capture
from demiglace.signals.request import SignalRequest, Signals


class SignalSource(Protocol):
    """Anything that tells what the teacher says of a batch."""

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """The teacher's signals for the rows of the batch, without gradients, at least those of this phase."""


class OnlineTeacher:
    """The teacher itself, in eval mode and without gradients."""

    def __init__(self, model: PreTrainedModel, requests: SignalRequest | Sequence[SignalRequest], precision: str):
        """requests: one for each phase of the method, or the one of its only phase."""
        self._model = model.eval().requires_grad_(False)
        self._requests = [requests] if isinstance(requests, SignalRequest) else list(requests)
        self._precision = precision

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """Run the teacher on the batch; not at all where the phase asks it nothing."""
        request = self._requests[phase]
        if request.empty:
            return Signals()
        # no_grad, not inference_mode: inference tensors could not enter the student's graph
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            return capture(self._model, batch, request)
