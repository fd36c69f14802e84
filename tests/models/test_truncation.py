"""Truncation: the selected layers, and a truncated model that computes the same as the kept layers."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AlbertConfig, AlbertModel, AutoModel, AutoModelForCausalLM, Qwen2Config

from demiglace.errors import ConfigError, ModelError
from demiglace.models.layer_stack import layer_stack, named_stack
from demiglace.models.truncate import (
    STRATEGIES,
    check_keep,
    choose_layers,
    layers_to_keep,
    make_student,
    truncate_config,
    truncate_model,
)
from factories import ARCHITECTURES, DECODERS, tiny_config, tiny_model

IDS = torch.tensor([[2, 40, 41, 42, 43, 3], [2, 50, 51, 3, 0, 0]])
MASK = (IDS != 0).long()
CONFIG = tiny_config("bert")  # of four layers


def hidden_states(model, layers=None):
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states


# layers


@pytest.mark.parametrize(
    ("strategy", "n", "m", "kept"),
    [
        ("alternate", 12, 6, (0, 2, 4, 6, 8, 10)),
        ("alternate", 24, 4, (0, 6, 12, 18)),
        ("alternate", 12, 5, (0, 2, 4, 7, 9)),
        ("distil", 12, 6, (0, 2, 4, 7, 9, 11)),
        ("distil", 6, 3, (0, 2, 5)),
        ("distil", 12, 1, (0,)),
        ("distil", 12, 4, (0, 3, 8, 11)),
        ("distil", 12, 5, (0, 2, 4, 9, 11)),
        ("bottom", 12, 6, (0, 1, 2, 3, 4, 5)),
        ("bottom", 12, 3, (0, 1, 2)),
        ("top", 12, 6, (6, 7, 8, 9, 10, 11)),
        ("top", 12, 2, (10, 11)),
        ("bottom", 24, 18, tuple(range(18))),
        ("top", 24, 18, tuple(range(6, 24))),
        ("bottom", 24, 8, tuple(range(8))),
        ("bottom", 48, 8, tuple(range(0, 24, 3))),
        ("distil", 24, 8, (0, 3, 6, 9, 13, 16, 19, 22)),
        ("first-middle-last", 12, 3, (0, 6, 11)),
        ("first-middle-last", 3, 3, (0, 1, 2)),
    ],
)
def test_strategies_keep_the_documented_layers(strategy, n, m, kept):
    assert layers_to_keep(strategy, n, m) == kept


def by_the_authors_script(strategy, n):
    """Return the layers that the authors' script copies into a student of 6 layers."""
    if strategy == "alternate":
        return [*range(0, n, n // 6)]
    if strategy == "distil":
        step = n // 6
        return [*range(0, 3 * step, step), *range(n - 3 * step + 1, n, step)]
    step = n // 12
    return [*range(0, n // 2 - step + 1, step)] if strategy == "bottom" else [*range(n // 2 + step - 1, n, step)]


@pytest.mark.parametrize("strategy", ["alternate", "distil", "bottom", "top"])
@pytest.mark.parametrize("n", [12, 24, 36, 48])
def test_six_layers_of_any_gpt2_are_those_of_the_authors_script(strategy, n):
    assert list(layers_to_keep(strategy, n, 6)) == by_the_authors_script(strategy, n)


@pytest.mark.parametrize("n", [12, 24, 36, 48])
def test_half_of_the_layers(n):
    half = n // 2
    assert layers_to_keep("bottom", n, half) == tuple(range(half))
    assert layers_to_keep("top", n, half) == tuple(range(half, n))
    assert layers_to_keep("distil", n, half) == (*range(0, half, 2), *range(half + 1 - half % 2, n, 2))


@given(n=st.integers(1, 48), data=st.data())
def test_every_strategy_keeps_the_requested_number_of_layers_in_order(n, data):
    m = data.draw(st.integers(1, n))
    for strategy in STRATEGIES.keys() - {"first-middle-last"}:
        keep = layers_to_keep(strategy, n, m)
        check_keep(keep, n)
        assert len(keep) == m
        assert m < n or keep == tuple(range(n))


@pytest.mark.parametrize("count", [0, -1, 13])
def test_invalid_numbers_of_layers_are_refused(count):
    with pytest.raises(ModelError, match=r"12.*--layers 1 to 12"):
        layers_to_keep("alternate", 12, count)


def test_first_middle_last_keeps_three():
    with pytest.raises(ModelError, match="3 layers, not 4"):
        layers_to_keep("first-middle-last", 12, 4)


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'alternate'"):
        layers_to_keep("alternating", 12, 6)


@pytest.mark.parametrize("keep", [(), (0, 4), (-1, 2), (2, 1), (1, 1)])
def test_bad_lists_of_layers_are_refused(keep):
    with pytest.raises(ModelError):
        check_keep(keep, 4)


def test_choosing_layers():
    assert choose_layers(CONFIG, 2, "top", None) == (2, 3)
    assert choose_layers(CONFIG, None, "top", [0, 3]) == (0, 3)
    assert choose_layers(CONFIG, 2, "top", [0, 3]) == (0, 3)
    with pytest.raises(ConfigError, match="must be given"):
        choose_layers(CONFIG, None, "top", None)
    with pytest.raises(ConfigError, match="disagree"):
        choose_layers(CONFIG, 3, "top", [0, 3])


# models


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_hidden_states_are_the_teachers_up_to_the_first_dropped_layer(arch):
    teacher = tiny_model(arch)
    student = truncate_model(teacher, (0, 1, 3))
    theirs, ours = hidden_states(teacher), hidden_states(student)
    assert len(ours) == 4
    torch.testing.assert_close(ours[0], theirs[0])  # embeddings
    torch.testing.assert_close(ours[1], theirs[1])
    torch.testing.assert_close(ours[2], theirs[2])
    assert not torch.allclose(ours[3], theirs[3], atol=1e-3)  # layer 3 on top of layer 1
    assert not torch.allclose(ours[3], theirs[4], atol=1e-3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_student_is_the_teacher_without_the_dropped_layers(arch):
    """Removing the layers from the teacher gives the same logits: nothing else changed."""
    teacher = tiny_model(arch)
    student = truncate_model(teacher, (0, 2))
    cut = copy.deepcopy(teacher)
    stack = layer_stack(cut)
    for layer in (3, 1):
        del stack[layer]
    cut.config.num_hidden_layers = 2
    with torch.inference_mode():
        expected, got = (
            m(input_ids=IDS, attention_mask=MASK, use_cache=False)
            if arch in DECODERS
            else m(input_ids=IDS, attention_mask=MASK)
            for m in (cut, student)
        )
    torch.testing.assert_close(got.logits, expected.logits)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_config_weights_and_round_trip(arch, tmp_path):
    teacher = tiny_model(arch)
    student = truncate_model(teacher, (1, 3))
    assert type(student) is type(teacher)
    assert student.config.num_hidden_layers == len(layer_stack(student)) == 2
    assert teacher.config.num_hidden_layers == len(layer_stack(teacher)) == 4
    ours = layer_stack(student)[1].state_dict()
    theirs = layer_stack(teacher)[3].state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path)
    assert again.config.num_hidden_layers == 2
    assert all(torch.equal(w, again.state_dict()[k]) for k, w in student.state_dict().items())
    torch.testing.assert_close(hidden_states(again), hidden_states(student))


def test_all_layers_kept_is_an_independent_copy():
    teacher = tiny_model("bert")
    student = truncate_model(teacher, range(4))
    with torch.no_grad():
        next(iter(student.parameters())).add_(1)
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert sum(not torch.equal(ours[k], theirs[k]) for k in theirs) == 1


@pytest.mark.parametrize("arch", DECODERS)
def test_layer_indices_of_decoders_are_their_new_ones(arch):
    """With a stale index, the second layer would use the wrong entry of the key-value cache."""
    torch.manual_seed(0)
    teacher = AutoModelForCausalLM.from_config(tiny_config(arch)).eval()
    student = truncate_model(teacher, (1, 3))
    indices = [m.layer_idx for m in layer_stack(student).modules() if "layer_idx" in vars(m)]
    assert set(indices) == {0, 1}
    with torch.inference_mode():
        whole = student(input_ids=IDS[:1]).logits
        begun = student(input_ids=IDS[:1, :4], use_cache=True)
        rest = student(input_ids=IDS[:1, 4:], past_key_values=begun.past_key_values).logits
    torch.testing.assert_close(torch.cat([begun.logits, rest], 1), whole)


def test_tied_embeddings_stay_tied_in_a_language_model():
    student = truncate_model(AutoModelForCausalLM.from_config(tiny_config("gpt2")), (0, 2))
    assert student.lm_head.weight is student.transformer.wte.weight


def test_dtype_mode_and_random_state_are_kept():
    teacher = tiny_model("bert").to(torch.bfloat16).train()
    before = torch.get_rng_state()
    student = truncate_model(teacher, (0, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert student.dtype == torch.bfloat16 and student.training
    assert not truncate_model(teacher.eval(), (0, 2)).training


def test_attention_kernel_is_kept():
    teacher = AutoModel.from_config(tiny_config("bert"), attn_implementation="eager")
    assert truncate_model(teacher, (0,)).config._attn_implementation == "eager"


def test_lists_by_layer_are_truncated_and_others_kept():
    config = Qwen2Config(
        num_hidden_layers=4, layer_types=["full_attention", "sliding_attention"] * 2, use_sliding_window=True
    )
    cut = truncate_config(config, (0, 3))
    assert (cut.num_hidden_layers, cut.layer_types) == (2, ["full_attention", "sliding_attention"])
    deberta = tiny_config("deberta-v2", num_layers=2)  # two layers, and two kinds of relative attention
    assert truncate_config(deberta, (1,)).pos_att_type == ["p2c", "c2p"]
    assert truncate_config(tiny_config("gpt2"), (1,)).n_layer == 1


def test_shared_layers_are_refused_by_name():
    config = AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with pytest.raises(ModelError, match=r"AlbertModel.*4 separate layers.*shared"):
        truncate_model(AlbertModel(config), (0, 1))


# ablations


FINAL_NORMS = {"gpt2": "transformer.ln_f.", "causal": "transformer.ln_f.", "llama": "model.norm."}


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "causal"])
@pytest.mark.parametrize("strategy", ["random", "embeddings"])
def test_ablations_keep_the_documented_weights_and_initialize_the_rest(arch, strategy):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("gpt2")) if arch == "causal" else tiny_model(arch)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)  # so that no weight is what a new model has
    name, _ = named_stack(model)
    before = torch.get_rng_state()
    one, same, other = (make_student(model, (0, 2), strategy, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    ours = model.state_dict()
    for key, weight in one.items():
        assert torch.equal(weight, same[key])
        is_new = key.startswith((name + ".", FINAL_NORMS.get(arch, name + ".")))
        if strategy == "embeddings" and not is_new:
            assert torch.equal(weight, ours[key])
        elif key in dict(model.named_parameters()):  # and no buffer
            assert not torch.equal(weight, ours[key])
            if weight.dim() > 1 and weight.std() > 0:  # norms begin as ones
                assert not torch.equal(weight, other[key])
    layers = [k for k, w in one.items() if k.startswith(name + ".0.") and w.dim() > 1]
    assert layers
    assert all(not torch.equal(one[k], one[k.replace(name + ".0.", name + ".1.")]) for k in layers)


def test_a_new_models_weights_have_its_architectures_scale():
    drawn = make_student(tiny_model("gpt2", hidden=64), (0, 1), "random", 0)
    block = layer_stack(drawn)[0]
    assert block.mlp.c_fc.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx(0.1 / 4**0.5, rel=0.1)  # of 2 · 2 residual branches


def test_other_strategies_only_truncate():
    model = tiny_model("bert")
    ours, theirs = make_student(model, (0, 2), "top", 5).state_dict(), truncate_model(model, (0, 2)).state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_ablations_keep_the_dtype():
    model = tiny_model("bert").to(torch.bfloat16)
    assert make_student(model, (0,), "random", 0).dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["random", "embeddings"])
def test_a_list_of_layers_and_an_ablation_disagree(strategy):
    assert len(choose_layers(CONFIG, 2, strategy, None)) == 2
    with pytest.raises(ConfigError, match=f"{strategy} keeps the weights of no layer"):
        choose_layers(CONFIG, None, strategy, [0, 1])
