"""ONNX of decoders: the graph with its KV cache continues texts as PyTorch does, and other runtimes load the layout."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from demiglace import evaluate, export
from demiglace.errors import ConfigError, ModelError, UserError
from demiglace.export.base import Artefact, exporter_for
from demiglace.export.decoding import Load, generate_greedily
from demiglace.export.measure import measure_decoding, peak_memory
from demiglace.export.onnx_decoder import OnnxDecoder, OnnxDecoderExporter, export_decoder
from demiglace.export.parity import Continuations, assert_continuations, compare_continuations
from demiglace.export.pytorch import TorchDecoder
from demiglace.runs.directory import read_manifest
from text_kit import byte_tokenizer, save_lm, sentences, write_jsonl

SCRIPTS = Path(__file__).parent / "js"
_SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "num_key_value_heads": 2}
SPECS = {
    "llama": _SIZES | {"num_hidden_layers": 2, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 48},
    "qwen3": _SIZES | {"num_hidden_layers": 1, "head_dim": 32},
    "gemma3_text": _SIZES
    | {
        "num_hidden_layers": 2,
        "head_dim": 32,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def model_of(name: str, vocabulary: int):
    """A model whose parameters, norms included, all differ from their usual start."""
    torch.manual_seed(0)
    limit = {} if name == "gpt2" else {"max_position_embeddings": 48}
    config = AutoConfig.for_model(name, vocab_size=vocabulary, **SPECS[name] | limit)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def prompts_of(count: int, vocabulary: int):
    generator = np.random.default_rng(0)
    return [generator.integers(0, vocabulary, generator.integers(1, 16)).tolist() for _ in range(count)]


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma3_text"])
def test_the_cache_of_a_graph_continues_as_pytorch(name, tmp_path):
    model = model_of(name, 90)
    decoder = OnnxDecoder(str(export_decoder(model, tmp_path / "model.onnx")))
    reference = TorchDecoder(model)
    for prompt in prompts_of(10, 90):  # 13 to 28 tokens in all: more than the sliding window
        assert generate_greedily(decoder, prompt, 12) == generate_greedily(reference, prompt, 12)
    ids = torch.tensor([[5, 9, 80, 3], [7, 7, 1, 60]])
    with torch.inference_mode():
        expected = model(ids).logits.numpy()
    np.testing.assert_allclose(decoder.logits({"input_ids": ids.numpy()}), expected, atol=2e-5)
    assert model.config._attn_implementation == "sdpa"  # as before the export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    home = tmp_path_factory.mktemp("decoder")
    tokenizer = byte_tokenizer(home / "model")
    model_of("llama", len(tokenizer)).save_pretrained(home / "model")
    run = export(str(home / "model"), output=home / "out", quantize=("int8", "int4"), rows=20, repeats=1)
    return home, run


def test_the_command_writes_checks_and_times_every_file(exported):
    _, run = exported
    found = {a["name"]: a for a in read_manifest(run)["artefacts"]}
    assert list(found) == ["PyTorch", "ONNX fp32", "ONNX int8", "ONNX int4"]
    full, near, small = found["ONNX fp32"], found["ONNX int8"], found["ONNX int4"]
    assert full["files"] == ["onnx/model.onnx"] and small["files"] == ["onnx/model_q4.onnx"]
    assert near["files"] == ["onnx/model_quantized.onnx"] and near["label_agreement"] > 0.98
    assert full["continuations"] == {"same": 20, "count": 20, "new_tokens": 16} and full["kl_divergence"] < 1e-6
    assert full["kl_divergence"] < near["kl_divergence"] < small["kl_divergence"] / 10 < 0.1
    assert small["bytes"] < near["bytes"] < full["bytes"]
    assert all(min(a["tokens_per_second"].values()) > 0 and a["peak_memory_mb"] > 50 for a in found.values())
    assert "20 of 20" in run.summary() and "onnxruntime_genai" in (run / "README.md").read_text()


@pytest.mark.usefixtures("fresh_processes")
def test_a_file_is_measured_without_pytorch(exported):
    file = exported[1] / "onnx" / "model.onnx"
    found = measure_decoding(
        Artefact("onnx-decoder", "fp32", str(file), (file,)), Load((5, 6, 7), new_tokens=3, rounds=1)
    )
    assert min(found.speed.prefill, found.speed.decode) > 0
    assert 20 < found.peak_memory_mb < 0.6 * peak_memory()  # this process holds PyTorch


def test_the_layout_is_that_of_other_runtimes(exported):
    _, run = exported
    session = OnnxDecoder(str(run / "onnx" / "model.onnx"))._session
    states = [f"{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    names = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{s}" for s in states)]
    assert [i.name for i in session.get_inputs()] == names
    assert [o.name for o in session.get_outputs()] == ["logits", *(f"present.{s}" for s in states)]
    assert session.get_inputs()[3].shape == ["batch_size", 2, "past_sequence_length", 16]


def test_rows_padded_at_the_left_give_the_same_logits(exported):
    _, run = exported
    decoder = OnnxDecoder(str(run / "onnx" / "model.onnx"))
    alone = decoder.logits({"input_ids": np.array([[9, 4, 30]])})[0, -1]
    given = {
        "input_ids": np.array([[1, 1, 9, 4, 30], [8, 7, 6, 5, 4]]),
        "attention_mask": np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
        "position_ids": np.array([[1, 1, 0, 1, 2], [0, 1, 2, 3, 4]]),
    }
    logits = decoder._session.run(["logits"], given | decoder._empty(2))[0]
    np.testing.assert_allclose(logits[0, -1], alone, atol=2e-5)


def test_one_table_serves_embedding_and_head_in_fp32(exported):
    _, run = exported
    onnx = pytest.importorskip("onnx")
    rows = len(byte_tokenizer())
    tables = [w for w in onnx.load(run / "onnx" / "model.onnx").graph.initializer if rows in w.dims]
    assert [list(w.dims) for w in tables] == [[rows, 64]]
    for file in ("model_quantized.onnx", "model_q4.onnx"):
        weights = onnx.load(run / "onnx" / file).graph.initializer
        shared = [list(w.dims) for w in weights if rows in w.dims and np.prod(w.dims) >= rows * 32]
        assert shared == [[rows, 2, 32]]  # of 8 bits: neither use is in fp32, and there is no second table


def test_tables_of_4_bits_are_a_choice(exported, tmp_path):
    home, run = exported
    full = Artefact("onnx-decoder", "fp32", str(run / "onnx" / "model.onnx"), ())
    made = exporter_for("onnx", embedding_bits=4, language_model=True).write(
        AutoModelForCausalLM.from_pretrained(home / "model"), byte_tokenizer(), None, tmp_path, "int4", full
    )
    assert made.settings["embedding_bits"] == 4
    ids = np.arange(20)[None] + 5
    expected, usual, found = (
        OnnxDecoder(str(file)).logits({"input_ids": ids})
        for file in (full.path, run / "onnx" / "model_q4.onnx", made.path)
    )
    assert 0 < np.abs(usual - expected).mean() < np.abs(found - expected).mean() < 0.2 * np.abs(expected).max()


def test_an_exported_file_is_evaluated(exported):
    home, run = exported
    text = write_jsonl(home / "text.jsonl", sentences(6))
    lambada = write_jsonl(home / "lambada.jsonl", ["the cat sat", "a dog ran on"])
    full, small, plain = (
        evaluate(str(model), corpus=(str(text),), lambada=str(lambada)).metrics
        for model in (run, run / "onnx" / "model_q4.onnx", home / "model")
    )
    for name, metric in ((str(text), "loss"), (str(lambada), "perplexity")):
        assert full[name][metric] == pytest.approx(plain[name][metric], rel=1e-4)
        assert small[name][metric] != pytest.approx(plain[name][metric], rel=1e-4)


def test_onnxruntime_genai_runs_the_directory(exported):
    genai = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    home, run = exported
    model, reference = genai.Model(str(run)), TorchDecoder(AutoModelForCausalLM.from_pretrained(home / "model"))
    for prompt in prompts_of(20, 200):
        params = genai.GeneratorParams(model)
        params.set_search_options(max_length=len(prompt) + 8)
        generator = genai.Generator(model, params)
        generator.append_tokens(prompt)
        made = []
        while not generator.is_done():
            generator.generate_next_token()
            made.append(int(generator.get_next_tokens()[0]))
        assert made == generate_greedily(reference, prompt, 8)[: len(made)] and made


@pytest.mark.skipif(not (SCRIPTS / "node_modules").is_dir(), reason="no JavaScript packages here; see `make js`")
@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
def test_transformers_js_continues_as_python(exported):
    _, run = exported
    prompts, files = prompts_of(8, 200), {"fp32": "model.onnx", "q8": "model_quantized.onnx", "q4": "model_q4.onnx"}
    words = ["node", str(SCRIPTS / "generate.mjs"), str(run), "8", *files]
    done = subprocess.run(words, input=json.dumps(prompts), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for dtype, continuations in json.loads(done.stdout).items():
        decoder = OnnxDecoder(str(run / "onnx" / files[dtype]))
        expected = [generate_greedily(decoder, prompt, 8) for prompt in prompts]
        same = [made and made == full[: len(made)] for made, full in zip(continuations, expected, strict=True)]
        assert sum(map(bool, same)) >= (8 if dtype == "fp32" else 6)  # other kernels round int8 activations otherwise


def test_refusals(exported, tmp_path):
    home, _ = exported
    save_lm(tmp_path / "masked", "bert")
    with pytest.raises(ModelError, match="is a masked language model"):
        export(str(tmp_path / "masked"), output=tmp_path / "o")
    with pytest.raises(
        ConfigError, match="--quantize was given 'fp16', and export to ONNX writes fp32, int8, int4 only"
    ):
        export(str(home / "model"), output=tmp_path / "o", quantize=("fp16",))
    with pytest.raises(ConfigError, match="--reduce-range true is about int8 files of classifiers"):
        export(str(home / "model"), output=tmp_path / "o", reduce_range="true")
    mamba = AutoConfig.for_model("mamba", vocab_size=30, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="its cache has other states than keys and values"):
        export_decoder(AutoModelForCausalLM.from_config(mamba).eval(), tmp_path / "model.onnx")
    assert not (tmp_path / "o").exists() and not (tmp_path / "model.onnx").exists()


def test_an_exporter_for_decoders_takes_no_classifier():
    from demiglace.tasks.registry import task_kind

    assert OnnxDecoderExporter().unsupported(task_kind("classification"))


def test_too_few_equal_continuations_are_an_error():
    found = compare_continuations([[1, 2], [3, 4]], [[1, 2], [3, 5]])
    assert found == Continuations(1, 2, 2)
    with pytest.raises(UserError, match="of 2 texts that both continue by 2 tokens, 1 are the same"):
        assert_continuations(found, "model.onnx")
    assert_continuations(Continuations(19, 20, 16), "model.onnx")
