"""The cost of training and running a model, computed from its shape: floating-point operations and memory."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from demiglace.models.shape import ModelShape, forward_flops

BACKWARD = 2  # backward cost over forward cost: a product for the gradient of each weight and one for that of its input
_FP32, _HALF = 4, 2

Passes = Mapping[tuple[int, int], int]  # forward passes: (rows, tokens per row) -> number


def forward_passes(lengths: np.ndarray, parts: Iterable[np.ndarray]) -> Passes:
    """Return the forward passes of these batches of rows, each padded to its longest row."""
    return Counter((len(part), int(lengths[part].max())) for part in parts)


def padded_tokens(passes: Passes) -> int:
    """Count the tokens of the passes, padding included."""
    return sum(rows * tokens * count for (rows, tokens), count in passes.items())


def padded_flops(shape: ModelShape, passes: Passes, predicted: float = 1.0) -> int:
    """Count the floating-point operations of the passes.

    Args:
        shape: of the model.
        passes: forward passes.
        predicted: share of the tokens for which a language model computes logits.
    """
    return sum(rows * forward_flops(shape, tokens, predicted) * count for (rows, tokens), count in passes.items())


def activation_bytes(
    shape: ModelShape, rows: int, tokens: int, precision: str, attention: str, *, checkpointing: bool = False
) -> int:
    """Return the bytes that a forward pass of `rows` × `tokens` keeps for its backward pass, without dropout.

    For each token, a layer of width d with P_l weights keeps the inputs of its linear maps, queries, keys, values, and
    input and output of the activation function: 4 d + P_l / d numbers (16 d for BERT, whose P_l is 12 d²). With `eager`
    attention of a heads it also keeps the attention map, a · T numbers. In bf16 or fp16 autocast these take 2 bytes
    each, the inputs of the two norms stay in fp32 (8 d bytes more), and there is one 16-bit copy of all weights (cf.
    Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, who also count dropout masks). For BERT-like models this is
    accurate to within a tenth. Models whose activation functions and attention consist of several simple operations
    (GPT-2, Llama, DeBERTa) keep up to twice as much. With gradient checkpointing, the inputs of all layers are kept, in
    fp32, and these numbers of one layer at a time (Chen et al. 2016, arXiv 1604.06174).
    """
    layers = shape.num_layers or 1  # a static model counts as one
    in_layer = (shape.parameters - shape.embedding_parameters - shape.head_parameters) / layers
    scores = shape.num_heads * tokens if attention == "eager" else 0
    numbers = 4 * shape.hidden_size + in_layer / shape.hidden_size + scores
    if precision in ("bf16", "fp16"):
        each = _HALF * numbers + 8 * shape.hidden_size
        copies = _HALF * (shape.parameters - shape.embedding_parameters)
    else:
        each, copies = _FP32 * numbers, 0
    kept = each + _FP32 * layers * shape.hidden_size if checkpointing else layers * each
    return int(rows * tokens * kept) + copies


def head_bytes(shape: ModelShape, chunk: int) -> int:
    """Return the bytes of computing a language model's loss for `chunk` tokens at a time; 0 for other models.

    They hold the gradient of the head, and for one chunk in fp32: the logits and the probabilities of student and
    teacher, and the gradient (see `losses.language`).
    """
    return _FP32 * (shape.head_parameters + 5 * chunk * shape.vocab_size) if shape.head_parameters else 0


@dataclass(frozen=True)
class Memory:
    """The memory of a run in bytes."""

    weights: int  # of the student
    gradients: int
    moments: int  # of AdamW
    activations: int
    teacher: int  # weights of a teacher that runs during training
    capture: int  # weights of both models while the teacher fills the cache
    generator: int = 0  # model that perturbs the text; with gradients and moments if it is trained

    @property
    def total(self) -> int:
        """Return the peak, without the Python process and its libraries."""
        trained = self.weights + self.gradients + self.moments
        return max(trained + self.activations + self.teacher + self.generator, self.capture)


def training_memory(student: ModelShape, activations: int, teacher: ModelShape | None, *, cached: bool) -> Memory:
    """Return the memory of training with AdamW.

    All is in fp32, also under bf16 autocast. With P parameters: 4 P bytes of weights, 4 P of gradients, 8 P of moments,
    and 4 P' of a teacher with P' parameters. With a cache, the teacher is released before the training.

    Args:
        student: shape.
        activations: bytes.
        teacher: shape, None if no teacher is used.
        cached: the teacher's signals are cached.
    """
    student_bytes, teacher_bytes = _FP32 * student.parameters, _FP32 * teacher.parameters if teacher else 0
    return Memory(
        weights=student_bytes,
        gradients=student_bytes,
        moments=2 * student_bytes,
        activations=activations,
        teacher=0 if cached else teacher_bytes,
        capture=student_bytes + teacher_bytes if cached else 0,
    )
