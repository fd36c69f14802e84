"""Kinds of layers: read from configs, kept in their pattern, and true in the config of a truncated model."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    DeepseekV3Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    JambaConfig,
    Llama4TextConfig,
    LongformerConfig,
    Qwen2MoeConfig,
    RecurrentGemmaConfig,
)

from demiglace.models.layer_kinds import by_kind, layer_kinds, lost_kinds
from demiglace.models.truncate import alternate, default_strategy, truncate_config

GEMMA = Gemma3TextConfig(num_hidden_layers=26)  # as Gemma 3 1B: layers 5, 11, 17 and 23 attend to all tokens


def test_kinds_are_those_of_the_config() -> None:
    kinds = layer_kinds(GEMMA)
    assert [i for i, kind in enumerate(kinds) if kind == "full_attention"] == [5, 11, 17, 23]
    assert set(layer_kinds(BertConfig())) == {""}
    assert layer_kinds(DeepseekV3Config(num_hidden_layers=4, first_k_dense_replace=1))[:2] == (
        "first_k_dense_replace: True",
        "first_k_dense_replace: False",
    )


def test_sizes_that_grow_from_layer_to_layer_are_no_kinds() -> None:
    assert len(set(layer_kinds(LongformerConfig(num_hidden_layers=4, attention_window=[4, 8, 16, 32])))) == 1
    assert len(set(layer_kinds(LongformerConfig(num_hidden_layers=4, attention_window=[4, 8, 4, 8])))) == 2


def test_the_default_strategy_keeps_every_kind_in_its_share() -> None:
    assert default_strategy(GEMMA) == "by-kind" and default_strategy(BertConfig()) == "alternate"
    keep = by_kind(layer_kinds(GEMMA), 13)
    assert Counter(layer_kinds(GEMMA)[i] for i in keep) == {"sliding_attention": 11, "full_attention": 2}
    assert {5, 17} <= set(keep)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.data())
def test_by_kind_keeps_the_requested_number_and_each_kind(kinds: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(kinds)))
    keep = by_kind(kinds, count)
    assert len(keep) == count and list(keep) == sorted(set(keep)) and set(keep) <= set(range(len(kinds)))
    assert not lost_kinds(kinds, keep) or count < len(set(kinds))
    assert kinds.index(Counter(kinds).most_common(1)[0][0]) in keep


@pytest.mark.parametrize("count", range(1, 13))
def test_with_one_kind_by_kind_is_alternate(count: int) -> None:
    assert by_kind(["a"] * 12, count) == alternate(12, count)


def test_lost_kinds_are_named_with_their_layers() -> None:
    assert lost_kinds(layer_kinds(GEMMA), range(0, 26, 2)) == {"full_attention": [5, 11, 17, 23]}


def test_what_a_config_states_of_a_layer_stays_with_the_layer() -> None:
    def cut(config, *keep):
        return truncate_config(config, keep)

    assert cut(GEMMA, 0, 5, 6).layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    windows = LongformerConfig(num_hidden_layers=4, attention_window=[4, 8, 16, 32])
    assert cut(windows, 0, 2).attention_window == [4, 16]
    assert cut(DeepseekV3Config(num_hidden_layers=8, first_k_dense_replace=3), 0, 2, 5, 6).first_k_dense_replace == 2
    assert cut(Qwen2MoeConfig(num_hidden_layers=6, mlp_only_layers=[1, 4]), 1, 2, 4).mlp_only_layers == [0, 2]
    llama = Llama4TextConfig(num_hidden_layers=8, interleave_moe_layer_step=2)  # layers 1, 3, 5 and 7 have experts
    assert cut(llama, 1, 2, 3).moe_layers == [0, 2]
    assert cut(GPTNeoConfig(num_layers=24), 1, 2, 4).attention_layers == ["local", "global", "global"]
    jamba = JambaConfig(num_hidden_layers=8, num_experts=4)  # attention in layer 4, experts in layers 1, 3, 5 and 7
    assert cut(jamba, 0, 1, 4, 5).layers_block_type == ["mamba", "mamba", "attention", "mamba"]
    assert cut(jamba, 0, 1, 4, 5).layers_num_experts == [1, 4, 1, 4]
    assert cut(jamba, 0, 2).layers_block_type == ["mamba", "mamba"]
    recurrent = RecurrentGemmaConfig(num_hidden_layers=8)  # attention in layers 2 and 5
    assert cut(recurrent, 1, 2, 3, 5).block_types == ["recurrent", "attention", "recurrent", "attention"]
