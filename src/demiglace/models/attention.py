"""Find the queries, keys and values of a layer's attention, whatever the architecture names them.

They are captured at the output of the layer's linear projections, so any attention kernel works (sdpa, flash, eager).
Anything that a model adds later is not included: rotary positions (Llama), norms of queries and keys (Qwen3), and the
position parts of disentangled attention (DeBERTa-v2).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.layer_stack import layer_stack

AttentionInput = Literal["query", "key", "value"]
INPUTS: tuple[AttentionInput, ...] = ("query", "key", "value")
WITHOUT_ATTENTION = "use a method that needs no attention, such as rail-kd-l, pkd or vanilla-kd."


@dataclass(frozen=True)
class QKVNames:
    """Names of the projections of queries, keys and values in a layer."""

    query: str
    key: str
    value: str
    fused: bool = False  # one projection, whose output is split into three equal parts

    @property
    def modules(self) -> tuple[str, str, str]:
        """Return the three names in the order of `INPUTS`."""
        return self.query, self.key, self.value


KNOWN = (
    # BERT, MiniLM, RoBERTa, ELECTRA and similar models
    QKVNames("attention.self.query", "attention.self.key", "attention.self.value"),
    # DistilBERT
    QKVNames("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    # DeBERTa-v2 and v3
    QKVNames("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
    # GPT-2
    QKVNames("attn.c_attn", "attn.c_attn", "attn.c_attn", fused=True),
    # Llama, Mistral, Qwen, Gemma, EuroBERT
    QKVNames("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)


@dataclass(frozen=True)
class AttentionHook:
    """Where to capture an attention input."""

    module: nn.Module  # whose output contains the input
    extract: Callable[[Tensor], Tensor]  # returns the input [B, L, d] from that output


def attention_hooks(model: PreTrainedModel, layers: Iterable[int]) -> dict[tuple[AttentionInput, int], AttentionHook]:
    """Return hooks for queries, keys and values of these layers (from 1), each [B, L, heads · d_h], heads concatenated.

    Keys and values that several heads share (grouped-query attention) are repeated for each head that uses them. Raises
    `ModelError` if a layer has none of the `KNOWN` projections.
    """
    stack = layer_stack(model)
    return {(kind, i): hook for i in layers for kind, hook in _layer_hooks(model, stack[i - 1]).items()}


def _layer_hooks(model: PreTrainedModel, block: nn.Module) -> dict[AttentionInput, AttentionHook]:
    names = names_in(block)
    if names is None:
        raise ModelError(
            f"the queries, keys and values of {type(model).__name__} were not found; none of these modules is there: "
            f"{', '.join(n.query for n in KNOWN)}; {WITHOUT_ATTENTION}"
        )
    modules = [block.get_submodule(name) for name in names.modules]
    if names.fused:
        return {kind: AttentionHook(m, _third(i)) for i, (kind, m) in enumerate(zip(INPUTS, modules, strict=True))}
    groups = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    heads = model.config.num_attention_heads
    extractors = [_identity, _repeat_heads(groups, heads), _repeat_heads(groups, heads)]
    return {kind: AttentionHook(m, extract) for kind, m, extract in zip(INPUTS, modules, extractors, strict=True)}


def names_in(layer: nn.Module) -> QKVNames | None:
    """Return the entry of `KNOWN` whose modules this layer has, or None."""
    present = {name for name, _ in layer.named_modules()}
    return next((names for names in KNOWN if present.issuperset(names.modules)), None)


def attention_size(model: PreTrainedModel) -> int:
    """Return the width of a layer's queries (heads · d_h), or 0 if they are not found."""
    try:
        block = layer_stack(model)[0]
    except ModelError:
        return 0
    names = names_in(block)
    if names is None:
        return 0
    width = _output_size(block.get_submodule(names.query))
    return width // 3 if names.fused else width


def _output_size(module: nn.Module) -> int:
    """Return a projection's output size: the weight of `Linear` is [out, in], that of GPT-2's `Conv1D` [in, out]."""
    weight = module.get_parameter("weight")
    return weight.shape[0] if isinstance(module, nn.Linear) else weight.shape[1]


def _identity(output: Tensor) -> Tensor:
    return output


def _third(part: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output.chunk(3, dim=-1)[part]


def _repeat_heads(groups: int, heads: int) -> Callable[[Tensor], Tensor]:
    if groups == heads:
        return _identity
    return lambda output: output.unflatten(-1, (groups, -1)).repeat_interleave(heads // groups, dim=-2).flatten(-2)
