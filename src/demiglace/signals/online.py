"""Sources of the teacher's signals: the protocol, and the teacher asked anew for every batch."""

from typing import Protocol

import torch
from transformers import PreTrainedModel

from demiglace.data.batches import Batch
from demiglace.models.precision import autocast
from demiglace.signals.capture import capture
from demiglace.signals.request import SignalRequest, Signals


class SignalSource(Protocol):
    """Anything that tells what the teacher says of a batch."""

    def fetch(self, batch: Batch) -> Signals:
        """The teacher's signals for the rows of the batch, without gradients."""


class OnlineTeacher:
    """The teacher itself, in eval mode and without gradients."""

    def __init__(self, model: PreTrainedModel, request: SignalRequest, precision: str):
        self._model = model.eval().requires_grad_(False)
        self._request, self._precision = request, precision

    def fetch(self, batch: Batch) -> Signals:
        """Run the teacher on the batch."""
        # no_grad, not inference_mode: inference tensors could not enter the student's graph
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            return capture(self._model, batch, self._request)
