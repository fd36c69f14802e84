"""What training and asking a model costs, from its shape alone: arithmetic and memory."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from demiglace.models.shape import ModelShape, forward_flops

BACKWARD = 2  # a backward pass takes the product with each weight twice: for its gradient and for its input's
_FP32, _BF16 = 4, 2

Passes = Mapping[tuple[int, int], int]  # forward passes by size: (rows, tokens of each) -> how many of them


def passes_of(lengths: np.ndarray, parts: Iterable[np.ndarray]) -> Passes:
    """The forward passes of these rows, each padded to its longest."""
    return Counter((len(part), int(lengths[part].max())) for part in parts)


def padded_tokens(passes: Passes) -> int:
    """Tokens that the passes compute, padding included."""
    return sum(rows * tokens * count for (rows, tokens), count in passes.items())


def padded_flops(shape: ModelShape, passes: Passes, predicted: float = 1.0) -> int:
    """Floating-point operations of the passes; predicted: share of the tokens that a language model's head is for."""
    return sum(rows * forward_flops(shape, tokens, predicted) * count for (rows, tokens), count in passes.items())


def activation_bytes(shape: ModelShape, rows: int, tokens: int, precision: str, attention: str) -> int:
    """Bytes that a forward pass of `rows` × `tokens` keeps for its backward pass, without dropout.

    A layer of width d with P_l weights keeps, for each token, the inputs of its linear maps, queries, keys, values and
    both sides of the activation function: 4 d + P_l / d numbers (16 d for BERT, whose P_l is 12 d²); with `eager`
    attention of a heads also the map, a · T. In bf16 autocast those take 2 bytes, but the sums before the two norms
    stay in fp32 (8 d bytes more), and there is one bf16 copy of all weights (cf. Korthikanti et al. 2022, arXiv
    2205.05198, 4.1, who count dropout's masks too). BERT and its kin keep this to within a tenth; activation functions
    and attention that are put together of simple operations (GPT-2, Llama, DeBERTa) up to twice as much.
    """
    in_layer = (shape.parameters - shape.embedding_parameters - shape.head_parameters) / shape.num_layers
    scores = shape.num_heads * tokens if attention == "eager" else 0
    numbers = 4 * shape.hidden_size + in_layer / shape.hidden_size + scores
    if precision == "bf16":
        each = _BF16 * numbers + 8 * shape.hidden_size
        copies = _BF16 * (shape.parameters - shape.embedding_parameters)
    else:
        each, copies = _FP32 * numbers, 0
    return int(rows * tokens * shape.num_layers * each) + copies


def head_bytes(shape: ModelShape, chunk: int) -> int:
    """Bytes of making a language model's loss `chunk` tokens at a time: the head's gradient, and a chunk's logits.

    Of those there are the student's and the teacher's, their probabilities and the gradient, in fp32; see
    `losses.language`. 0 for a model that is no language model.
    """
    return _FP32 * (shape.head_parameters + 5 * chunk * shape.vocab_size) if shape.head_parameters else 0


@dataclass(frozen=True)
class Memory:
    """Bytes of a run: the student's weights, gradients and moments, activations, and a teacher that stays beside them.

    capture: what is held while a teacher that does not stay fills the cache, its weights and the student's. generator:
    what makes other text of the rows, with its gradients and moments where it is trained.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    teacher: int
    capture: int
    generator: int = 0

    @property
    def total(self) -> int:
        """The peak; the Python process and its libraries come on top."""
        trained = self.weights + self.gradients + self.moments
        return max(trained + self.activations + self.teacher + self.generator, self.capture)


def training_memory(student: ModelShape, activations: int, teacher: ModelShape | None, *, cached: bool) -> Memory:
    """AdamW in fp32, also under bf16 autocast: 4 P weights, 4 P gradients, 8 P moments; 4 P of a teacher.

    With a cache the teacher is let go before the training begins.
    """
    own, other = _FP32 * student.parameters, _FP32 * teacher.parameters if teacher else 0
    return Memory(own, own, 2 * own, activations, 0 if cached else other, own + other if cached else 0)
