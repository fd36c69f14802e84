"""The generator of MATE-KD and its adversarial training (arXiv 2105.05912, algorithm 1).

All its random numbers are a pure function of (seed, epoch, row), so the perturbed text of a row depends neither on its
batch nor on its process. Its weights and optimizer state are saved in checkpoints, so a resumed run gives the same
result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.losses.divergences import forward_kl, squared_error
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.labels import task_of_config
from demiglace.models.masked_lm import SelectedPositionLM
from demiglace.models.precision import autocast
from demiglace.signals.capture import capture
from demiglace.signals.request import SignalRequest
from demiglace.training.checkpoint import prefixed, unprefixed
from demiglace.training.objective import PerturbedBatch
from demiglace.training.optimizer import optimizer_tensors, restore_optimizer

_MASK, _NOISE = 1, 2  # purposes of the random numbers of a row


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of teacher and student."""

    mask: int | None  # mask token of the generator, None if it is causal
    special: tuple[int, ...]  # special tokens of the teacher
    size: int  # token ids are 0 to size − 1

    @property
    def protected(self) -> list[int]:
        """Return the tokens that are neither masked nor generated: the special tokens and the mask token."""
        return [i for i in {*self.special, self.mask} if i is not None and i < self.size]


class AdversarialGenerator:
    """A generator that replaces tokens of a row, trained to make student and teacher differ."""

    def __init__(
        self,
        options: AdversarialMasking,
        generator: SelectedPositionLM,
        teacher: PreTrainedModel,
        request: SignalRequest,
        vocabulary: Vocabulary,
        precision: str,
    ):
        """Freeze the teacher and create the optimizer. request: the teacher's signals for the perturbed text."""
        self.options, self._request, self._vocabulary, self._precision = options, request, vocabulary, precision
        self._task = task_of_config(teacher.config)
        self._teacher = teacher.eval().requires_grad_(False)
        # no dropout: the perturbed text must depend only on (seed, epoch, row)
        self._generator = generator.eval().requires_grad_(options.train_generator)
        self._parameters = [p for p in generator.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=options.generator_lr) if self._parameters else None
        self.divergence: float | None = None

    def perturb(self, batch: Batch, now: TrainingProgress) -> PerturbedBatch:
        """Return the batch with some tokens replaced, and the teacher's signals for it."""
        selected, uniforms = self._sample_mask(batch, now)
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            ids = batch.input_ids.clone()
            if selected.any():
                ids[selected] = _sample_tokens(self._logits(batch, selected).float(), uniforms)
            perturbed = replace(batch, input_ids=ids)
            return PerturbedBatch(perturbed, capture(self._teacher, perturbed, self._request))

    def predictions(self, batch: Batch, now: TrainingProgress) -> tuple[Tensor, Tensor]:
        """Return the M tokens that would be replaced, and the generator's most probable token for each, [M] both."""
        selected, _ = self._sample_mask(batch, now)
        with torch.no_grad(), autocast(self._precision, batch.input_ids.device):
            return batch.input_ids[selected], self._logits(batch, selected).argmax(-1)

    def train_step(
        self,
        student: PreTrainedModel,
        batches: Sequence[Batch],
        rows: float,
        now: TrainingProgress,
        reduce: Callable[[Tensor], Tensor],
    ) -> None:
        """Take one optimizer step that increases the divergence of teacher and student.

        rows: of the step over all processes; reduce: sums a tensor over processes. Student and teacher get no gradient.
        """
        assert self._optimizer is not None
        was_training = student.training
        student.eval()
        total = torch.zeros((), device=batches[0].input_ids.device)
        for batch in batches:
            selected, _ = self._sample_mask(batch, now)
            if selected.any():
                divergence = self._divergence(student, batch, selected, now) / rows
                (-divergence).backward(inputs=self._parameters)
                total += divergence.detach()
        student.train(was_training)
        for p in self._parameters:
            p.grad = reduce(torch.zeros_like(p) if p.grad is None else p.grad)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.divergence = float(reduce(total))

    def _divergence(self, student: PreTrainedModel, batch: Batch, selected: Tensor, now: TrainingProgress) -> Tensor:
        """Return Σ over rows of the task's divergence, by default KL(T(x') ‖ S(x')), or ‖T(x') − S(x')‖²/C.

        It has a gradient to the generator.
        """
        with autocast(self._precision, batch.input_ids.device):
            one_hot = self._straight_through(self._logits(batch, selected).float(), self._noise(batch, selected, now))
            student_logits = _logits_of(student, batch, selected, one_hot)
            teacher_logits = _logits_of(self._teacher, batch, selected, one_hot)
        if self.options.objective == "mse":
            distance = squared_error(student_logits, teacher_logits)
        else:
            distance = self._task.divergence(student_logits, teacher_logits, lambda s, t: forward_kl(s, t, 1.0))
        return (distance * batch.units[1]).sum()

    def _logits(self, batch: Batch, selected: Tensor) -> Tensor:
        """Return the generator's logits at the selected positions, [M, V]; special tokens get −∞.

        The input has all selected positions masked. A causal generator gets the original text.
        """
        ids = batch.input_ids
        if not self._generator.causal:
            assert self._vocabulary.mask is not None
            ids = ids.masked_fill(selected, self._vocabulary.mask)
        logits: Tensor = self._generator(batch.inputs | {"input_ids": ids}, selected)[:, : self._vocabulary.size]
        protected = torch.tensor(self._vocabulary.protected, device=logits.device)
        return logits.index_fill(-1, protected, -torch.inf)

    def _straight_through(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Return one-hot rows [M, V] with the gradient of a Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144)."""
        soft = ((logits + noise) / self.options.gumbel_temperature).softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard + soft - soft.detach()

    def _sample_mask(self, batch: Batch, now: TrainingProgress) -> tuple[Tensor, Tensor]:
        """Return which tokens are replaced, bool [B, L], and a uniform number for sampling each replacement, [M].

        A causal generator cannot predict the first token of a row, so that one is never replaced.
        """
        ids = batch.input_ids.cpu().numpy()
        real = batch.attention_mask.cpu().numpy().astype(bool)
        selected, uniforms = np.zeros(ids.shape, bool), np.zeros(ids.shape, np.float32)
        for i, row in enumerate(batch.rows.tolist()):
            # for real tokens in order, so that padding on either side has no effect
            numbers = _random(now, row, _MASK).random((int(real[i].sum()), 2), np.float32)
            selected[i, real[i]], uniforms[i, real[i]] = numbers[:, 0] < self.options.mask_share, numbers[:, 1]
        selected &= ~np.isin(ids, self._vocabulary.protected)
        if self._generator.causal:
            selected[:, 0] = False
            selected[:, 1:] &= real[:, :-1]
        device = batch.input_ids.device
        return torch.from_numpy(selected).to(device), torch.from_numpy(uniforms[selected]).to(device)

    def _noise(self, batch: Batch, selected: Tensor, now: TrainingProgress) -> Tensor:
        """Return Gumbel noise [M, V]."""
        parts = []
        for row, count in zip(batch.rows.tolist(), selected.sum(1).tolist(), strict=True):
            generator = torch.Generator().manual_seed(int(_random(now, row, _NOISE).integers(2**62)))
            parts.append(torch.rand(count, self._vocabulary.size, generator=generator))
        uniform = torch.cat(parts).clamp_(1e-20, 1 - 1e-7)
        return (-(-uniform.log()).log()).to(batch.input_ids.device)

    @property
    def device(self) -> torch.device:
        """Return the device of the generator."""
        return next(self._generator.parameters()).device

    def to(self, device: torch.device) -> None:
        """Move generator and teacher to a device."""
        self._generator.to(device)
        self._teacher.to(device)

    def tensors(self) -> dict[str, Tensor]:
        """Return the generator's weights, optimizer state and last divergence for a checkpoint; {} if not trained."""
        if self._optimizer is None:
            return {}
        tensors = prefixed("generator.", self._generator.state_dict())
        tensors |= prefixed("optimizer.", optimizer_tensors(self._optimizer))
        if self.divergence is not None:
            tensors["divergence"] = torch.tensor(self.divergence, dtype=torch.float64)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors of a checkpoint. Raises `RunError` if they belong to another generator."""
        if self._optimizer is not None:
            self._generator.load_state_dict(unprefixed("generator.", tensors))
            restore_optimizer(self._optimizer, unprefixed("optimizer.", tensors))
            self.divergence = float(tensors["divergence"]) if "divergence" in tensors else None

    def diagnostics(self) -> dict[str, float]:
        """Return the mean divergence of a row in the generator's last step."""
        return {} if self.divergence is None else {"generator_divergence": self.divergence}


def _random(now: TrainingProgress, row: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((now.seed, now.epoch, row, purpose))


def _sample_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Sample a token for each of M rows of logits by inversion, with one uniform number each; return [M]."""
    cumulative = logits.softmax(-1).cumsum(-1)
    ids = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True).squeeze(-1)
    return ids.clamp_max(logits.shape[-1] - 1)


def _logits_of(model: PreTrainedModel, batch: Batch, selected: Tensor, one_hot: Tensor) -> Tensor:
    """Return a model's logits by unit for the batch with `one_hot` [M, V] at the selected positions, in float32.

    The output of the embedding layer is replaced there. Given `inputs_embeds` instead, a decoder could not find the
    last token of a padded row.
    """
    table: Any = model.get_input_embeddings()

    def mix(_table: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
        mixed = embedded.detach().clone()
        mixed[selected] = (one_hot @ table.weight[: one_hot.shape[-1]].detach().float()).to(embedded.dtype)
        return mixed

    handle = table.register_forward_hook(mix)
    try:
        logits = batch.unit_logits(model(**batch.inputs).logits)
    finally:
        handle.remove()
    return logits.float()
