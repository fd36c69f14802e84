"""Pruned models compute what the model computes without the removed units, in every architecture, or are refused."""

import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
from layer_kit import batch_of
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    Gemma3TextConfig,
    GPTNeoXConfig,
    MistralConfig,
    MixtralConfig,
    ModernBertConfig,
    MPNetConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from demiglace.errors import ModelError
from demiglace.models.layer_stack import layer_stack
from demiglace.models.loading import save_model
from demiglace.models.prune_width import choose_units, magnitudes, prune_units, prune_width
from demiglace.models.width import narrow_config, shapes_of, sizes_of, width_options
from factories import tiny_config, tiny_model

LAYERS = 2
BATCH = batch_of(3, 9, 0)
COMMON = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
GQA = COMMON | {"num_key_value_heads": 2}
# architecture -> its config, and the names in a layer of the maps that read feed-forward units and heads
ENCODERS = {
    "bert": (tiny_config("bert", LAYERS), "output.dense", "attention.output.dense"),
    "roberta": (tiny_config("roberta", LAYERS), "output.dense", "attention.output.dense"),
    "distilbert": (tiny_config("distilbert", LAYERS), "ffn.lin2", "attention.out_lin"),
    "electra": (tiny_config("electra", LAYERS), "output.dense", "attention.output.dense"),
    "mpnet": (MPNetConfig(**COMMON), "output.dense", "attention.attn.o"),
    "deberta-v2": (tiny_config("deberta-v2", LAYERS), "output.dense", "attention.output.dense"),
    "modernbert": (
        ModernBertConfig(**COMMON, cls_token_id=2, sep_token_id=3),
        "mlp.Wo",
        "attn.Wo",
    ),
}
DECODERS = {
    "gpt2": (tiny_config("gpt2", LAYERS), "mlp.c_proj", "attn.c_proj"),
    "neox": (GPTNeoXConfig(**COMMON), "mlp.dense_4h_to_h", "attention.dense"),
    "opt": (
        OPTConfig(
            **{name: value for name, value in COMMON.items() if name != "intermediate_size"},
            ffn_dim=48,
            word_embed_proj_dim=32,
            max_position_embeddings=64,
        ),
        "fc2",
        "self_attn.out_proj",
    ),
    "llama": (tiny_config("llama", LAYERS), "mlp.down_proj", "self_attn.o_proj"),
    "mistral": (MistralConfig(**GQA), "mlp.down_proj", "self_attn.o_proj"),
    "qwen2": (Qwen2Config(**GQA), "mlp.down_proj", "self_attn.o_proj"),
    "qwen3": (Qwen3Config(**GQA, head_dim=16), "mlp.down_proj", "self_attn.o_proj"),
    "gemma3": (Gemma3TextConfig(**GQA, head_dim=16), "mlp.down_proj", "self_attn.o_proj"),
    "gemma-1-key-head": (
        Gemma3TextConfig(**COMMON | {"num_key_value_heads": 1}, head_dim=16),
        "mlp.down_proj",
        "self_attn.o_proj",
    ),
    "phi3": (Phi3Config(**GQA), "mlp.down_proj", "self_attn.o_proj"),
}
ALL = ENCODERS | DECODERS
WITHOUT_HIDDEN = ("gemma3", "gemma-1-key-head")  # scale embeddings by the root of the hidden size
WITH_HEADS = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "gemma-1-key-head", "phi3")


def noisy(factory, config, seed=0):
    """Return a model whose weights, biases and norms all differ from their initial values."""
    torch.manual_seed(seed)
    model = factory.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="module")
def models():
    """Return a function of an architecture: its language model, which is built once."""
    built = {}

    def model(arch):
        if arch not in built:
            factory = AutoModelForCausalLM if arch in DECODERS else AutoModelForMaskedLM
            built[arch] = noisy(factory, ALL[arch][0])
        return built[arch]

    return model


def logits(model, batch=BATCH):
    with torch.inference_mode():
        return model(**batch).logits


def close(one, other):
    assert one.shape == other.shape
    assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def without(model, name, columns):
    """Return a copy whose map of that name in layer i ignores all inputs but columns[i]."""
    changed = copy.deepcopy(model)
    for layer, kept in zip(layer_stack(changed), columns, strict=True):
        module = layer.get_submodule(name)
        of_inputs = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T  # Conv1D is [in, out]
        removed = torch.ones(of_inputs.shape[1], dtype=torch.bool)
        removed[kept] = False
        with torch.no_grad():
            of_inputs[:, removed] = 0
    return changed


def heads_of_groups(model, groups):
    """Return the inputs of the output projection that groups of heads write."""
    width = getattr(model.config, "head_dim", None) or 8
    each = 1 if model.config.num_key_value_heads == 1 else 4 // model.config.num_key_value_heads  # query heads of one
    return [[g * each * width + i for g in kept for i in range(each * width)] for kept in groups]


@pytest.mark.parametrize("arch", ALL)
def test_without_feed_forward_units(arch, models):
    model = models(arch)
    size = sizes_of(model.config)["intermediate_size"]
    kept = [[1, 2, 5, size - 1], [0, 3, 4, size - 2]]
    pruned = prune_units(model, {"intermediate_size": kept})
    assert sizes_of(pruned.config) == sizes_of(model.config) | {"intermediate_size": 4}
    close(logits(pruned), logits(without(model, ALL[arch][1], kept)))


@pytest.mark.parametrize("arch", WITH_HEADS)
def test_without_heads(arch, models):
    model = models(arch)
    kept = [[1], [0]] if arch != "gemma-1-key-head" else [[0, 3], [1, 2]]
    pruned = prune_units(model, {"num_attention_heads": kept})
    assert pruned.config.num_attention_heads == 2
    assert pruned.config.num_key_value_heads == 1
    close(logits(pruned), logits(without(model, ALL[arch][2], heads_of_groups(model, kept))))


@pytest.mark.parametrize("arch", [a for a in ALL if a not in WITHOUT_HIDDEN])
def test_channels_and_heads_in_another_order_compute_the_same(arch, models):
    """All channels are kept, so only a wrong dimension of a weight could change the outputs."""
    model, generator = models(arch), torch.Generator().manual_seed(1)
    units = {"hidden_size": [torch.randperm(32, generator=generator).tolist()]}
    if arch not in WITH_HEADS:
        order = torch.randperm(4, generator=generator).tolist()
        units["num_attention_heads"] = [order, order]
    mixed = prune_units(model, units)
    changed = {k for k, w in mixed.state_dict().items() if not torch.equal(w, model.state_dict()[k])}
    assert len(changed) > len(mixed.state_dict()) // 2
    close(logits(mixed), logits(model))


@pytest.mark.parametrize("arch", [a for a in DECODERS if a in ("llama", "mistral", "qwen2", "qwen3", "phi3")])
def test_hidden_channels_of_models_with_rms_norms(arch, models):
    """With the removed channels at zero, a root of a mean over d channels is that over k, times the root of k/d."""
    model, kept = models(arch), [0, 3, 4, 6, 9, 11, 17, 18, 20, 21, 22, 25, 26, 28, 30, 31]
    reference = copy.deepcopy(model)
    removed = [i for i in range(32) if i not in kept]
    with torch.no_grad():
        reference.get_input_embeddings().weight[:, removed] = 0
        for name, parameter in reference.named_parameters():
            if re.search(r"(o_proj|down_proj)\.weight", name):
                parameter[removed] = 0
            elif "norm" in name and parameter.shape == (32,):
                parameter.mul_(math.sqrt(len(kept) / 32))
                parameter[removed] = 0
    for module in reference.modules():
        if hasattr(module, "variance_epsilon") and module.weight.shape == (32,):
            module.variance_epsilon *= len(kept) / 32
    close(logits(prune_units(model, {"hidden_size": [kept]})), logits(reference))


def test_hidden_channels_and_heads_of_bert_by_hand():
    model = noisy(AutoModel, BertConfig(**COMMON | {"num_hidden_layers": 1}))
    kept, heads = [2, 3, 5, 7, 8, 13, 19, 31, 1, 0, 10, 11, 12, 20, 21, 22], [1, 3]
    kept.sort()
    inner = [8 * h + i for h in heads for i in range(8)]
    pruned = prune_units(model, {"hidden_size": [kept], "num_attention_heads": [heads]})
    w, ids = model.state_dict(), BATCH["input_ids"][:1]

    def norm(x, name):
        return F.layer_norm(x, (16,), w[f"{name}.weight"][kept], w[f"{name}.bias"][kept], 1e-12)

    def linear(x, name, out, inputs):
        return x @ w[f"{name}.weight"][out][:, inputs].T + w[f"{name}.bias"][out]

    e, layer, units = "embeddings.", "encoder.layer.0.", list(range(48))
    table = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][:9]
    x = norm((table + w[e + "token_type_embeddings.weight"][0])[..., kept], e + "LayerNorm")
    q, k, v = (
        linear(x, f"{layer}attention.self.{part}", inner, kept).unflatten(-1, (2, 8)).transpose(1, 2)
        for part in ("query", "key", "value")
    )
    read = ((q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = norm(x + linear(read, layer + "attention.output.dense", kept, inner), layer + "attention.output.LayerNorm")
    up = F.gelu(linear(x, layer + "intermediate.dense", units, kept))
    x = norm(x + linear(up, layer + "output.dense", kept, units), layer + "output.LayerNorm")
    with torch.inference_mode():
        outputs = pruned(input_ids=ids)
    close(outputs.last_hidden_state, x)
    close(outputs.pooler_output, linear(x[:, 0], "pooler.dense", kept, kept).tanh())


@pytest.mark.parametrize("arch", ALL)
def test_all_units_are_the_model_bit_for_bit(arch, models):
    model = models(arch)
    sizes = sizes_of(model.config)
    heads = 2 if arch in WITH_HEADS and arch != "gemma-1-key-head" else 4
    units = {"intermediate_size": [list(range(sizes["intermediate_size"]))] * LAYERS}
    if arch not in WITHOUT_HIDDEN or arch in WITH_HEADS:
        units["num_attention_heads"] = [list(range(heads))] * LAYERS
    if arch not in WITHOUT_HIDDEN:
        units["hidden_size"] = [list(range(32))]
    assert torch.equal(logits(prune_units(model, units)), logits(model))
    assert torch.equal(logits(prune_width(model, **sizes)), logits(model))


@pytest.mark.parametrize("arch", ["bert", "electra", "gpt2", "llama", "qwen2", "phi3"])
def test_saved_models_load_and_have_the_shape_of_the_config(arch, models, tmp_path):
    model = models(arch)
    wanted = {"intermediate_size": 24, "hidden_size": 24}
    if arch in WITH_HEADS:
        wanted["num_attention_heads"] = 2
    pruned = prune_width(model, **wanted)
    config = narrow_config(model.config, **wanted)
    assert shapes_of(config, type(model)) == {k: tuple(v.shape) for k, v in pruned.state_dict().items()}
    assert sizes_of(config) == {"num_attention_heads": 3} | wanted
    save_model(pruned, tmp_path)
    assert torch.equal(logits(type(model).from_pretrained(tmp_path)), logits(pruned))
    with torch.inference_mode():
        states = AutoModel.from_pretrained(tmp_path)(**BATCH).last_hidden_state
    assert states.shape == (3, 9, 24)


@pytest.mark.parametrize("arch", ["bert", "distilbert", "electra", "deberta-v2", "gpt2", "llama"])
def test_classifiers(arch):
    model = tiny_model(arch, LAYERS)
    pruned = prune_width(model, intermediate_size=20, hidden_size=24)
    assert logits(pruned).shape == (3, 3)
    assert pruned.config.id2label == model.config.id2label


def test_dtype_mode_and_generation_are_kept():
    model = noisy(AutoModelForCausalLM, tiny_config("llama", LAYERS)).to(torch.bfloat16).train()
    model.generation_config.max_new_tokens = 7
    pruned = prune_width(model, num_attention_heads=2, intermediate_size=8)
    assert (pruned.dtype, pruned.training, pruned.generation_config.max_new_tokens) == (torch.bfloat16, True, 7)


# which units


def test_units_of_small_weights_are_removed_first():
    model = tiny_model("llama", LAYERS)
    with torch.no_grad():
        for layer in layer_stack(model):
            for name in ("gate_proj", "up_proj"):
                layer.mlp.get_submodule(name).weight[5] = 0
            layer.mlp.down_proj.weight[:, 5] = 0
            layer.self_attn.o_proj.weight[:, :16] = 0  # the first group of heads
    units = choose_units(
        model,
        {"intermediate_size": 63, "num_attention_heads": 2},
        magnitudes(model, ("intermediate_size", "num_attention_heads")),
    )
    assert units == {
        "intermediate_size": [[i for i in range(64) if i != 5]] * LAYERS,
        "num_attention_heads": [[1]] * LAYERS,
    }


def test_heads_that_share_a_table_are_the_same_in_all_layers(models):
    model = models("mpnet")
    scores = {
        "hidden_size": torch.arange(32.0)[None],
        "num_attention_heads": torch.tensor([[4.0, 3, 2, 1], [1, 2, 30, 7]]),
    }
    units = choose_units(model, {"hidden_size": 16, "num_attention_heads": 2}, scores)
    assert units["num_attention_heads"] == [[0, 2], [0, 2]]  # by the sum of shares, not of scores
    assert units["hidden_size"] == [list(range(16, 32))]


# what is refused


def test_options():
    assert {k: list(v)[-2:] for k, v in width_options(tiny_config("bert")).items()} == {
        "intermediate_size": [63, 64],
        "hidden_size": [24, 32],
    }
    assert list(width_options(tiny_config("llama"))["num_attention_heads"]) == [2, 4]
    assert "hidden_size" not in width_options(BloomConfig(vocab_size=100, hidden_size=32, n_layer=1, n_head=4))


@pytest.mark.parametrize(
    ("arch", "sizes", "message"),
    [
        ("bert", {"num_attention_heads": 2}, "2 heads need --hidden-size 16, and --hidden-size 32 needs 4"),
        ("bert", {"hidden_size": 20}, "its heads are 8 wide: give 16 or 24"),
        ("gpt2", {"hidden_size": 24, "num_attention_heads": 2}, "--hidden-size 24 needs 3 heads"),
        ("bert", {"hidden_size": 40}, "--hidden-size 40 was given; the model has 32: give 1 to 32"),
        ("llama", {"num_attention_heads": 3}, "serves 2 query heads, which stay together: give 2 or 4"),
        ("llama", {"hidden_size": 18}, "of 4 heads needs a multiple of 4: give 16 or 20"),
        ("llama", {"intermediate_size": 0}, "give 1 to 64"),
    ],
)
def test_sizes_that_an_architecture_cannot_have(arch, sizes, message):
    with pytest.raises(ModelError, match=message):
        narrow_config(tiny_config(arch), **sizes)


def test_architectures_that_compute_otherwise_are_refused(models):
    with pytest.raises(ModelError, match="would change by"):  # scales embeddings by the root of the hidden size
        prune_width(models("gemma3"), hidden_size=16)
    olmo = noisy(AutoModelForCausalLM, Olmo2Config(**COMMON))
    with pytest.raises(ModelError, match="would change by"):  # its norms of queries and keys are over all heads
        prune_width(olmo, num_attention_heads=2)
    mixtral = noisy(AutoModelForCausalLM, MixtralConfig(**GQA, num_local_experts=2))
    with pytest.raises(ModelError, match="which of them belong together is not known"):
        prune_width(mixtral, intermediate_size=24)
    bloom = AutoModelForSequenceClassification.from_config(
        BloomConfig(vocab_size=100, hidden_size=32, n_layer=1, n_head=4)
    )
    with pytest.raises(ModelError, match="other sizes follow from it"):
        prune_width(bloom, hidden_size=16)
    with pytest.raises(ModelError, match="has no such size"):
        prune_width(bloom, intermediate_size=16)
