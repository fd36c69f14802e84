"""How large a model is: layers, widths, parameters, arithmetic."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.attention import attention_size
from demiglace.models.causality import is_causal

CAUSAL_NAMES = ("ForCausalLM", "LMHeadModel")  # how the names of causal language models' classes end


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model.

    architecture: name of its class; num_labels: width of its classification head, 0 without one; max_positions:
    tokens of the longest row it takes, or None if nothing limits them; parameters: all of them, shared ones once;
    embedding_parameters: those that are looked up and not multiplied with; head_parameters: those that make a language
    model's logits, 0 where it is none, and no embeddings even where they are shared with them; attention_size: width
    of a layer's queries (heads · d_h), 0 where they cannot be read; causal: whether tokens attend only to earlier
    tokens and themselves, false where the model has no single stack of layers.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    vocab_size: int
    num_labels: int
    max_positions: int | None
    parameters: int
    embedding_parameters: int
    head_parameters: int
    attention_size: int
    causal: bool

    @classmethod
    def of(cls, model: PreTrainedModel) -> "ModelShape":
        """The shape of a model."""
        config, name = model.config, type(model).__name__
        head = model.get_output_embeddings()
        return cls(
            architecture=name,
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            vocab_size=config.vocab_size,
            num_labels=len(config.id2label or {}) if name.endswith("ForSequenceClassification") else 0,
            max_positions=_max_positions(model),
            parameters=sum(p.numel() for p in model.parameters()),
            embedding_parameters=_embedding_parameters(model, head),
            head_parameters=sum(p.numel() for p in head.parameters()) if head is not None else 0,
            attention_size=attention_size(model),
            causal=_is_causal(model),
        )


def _is_causal(model: PreTrainedModel) -> bool:
    try:
        return is_causal(model)
    except ModelError:
        return False


def _max_positions(model: PreTrainedModel) -> int | None:
    rows = getattr(model.config, "max_position_embeddings", None)
    return None if rows is None else rows - unused_positions(model)


def unused_positions(model: PreTrainedModel) -> int:
    """RoBERTa's kin number their positions from the padding id on, so the first rows of the table go unused."""
    tables = [m for name, m in model.named_modules() if name.endswith("position_embeddings")]
    unused = [m.padding_idx + 1 for m in tables if isinstance(m, nn.Embedding) and m.padding_idx is not None]
    return max(unused, default=0)


def _embedding_parameters(model: PreTrainedModel, head: nn.Module | None) -> int:
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    if head is not None:
        tables.pop(id(head.weight), None)
    return sum(weight.numel() for weight in tables.values())


def forward_flops(shape: ModelShape, tokens: int, predicted: float = 1.0) -> int:
    """Floating-point operations of one forward pass over a row of `tokens` tokens (a multiply-add counts as two).

    2 · (P − E − H) · T + 4 · n · d · T² + 2 · H · p · T: every parameter P that is no looked-up embedding E is
    multiplied once a token, and in each of n layers of width d the scores Q·Kᵀ and their product with V take 2 · d · T²
    each. A language model's head H makes logits for the share p of the tokens, those it predicts. Norms and softmax are
    left out (cf. Kaplan et al. 2020, arXiv 2001.08361, 2.1).
    """
    body = shape.parameters - shape.embedding_parameters - shape.head_parameters
    attention = 4 * shape.num_layers * shape.hidden_size * tokens**2
    return 2 * body * tokens + attention + round(2 * shape.head_parameters * predicted * tokens)
