"""The sides of `language.py`: models, batches, and the loss of each side."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle

import numpy as np
import torch
import torch.nn.functional as F
from language import Shape
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from demiglace.data.batching import Batch, collate, epoch_steps
from demiglace.data.text.blocks import Blocks, all_blocks
from demiglace.data.text.token_shards import Corpus
from demiglace.methods.base import Method, TrainingProgress, WeightedTerm
from demiglace.methods.registry import build_method
from demiglace.methods.terms.logits import LogitDistillation
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_model
from demiglace.signals.online import OnlineTeacher
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.training.objective import Objective

Loss = Callable[[Batch], Tensor]
LR, CLIP, TEMPERATURE, TASK_WEIGHT = 1e-4, 1.0, 2.0, 0.5
_START = TrainingProgress(seed=0, epoch=0, step=0)


@dataclass(frozen=True)
class Case(Shape):
    """A teacher with random weights and no dropout, a student of evenly spaced layers, and batches of random tokens."""

    @cached_property
    def blocks(self) -> Blocks:
        """Return blocks of random ids, which do not affect the time."""
        ids = np.random.default_rng(self.seed).integers(self.vocabulary, size=self.steps * self.tokens + 1)
        corpus = Corpus((ids.astype(np.uint16),), ("random",), 1, 0, 0, {}, "random")
        return all_blocks(corpus, self.block)

    def plan(self) -> list[np.ndarray]:
        return epoch_steps(self.blocks.lengths, self.rows, self.seed, 0)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of an epoch, repeatedly."""
        return (collate(self.blocks, rows) for rows in cycle(self.plan()))

    def teacher(self) -> PreTrainedModel:
        torch.manual_seed(self.seed)
        sizes = {"n_embd": self.width, "n_layer": self.layers, "n_head": max(1, self.width // 64)}
        config = GPT2Config(vocab_size=self.vocabulary, n_positions=self.block, bos_token_id=0, eos_token_id=0, **sizes)
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
        return GPT2LMHeadModel(config).eval().requires_grad_(False)

    def student(self, teacher: PreTrainedModel) -> PreTrainedModel:
        layers = range(0, self.layers, self.layers // self.student_layers)
        return truncate_model(teacher, tuple(layers)).requires_grad_(True).train()


def plain(teacher: PreTrainedModel, student: PreTrainedModel) -> Loss:
    """Return the usual loss: all logits of both models, cross-entropy and τ²·KL of PyTorch."""

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_output = teacher(input_ids=batch.input_ids).logits.flatten(0, 1)
        student_output = student(input_ids=batch.input_ids).logits.flatten(0, 1)
        task = F.cross_entropy(student_output, batch.labels.flatten())
        log_q, p = F.log_softmax(student_output / TEMPERATURE, -1), F.softmax(teacher_output / TEMPERATURE, -1)
        divergence = TEMPERATURE**2 * F.kl_div(log_q, p, reduction="batchmean")
        return TASK_WEIGHT * task + (1 - TASK_WEIGHT) * divergence

    return loss


def ours(teacher: PreTrainedModel, student: PreTrainedModel, method: Method | None = None) -> Loss:
    """Return the loss of our loop: `vanilla-kd` with an online teacher."""
    method = method or build_method("vanilla-kd", {"task_weight": TASK_WEIGHT, "temperature": TEMPERATURE})
    shapes = ModelShape.of(student), ModelShape.of(teacher)
    source = OnlineTeacher(teacher, method.requests(*shapes).teacher, "fp32")
    objective = Objective(student, method, shapes[1], LANGUAGE_MODELLING, "fp32").train()

    def loss(batch: Batch) -> Tensor:
        rows = float(len(batch.rows))
        return objective(batch, source.fetch(batch), _START, rows, rows)[0]

    return loss


def ours_kl(teacher: PreTrainedModel, student: PreTrainedModel) -> Loss:
    """Return KL at τ = 1 without a task loss, which is TRL's GKD with β = 0."""
    return ours(teacher, student, Method((WeightedTerm(1.0, LogitDistillation(1.0)),)))


def no_loss(teacher: PreTrainedModel, student: PreTrainedModel) -> Loss:
    """Return a trivial loss of both models without heads: the lower bound of every side."""

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_output = teacher.transformer(input_ids=batch.input_ids).last_hidden_state
        student_output = student.transformer(input_ids=batch.input_ids).last_hidden_state
        return (student_output.sum() - teacher_output.sum()) / student_output.numel()

    return loss


SIDES: dict[str, Callable[[PreTrainedModel, PreTrainedModel], Loss]] = {
    "plain": plain,
    "ours": ours,
    "ours, KL alone": ours_kl,
    "no loss": no_loss,
}
