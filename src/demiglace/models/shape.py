"""Sizes of a model: layers, widths, parameters, floating-point operations."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.attention import attention_size
from demiglace.models.causality import is_causal

_SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")  # of a config, without which a model has no shape
HEADS = ("ForSequenceClassification", "ForTokenClassification")  # suffixes of classes with logits of rows or words
CAUSAL_NAMES = ("ForCausalLM", "LMHeadModel")  # suffixes of the class names of causal language models


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model."""

    architecture: str  # name of the class
    num_layers: int
    hidden_size: int
    num_heads: int  # 0 for an architecture without attention, such as Mamba
    vocab_size: int
    num_labels: int  # width of the outputs for a row or a word, 0 for a model without any
    max_positions: int | None  # maximum tokens of a row, None if unlimited
    parameters: int  # all parameters; shared ones count once
    embedding_parameters: int  # of tables that are only looked up, not multiplied with
    head_parameters: int  # of a language-model head, even if it is tied to the embeddings; 0 without one
    attention_size: int  # width of a layer's queries (heads · d_h), 0 if they are not found
    causal: bool  # tokens attend only to themselves and earlier tokens; False without a single stack of layers

    @classmethod
    def of(cls, model: PreTrainedModel) -> "ModelShape":
        """Return the shape of a model. Raises `ModelError` for a config that lacks one of its sizes."""
        config, name = model.config, type(model).__name__
        if lacking := [size for size in _SIZES if getattr(config, size, None) is None]:
            raise ModelError(
                f"{name}: the config of a {config.model_type} model has no {' and no '.join(lacking)}; take a model of "
                "another architecture."
            )
        head = model.get_output_embeddings()
        return cls(
            architecture=name,
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_heads=getattr(config, "num_attention_heads", None) or 0,
            vocab_size=config.vocab_size,
            num_labels=output_width(model),
            max_positions=max_positions(model),
            parameters=sum(p.numel() for p in model.parameters()),
            embedding_parameters=_embedding_parameters(model, head),
            head_parameters=sum(p.numel() for p in head.parameters()) if head is not None else 0,
            attention_size=attention_size(model),
            causal=_is_causal(model),
        )


def output_width(model: PreTrainedModel) -> int:
    """Return C, the outputs for a row or a word: a model's `output_width`, or its classes; 0 without a head."""
    width = getattr(model, "output_width", None)
    if width is not None:
        return int(width)
    return len(model.config.id2label or {}) if type(model).__name__.endswith(HEADS) else 0


def _is_causal(model: PreTrainedModel) -> bool:
    try:
        return is_causal(model)
    except ModelError:
        return False


def max_positions(model: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens of a row, None if unlimited."""
    rows = getattr(model.config, "max_position_embeddings", None)
    return None if rows is None else rows - unused_positions(model)


def unused_positions(model: PreTrainedModel) -> int:
    """Return the number of unused rows of the position table: RoBERTa-like models start after the padding id."""
    tables = [m for name, m in model.named_modules() if name.endswith("position_embeddings")]
    unused = [m.padding_idx + 1 for m in tables if isinstance(m, nn.Embedding) and m.padding_idx is not None]
    return max(unused, default=0)


def _embedding_parameters(model: PreTrainedModel, head: nn.Module | None) -> int:
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    if head is not None:
        tables.pop(id(head.weight), None)
    return sum(weight.numel() for weight in tables.values())


def forward_flops(shape: ModelShape, tokens: int, predicted: float = 1.0) -> int:
    """Return the floating-point operations of a forward pass over a row of `tokens` tokens; a multiply-add is two.

    They are 2 · (P − E − H) · T + 4 · n · d · T² + 2 · H · p · T. Each of the P parameters, except the embeddings E, is
    multiplied once for each token. In each of n layers of width d, the scores Q·Kᵀ and their product with V take
    2 · d · T² each; models without heads have neither. A language-model head H computes logits for the share p of the
    tokens (`predicted`). Norms and softmax are left out (cf. Kaplan et al. 2020, arXiv 2001.08361, 2.1).
    """
    body = shape.parameters - shape.embedding_parameters - shape.head_parameters
    attention = 4 * shape.num_layers * shape.hidden_size * tokens**2 if shape.num_heads else 0
    return 2 * body * tokens + attention + round(2 * shape.head_parameters * predicted * tokens)
