"""Finding what goes into a layer's attention, whatever its architecture calls it: queries, keys and values.

They are read where the layer's own linear maps put them out, so that the model may compute its attention however it
likes (sdpa, flash, eager). What a model adds later is not in them: rotary positions (Llama), norms of queries and keys
(Qwen3), and the position parts of disentangled attention (DeBERTa-v2).
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
WITHOUT_ATTENTION = "take a method that needs no attention, such as rail-kd-l, pkd or vanilla-kd."


@dataclass(frozen=True)
class QKVNames:
    """Where in a layer the linear maps of queries, keys and values are; `fused`: one map, cut in three equal parts."""

    query: str
    key: str
    value: str
    fused: bool = False

    @property
    def modules(self) -> tuple[str, str, str]:
        """The three names in the order of `INPUTS`."""
        return self.query, self.key, self.value


KNOWN = (
    # BERT, MiniLM, RoBERTa, ELECTRA and their kin
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
    """The module whose output holds an attention input, and how to cut [B, L, d] out of that output."""

    module: nn.Module
    cut: Callable[[Tensor], Tensor]


def attention_taps(model: PreTrainedModel, layers: Iterable[int]) -> dict[tuple[AttentionInput, int], AttentionHook]:
    """Queries, keys and values of these layers (from 1), each [B, L, heads · d_h], the heads side by side.

    Keys and values that several heads share (grouped-query attention) are repeated, once for each head that uses them.
    Raises `ModelError` where a layer has none of the `KNOWN` maps.
    """
    stack = layer_stack(model)
    return {(kind, i): tap for i in layers for kind, tap in _taps(model, stack[i - 1]).items()}


def _taps(model: PreTrainedModel, block: nn.Module) -> dict[AttentionInput, AttentionHook]:
    names = names_in(block)
    if names is None:
        raise ModelError(
            f"queries, keys and values of {type(model).__name__} are not where any known architecture has them "
            f"({', '.join(n.query for n in KNOWN)}); {WITHOUT_ATTENTION}"
        )
    modules = [block.get_submodule(name) for name in names.modules]
    if names.fused:
        return {kind: AttentionHook(m, _third(i)) for i, (kind, m) in enumerate(zip(INPUTS, modules, strict=True))}
    groups = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    heads = model.config.num_attention_heads
    cuts = [_whole, _repeated(groups, heads), _repeated(groups, heads)]
    return {kind: AttentionHook(m, cut) for kind, m, cut in zip(INPUTS, modules, cuts, strict=True)}


def names_in(layer: nn.Module) -> QKVNames | None:
    """The row of `KNOWN` whose modules this layer has."""
    present = {name for name, _ in layer.named_modules()}
    return next((row for row in KNOWN if present.issuperset(row.modules)), None)


def attention_size(model: PreTrainedModel) -> int:
    """Return the width of a layer's queries (heads · d_h), or 0 where they are not found."""
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
    """Outputs of a linear map: `Linear` keeps its weight as [out, in], GPT-2's `Conv1D` as [in, out]."""
    weight = module.get_parameter("weight")
    return weight.shape[0] if isinstance(module, nn.Linear) else weight.shape[1]


def _whole(output: Tensor) -> Tensor:
    return output


def _third(part: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output.chunk(3, dim=-1)[part]


def _repeated(groups: int, heads: int) -> Callable[[Tensor], Tensor]:
    if groups == heads:
        return _whole
    return lambda output: output.unflatten(-1, (groups, -1)).repeat_interleave(heads // groups, dim=-2).flatten(-2)
