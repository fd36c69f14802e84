"""The sides of `language.py`: their models, their batches, and what each makes its loss of."""

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
    """A teacher of random weights without dropout, its student of evenly spaced layers, batches of random tokens."""

    @cached_property
    def blocks(self) -> Blocks:
        """Ids do not decide how long anything takes, so they are drawn at random."""
        drawn = np.random.default_rng(self.seed).integers(self.vocabulary, size=self.steps * self.tokens + 1)
        corpus = Corpus((drawn.astype(np.uint16),), ("random",), 1, 0, 0, {}, "random")
        return all_blocks(corpus, self.block)

    def plan(self) -> list[np.ndarray]:
        return epoch_steps(self.blocks.lengths, self.rows, self.seed, 0)

    def batches(self) -> Iterator[Batch]:
        """An epoch's, over and over."""
        return (collate(self.blocks, rows) for rows in cycle(self.plan()))

    def teacher(self) -> PreTrainedModel:
        torch.manual_seed(self.seed)
        sizes = {"n_embd": self.width, "n_layer": self.layers, "n_head": max(1, self.width // 64)}
        config = GPT2Config(vocab_size=self.vocabulary, n_positions=self.block, bos_token_id=0, eos_token_id=0, **sizes)
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
        return GPT2LMHeadModel(config).eval().requires_grad_(False)

    def student(self, teacher: PreTrainedModel) -> PreTrainedModel:
        kept = range(0, self.layers, self.layers // self.student_layers)
        return truncate_model(teacher, tuple(kept)).requires_grad_(True).train()


def plain(teacher: PreTrainedModel, student: PreTrainedModel) -> Loss:
    """The usual form: all logits of both models, cross-entropy and τ²·KL from torch."""

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            other = teacher(input_ids=batch.input_ids).logits.flatten(0, 1)
        own = student(input_ids=batch.input_ids).logits.flatten(0, 1)
        task = F.cross_entropy(own, batch.labels.flatten())
        log_q, p = F.log_softmax(own / TEMPERATURE, -1), F.softmax(other / TEMPERATURE, -1)
        divergence = TEMPERATURE**2 * F.kl_div(log_q, p, reduction="batchmean")
        return TASK_WEIGHT * task + (1 - TASK_WEIGHT) * divergence

    return loss


def ours(teacher: PreTrainedModel, student: PreTrainedModel, method: Method | None = None) -> Loss:
    """What the loop does in a step: `vanilla-kd` with the teacher online."""
    method = method or build_method("vanilla-kd", {"task_weight": TASK_WEIGHT, "temperature": TEMPERATURE})
    shapes = ModelShape.of(student), ModelShape.of(teacher)
    source = OnlineTeacher(teacher, method.requests(*shapes).teacher, "fp32")
    objective = Objective(student, method, shapes[1], LANGUAGE_MODELLING, "fp32").train()

    def loss(batch: Batch) -> Tensor:
        rows = float(len(batch.rows))
        return objective(batch, source.fetch(batch), _START, rows, rows)[0]

    return loss


def ours_kl(teacher: PreTrainedModel, student: PreTrainedModel) -> Loss:
    """KL alone at τ = 1, which is TRL's GKD with β = 0."""
    return ours(teacher, student, Method((WeightedTerm(1.0, LogitDistillation(1.0)),)))


def no_loss(teacher: PreTrainedModel, student: PreTrainedModel) -> Loss:
    """Both models without heads and losses: the floor below every side."""

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            other = teacher.transformer(input_ids=batch.input_ids).last_hidden_state
        own = student.transformer(input_ids=batch.input_ids).last_hidden_state
        return (own.sum() - other.sum()) / own.numel()

    return loss


SIDES: dict[str, Callable[[PreTrainedModel, PreTrainedModel], Loss]] = {
    "plain": plain,
    "ours": ours,
    "ours, KL alone": ours_kl,
    "no loss": no_loss,
}
