"""The generator of MATE-KD and its training against the student (arXiv 2105.05912, algorithm 1).

All it draws is a pure function of (seed, epoch, row): neither the batch that a row is in nor the process that has it
changes its perturbed text. Its weights and moments are in the checkpoint, so a resumed run is the same run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.methods.terms.logits import DIVERGENCES
from demiglace.models.masked_lm import SelectedPositionLM
from demiglace.models.precision import autocast
from demiglace.signals.capture import capture
from demiglace.signals.request import SignalRequest
from demiglace.training.checkpoint import prefixed, unprefixed
from demiglace.training.objective import PerturbedBatch
from demiglace.training.optimizer import optimizer_tensors, restore_optimizer

_PLACES, _NOISE = 1, 2  # what a row's random numbers are for


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that teacher and student read, from 0 to below `size`.

    mask: the generator's token that masks, none for a causal one; special: the teacher's tokens that are no words.
    """

    mask: int | None
    special: tuple[int, ...]
    size: int

    @property
    def fixed(self) -> list[int]:
        """Tokens that are neither masked nor filled in: special ones, and the mask, be it a word of the teacher's."""
        return [i for i in {*self.special, self.mask} if i is not None and i < self.size]


class Adversary:
    """Refills tokens of the student's rows, and learns which ones part it from the teacher."""

    def __init__(
        self,
        options: AdversarialMasking,
        generator: SelectedPositionLM,
        teacher: PreTrainedModel,
        request: SignalRequest,
        vocabulary: Vocabulary,
        precision: str,
    ):
        """request: what the teacher is asked of the perturbed text."""
        self.options, self._request, self._vocabulary, self._precision = options, request, vocabulary, precision
        self._teacher = teacher.eval().requires_grad_(False)
        # no dropout: what is drawn must not depend on anything but (seed, epoch, row)
        self._generator = generator.eval().requires_grad_(options.train_generator)
        self._parameters = [p for p in generator.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=options.generator_lr) if self._parameters else None
        self.divergence: float | None = None

    def perturb(self, batch: Batch, now: TrainingProgress) -> PerturbedBatch:
        """The batch with some of its tokens refilled, and what the teacher says of it."""
        places, draws = self._places(batch, now)
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            ids = batch.input_ids.clone()
            if places.any():
                ids[places] = _sample_tokens(self._logits(batch, places).float(), draws)
            other = replace(batch, input_ids=ids)
            return PerturbedBatch(other, capture(self._teacher, other, self._request))

    def predicted(self, batch: Batch, now: TrainingProgress) -> tuple[Tensor, Tensor]:
        """Return the tokens that would be refilled, [M], and the generator's most probable token for each, [M]."""
        places, _ = self._places(batch, now)
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            return batch.input_ids[places], self._logits(batch, places).argmax(-1)

    def learn(
        self,
        student: PreTrainedModel,
        batches: Sequence[Batch],
        rows: float,
        now: TrainingProgress,
        reduce: Callable[[Tensor], Tensor],
    ) -> None:
        """One step that makes teacher and student differ more. rows: of all processes; reduce: sums over them.

        Neither the student nor the teacher gets a gradient.
        """
        assert self._optimizer is not None
        was_training = student.training
        student.eval()
        total = torch.zeros((), device=batches[0].input_ids.device)
        for batch in batches:
            places, _ = self._places(batch, now)
            if places.any():
                part = self._divergence(student, batch, places, now) / rows
                (-part).backward(inputs=self._parameters)
                total += part.detach()
        student.train(was_training)
        for p in self._parameters:
            p.grad = reduce(torch.zeros_like(p) if p.grad is None else p.grad)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.divergence = float(reduce(total))

    def _divergence(self, student: PreTrainedModel, batch: Batch, places: Tensor, now: TrainingProgress) -> Tensor:
        """Return Σ over rows of KL(T(x') ‖ S(x')) or ‖T(x') − S(x')‖²/C, with a gradient to the generator."""
        with autocast(self._precision, batch.input_ids.device):
            chosen = self._straight_through(self._logits(batch, places).float(), self._noise(batch, places, now))
            own = _logits_of(student, batch, places, chosen)
            other = _logits_of(self._teacher, batch, places, chosen)
        is_squared = self.options.objective == "mse" or own.shape[-1] == 1
        divergence = DIVERGENCES["squared" if is_squared else "forward-kl"]
        return (divergence(own, other, 1.0, 0.0) * batch.weights).sum()

    def _logits(self, batch: Batch, places: Tensor) -> Tensor:
        """The generator's logits at the places; special tokens are never chosen.

        It sees all of them masked, or, where it is causal, to the left of each the text as it was.
        """
        ids = batch.input_ids
        if not self._generator.causal:
            assert self._vocabulary.mask is not None
            ids = ids.masked_fill(places, self._vocabulary.mask)
        logits: Tensor = self._generator(batch.inputs | {"input_ids": ids}, places)[:, : self._vocabulary.size]
        barred = torch.tensor(self._vocabulary.fixed, device=logits.device)
        return logits.index_fill(-1, barred, -torch.inf)

    def _straight_through(self, logits: Tensor, noise: Tensor) -> Tensor:
        """One-hot rows [M, V] forwards, Gumbel-softmax backwards (Jang et al. 2017, arXiv 1611.01144)."""
        soft = ((logits + noise) / self.options.gumbel_temperature).softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard + soft - soft.detach()

    def _places(self, batch: Batch, now: TrainingProgress) -> tuple[Tensor, Tensor]:
        """Which tokens are refilled, bool [B, L]; and a number from 0 to 1 to draw each one's filling by, [M].

        A causal generator has nothing to predict a row's first token from: it stays.
        """
        ids = batch.input_ids.cpu().numpy()
        real = batch.attention_mask.cpu().numpy().astype(bool)
        places, draws = np.zeros(ids.shape, bool), np.zeros(ids.shape, np.float32)
        for i, row in enumerate(batch.rows.tolist()):
            # drawn for real tokens in order, so that padding, on whichever side, does not matter
            numbers = _random(now, row, _PLACES).random((int(real[i].sum()), 2), np.float32)
            places[i, real[i]], draws[i, real[i]] = numbers[:, 0] < self.options.mask_share, numbers[:, 1]
        places &= ~np.isin(ids, self._vocabulary.fixed)
        if self._generator.causal:
            places[:, 0] = False
            places[:, 1:] &= real[:, :-1]
        device = batch.input_ids.device
        return torch.from_numpy(places).to(device), torch.from_numpy(draws[places]).to(device)

    def _noise(self, batch: Batch, places: Tensor, now: TrainingProgress) -> Tensor:
        """Gumbel noise [M, V]."""
        parts = []
        for row, count in zip(batch.rows.tolist(), places.sum(1).tolist(), strict=True):
            own = torch.Generator().manual_seed(int(_random(now, row, _NOISE).integers(2**62)))
            parts.append(torch.rand(count, self._vocabulary.size, generator=own))
        uniform = torch.cat(parts).clamp_(1e-20, 1 - 1e-7)
        return (-(-uniform.log()).log()).to(batch.input_ids.device)

    @property
    def device(self) -> torch.device:
        """The device of the generator."""
        return next(self._generator.parameters()).device

    def to(self, device: torch.device) -> None:
        """Put generator and teacher there."""
        self._generator.to(device)
        self._teacher.to(device)

    def tensors(self) -> dict[str, Tensor]:
        """The generator's weights, its optimiser's moments and its last finding, for a checkpoint; else nothing."""
        if self._optimizer is None:
            return {}
        weights = prefixed("generator.", self._generator.state_dict())
        found = {} if self.divergence is None else {"divergence": torch.tensor(self.divergence, dtype=torch.float64)}
        return weights | prefixed("optimiser.", optimizer_tensors(self._optimizer)) | found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put them back. Raises `RunError` where they belong to another generator."""
        if self._optimizer is not None:
            self._generator.load_state_dict(unprefixed("generator.", tensors))
            restore_optimizer(self._optimizer, unprefixed("optimiser.", tensors))
            self.divergence = float(tensors["divergence"]) if "divergence" in tensors else None

    def diagnostics(self) -> dict[str, float]:
        """The divergence that the generator's last step found."""
        return {} if self.divergence is None else {"generator_divergence": self.divergence}


def _random(now: TrainingProgress, row: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((now.seed, now.epoch, row, purpose))


def _sample_tokens(logits: Tensor, draws: Tensor) -> Tensor:
    """A token for each row [M] with its probability, as hard Gumbel-softmax draws them, from one number each."""
    cumulative = logits.softmax(-1).cumsum(-1)
    found = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True).squeeze(-1)
    return found.clamp_max(logits.shape[-1] - 1)


def _logits_of(model: PreTrainedModel, batch: Batch, places: Tensor, chosen: Tensor) -> Tensor:
    """What a model says of the batch with `chosen` [M, V], each a mix of tokens, at the places; float32.

    The mixes are put in where tokens are looked up: from `inputs_embeds` alone a decoder would not know which token of
    a padded row is the last.
    """
    table: Any = model.get_input_embeddings()

    def mix(_table: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
        mixed = embedded.detach().clone()
        mixed[places] = (chosen @ table.weight[: chosen.shape[-1]].detach().float()).to(embedded.dtype)
        return mixed

    handle = table.register_forward_hook(mix)
    try:
        logits: Tensor = model(**batch.inputs).logits
    finally:
        handle.remove()
    return logits.float()
