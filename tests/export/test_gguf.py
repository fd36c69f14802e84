"""GGUF: transformers reads the same model from a file; what llama.cpp would compute otherwise is refused.

benchmarks/gguf_llama_cpp.py compares the files with llama.cpp itself.
"""

import json
import shutil
import sys

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from demiglace import evaluate, export, truncate
from demiglace.errors import ConfigError, ModelError, UserError
from demiglace.export.gguf import GgufExporter, pre_tokenizer_name
from demiglace.models.gguf import read_gguf, read_gguf_tokenizer
from demiglace.report.runs.load import collect
from demiglace.report.runs.tables import artefact_table
from demiglace.runs.directory import read_manifest
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from text_kit import END, byte_tokenizer, save_lm, sentences, write_jsonl

_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
_SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 48}
_ROPE = {"rope_type": "default", "rope_theta": 5000.0}
SPECS = {
    "llama": _SIZES | {"rope_parameters": _ROPE, "rms_norm_eps": 1e-5},
    "llama-linear": _SIZES | {"rope_parameters": _ROPE | {"rope_type": "linear", "factor": 2.0}},
    "mistral": _SIZES | {"tie_word_embeddings": True, "sliding_window": None},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 48},
    "qwen2": _SIZES,
    "qwen3": _SIZES | {"head_dim": 32},
    "gemma3_text": _SIZES | {"num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16},
}


@pytest.fixture(scope="module")
def tokenizer():
    core = byte_tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sentences(20), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END)


def model_of(name: str, vocabulary: int, **others):
    """A model whose parameters, norms included, all differ from their usual start."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.partition("-")[0], vocab_size=vocabulary, **SPECS[name] | others)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def logits(model, ids):
    with torch.inference_mode():
        return model(ids).logits.numpy()


@pytest.mark.parametrize("name", SPECS)
def test_a_file_holds_the_same_model(name, tokenizer, tmp_path):
    model, ids = model_of(name, len(tokenizer)), torch.arange(40)[None] + 5
    made = GgufExporter().write(model, tokenizer, LANGUAGE_MODELLING, tmp_path, "fp32")
    read = read_gguf(tmp_path / "model-F32.gguf")
    assert (made.format, made.precision, made.size) == ("gguf", "fp32", (tmp_path / "model-F32.gguf").stat().st_size)
    np.testing.assert_allclose(logits(read, ids), logits(model, ids), atol=2e-5)
    assert (
        read.num_parameters() == model.num_parameters()
        and read.config.tie_word_embeddings == model.config.tie_word_embeddings
    )


def test_precisions_cost_size_and_logits(tokenizer, tmp_path):
    model, ids = model_of("llama", len(tokenizer)), torch.arange(40)[None] + 5
    made = {p: GgufExporter().write(model, tokenizer, LANGUAGE_MODELLING, tmp_path, p) for p in GgufExporter.precisions}
    batch, expected = {"input_ids": ids.numpy()}, logits(model, ids)
    errors = {p: np.abs(artefact.open().logits(batch) - expected).mean() for p, artefact in made.items()}
    assert errors["fp32"] < errors["fp16"] < errors["q8_0"] < errors["q5_1"] < errors["q4_1"]
    assert errors["q5_0"] < errors["q4_0"] and errors["fp16"] < errors["bf16"] < errors["q8_0"]
    sizes = [made[p].size for p in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "fp16", "fp32")]
    assert sizes == sorted(sizes)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model-Q4_0.gguf").tensors}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0" and kinds["output_norm.weight"] == "F32"
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.1.ffn_down.weight"] == "Q4_0"


def test_rows_that_do_not_fill_a_block_stay_in_fp16(tokenizer, tmp_path):
    model = model_of("llama", len(tokenizer), intermediate_size=50)
    GgufExporter().write(model, tokenizer, LANGUAGE_MODELLING, tmp_path, "q8_0")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model-Q8_0.gguf").tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_the_tokenizer_is_in_the_file(tokenizer, tmp_path):
    GgufExporter().write(model_of("gpt2", len(tokenizer) + 3), tokenizer, LANGUAGE_MODELLING, tmp_path)
    reader = gguf.GGUFReader(tmp_path / "model-F16.gguf")
    values = {key: field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.ggml.")}
    assert (values["tokenizer.ggml.model"], values["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert not values["tokenizer.ggml.add_bos_token"]
    assert values["tokenizer.ggml.tokens"][-3:] == [f"[PAD{len(tokenizer) + i}]" for i in range(3)]
    again = read_gguf_tokenizer(tmp_path / "model-F16.gguf")
    for text in ("the café isn't open", "  two  spaces\n", "x=1234"):
        assert again(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "gpt-2"),
        ({"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, None),
        (
            {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}],
            },
            "smollm",
        ),
        (
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": r"\w+"}},
                    {"type": "ByteLevel", "use_regex": False},
                ],
            },
            None,
        ),
        (None, None),
    ],
)
def test_the_way_of_splitting_words_has_a_name_or_none(steps, name):
    assert pre_tokenizer_name({"pre_tokenizer": steps}) == name


def test_names_of_qwen_2_and_llama_3():
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    def split(pattern):
        parts = [{"type": "Split", "pattern": {"Regex": pattern}}, {"type": "ByteLevel", "use_regex": False}]
        return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}

    assert pre_tokenizer_name(split(PRETOKENIZE_REGEX)) == "qwen2"
    assert pre_tokenizer_name(split(PRETOKENIZE_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))) == "llama-bpe"


@pytest.mark.parametrize(
    ("name", "others", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gemma3_text", {"query_pre_attn_scalar": 256}, "scales attention by 256"),
        (
            "gemma3_text",
            {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
            "every sixth",
        ),
        ("llama", {"rope_parameters": _ROPE | {"rope_type": "dynamic", "factor": 2.0}}, "scaled by 'dynamic'"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(name, others, message, tokenizer, tmp_path):
    with pytest.raises(ModelError, match=message):
        GgufExporter().write(model_of(name, len(tokenizer), **others), tokenizer, LANGUAGE_MODELLING, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_without_merges_is_refused(tmp_path):
    with pytest.raises(ModelError, match="has no merges"):
        GgufExporter().write(model_of("gpt2", 257), byte_tokenizer(), LANGUAGE_MODELLING, tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    home = tmp_path_factory.mktemp("gguf")
    model_of("llama", len(tokenizer), num_hidden_layers=4).save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    run = export(str(home / "model"), output=home / "out", to="gguf", quantize="q8_0", rows=8, repeats=20)
    return home, run


def test_the_command_compares_every_file_with_the_model(exported):
    _, run = exported
    found = {a["name"]: a for a in read_manifest(run)["artefacts"]}
    assert list(found) == ["PyTorch", "GGUF fp16", "GGUF q8_0"]
    assert found["GGUF fp16"]["label_agreement"] > 0.99 and found["GGUF fp16"]["kl_divergence"] < 1e-5
    assert found["GGUF fp16"]["kl_divergence"] < found["GGUF q8_0"]["kl_divergence"] < 0.1
    assert found["GGUF q8_0"]["bytes"] < found["GGUF fp16"]["bytes"] < found["PyTorch"]["bytes"]
    assert "nats per token" in run.summary() and "model-Q8_0.gguf" in (run / "README.md").read_text()


def test_decoding_is_timed_where_a_program_is_found(exported):
    _, run = exported
    manifest = read_manifest(run)
    assert (manifest["prompt_tokens"], manifest["new_tokens"], manifest["threads"]) == (24, 24, 1)
    plain, file = manifest["artefacts"][:2]
    assert min(plain["tokens_per_second"].values()) > 0 and plain["peak_memory_mb"] > 100
    assert (file["tokens_per_second"] is None) == (shutil.which("llama-bench") is None)
    card = (run / "README.md").read_text()
    assert "| Decode, tokens/s |" in card and "a prompt of 24 tokens, 24 new ones" in card
    table = artefact_table(collect([run]).artefacts)
    assert {"Prefill, tokens/s", "Decode, tokens/s", "Same next token as PyTorch"} <= {c.title for c in table.columns}


def test_an_exported_file_is_evaluated(exported, monkeypatch):
    home, run = exported
    monkeypatch.setattr("demiglace.models.gguf.HF_HOME", str(home / "cache"))
    text = write_jsonl(home / "text.jsonl", sentences(20))
    full, small, plain = (
        evaluate(str(model), corpus=(str(text),)).metrics[str(text)]["loss"]
        for model in (run, run / "model-Q8_0.gguf", home / "model")
    )
    assert full == pytest.approx(plain, abs=1e-3) and 0 < abs(small - plain) < 0.05
    assert len(list((home / "cache" / "demiglace" / "gguf").iterdir())) == 2


def test_a_gguf_file_is_a_model_to_start_from(exported, monkeypatch):
    home, run = exported
    monkeypatch.setattr("demiglace.models.gguf.HF_HOME", str(home / "cache"))
    cut = truncate(str(run / "model-F16.gguf"), layers=2, output=home / "cut")
    model = AutoModelForCausalLM.from_pretrained(cut)
    assert model.config.num_hidden_layers == 2 and "quantization_config" not in json.loads(
        (cut / "config.json").read_text()
    )
    assert AutoTokenizer.from_pretrained(cut)("a b").input_ids


def test_a_trimmed_vocabulary_writes_the_same_text(exported, tmp_path):
    home, _ = exported
    text = write_jsonl(tmp_path / "text.jsonl", ["the cat sat on the mat"] * 3)
    options = {"vocabulary": "trim", "vocabulary_corpus": [str(text)]}
    small = truncate(str(home / "model"), output=tmp_path / "small", **options)
    kept = read_manifest(small)["vocabulary"]["kept"]
    assert 257 < kept < len(AutoTokenizer.from_pretrained(home / "model"))  # all bytes, and some merges
    out = export(str(small), output=tmp_path / "out", to="gguf", rows=8)
    file = out / "model-F16.gguf"
    tokenizer, again = AutoTokenizer.from_pretrained(small), read_gguf_tokenizer(file)
    for line in ("the cat sat on the mat", "a dog, naïve", "x=1234"):
        assert again(line).input_ids == tokenizer(line).input_ids
        assert again.decode(again(line).input_ids) == line
    ids = torch.tensor([tokenizer("the cat").input_ids])
    written, models = [], (AutoModelForCausalLM.from_pretrained(small), read_gguf(file))
    for model in models:
        made = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)
        written.append(tokenizer.decode(made[0]))
    assert written[0] == written[1] and len(written[0]) > 20
    np.testing.assert_allclose(*(logits(model, ids) for model in models), atol=5e-2)


def test_refusals(exported, tmp_path, monkeypatch):
    home, _ = exported
    save_lm(tmp_path / "masked", "bert")
    with pytest.raises(ModelError, match="is a masked language model"):
        export(str(tmp_path / "masked"), output=tmp_path / "o", to="gguf")
    with pytest.raises(ConfigError, match="--quantize was given 'int8', and export to GGUF writes fp16, "):
        export(str(home / "model"), output=tmp_path / "o", to="gguf", quantize="int8")
    (tmp_path / "x.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match="could not be read as a GGUF model"):
        truncate(str(tmp_path / "x.gguf"), layers=1, output=tmp_path / "o")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'gguf>="):
        export(str(home / "model"), output=tmp_path / "o", to="gguf")
    assert not (tmp_path / "o").exists()
