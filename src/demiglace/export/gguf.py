"""Write a decoder as one GGUF file for llama.cpp, in fp16 or quantised, and read it with transformers.

The file holds weights, sizes and the tokenizer. Names of tensors and quantisation are those of the package `gguf` by
llama.cpp's authors. The runner computes in PyTorch with the weights that the file holds: llama.cpp rounds
activations to 8 bits as well, so its logits differ a little more.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from demiglace.errors import ModelError, RunError
from demiglace.export import llama_cpp
from demiglace.export.base import Artefact, Exporter, Inputs, Runner
from demiglace.export.decoding import Load, Speed
from demiglace.runs.files import atomic_write

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

# precision -> what llama.cpp calls it, for the matrices; vectors stay in fp32
_PRECISIONS = {
    "fp16": "F16",
    "fp32": "F32",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q5_1": "Q5_1",
    "q5_0": "Q5_0",
    "q4_1": "Q4_1",
    "q4_0": "Q4_0",
}
_TABLES = ("token_embd.weight", "output.weight")  # no coarser than 8 bits: rounding them costs most
# model type of transformers -> architecture of llama.cpp
_ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "gpt2": "gpt2",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
}


class GgufExporter(Exporter):
    """Write model-F16.gguf, model-Q8_0.gguf, …"""

    name = "gguf"
    title = "GGUF"
    for_transformers = True
    precisions = tuple(_PRECISIONS)
    packages = ("gguf",)
    install = "gguf"

    def unsupported(self, task: "Task") -> str | None:
        """Return why models of this kind of problem cannot be written; None for causal language models."""
        if task.unit == "token" and task.reads == "corpus":
            return None
        return "GGUF is for language models that generate text; use --to onnx."

    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp16",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write a GGUF file.

        Raises `ModelError` for an architecture or a tokenizer that llama.cpp would run differently or not at all.
        """
        import gguf

        kind = _PRECISIONS[precision]
        architecture = architecture_of(model.config)
        path = directory / f"model-{kind}.gguf"
        try:
            with atomic_write(path) as draft:
                writer = gguf.GGUFWriter(draft, architecture)
                writer.add_type("model")
                writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"))
                writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
                _add_sizes(writer, model.config)
                _add_tokenizer(writer, tokenizer, _rows_of_table(model))
                for name, array in tensors(model, architecture):
                    _add_tensor(writer, name, array, kind)
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
                writer.close()
        except OSError as error:
            raise RunError(f"{path} could not be written: {error.strerror or error}; make room there.") from error
        return Artefact(self.name, precision, str(path), (path,), {"architecture": architecture})

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner in PyTorch, in fp32, with the weights of the file; sets the threads of the process."""
        import torch

        from demiglace.models.gguf import read_gguf

        torch.set_num_threads(threads)
        return GgufRunner(read_gguf(Path(artefact.path)))

    def time_decoding(self, artefact: Artefact, load: Load) -> Speed:
        """Time the file in llama.cpp."""
        return llama_cpp.time_file(artefact.path, load)

    def cannot_time(self) -> str | None:
        """Return a sentence if llama.cpp is not installed."""
        return llama_cpp.missing_program()


class GgufRunner:
    """Runs the weights of a GGUF file in PyTorch."""

    def __init__(self, model: "PreTrainedModel"):
        self._model = model.eval()

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of each token, float32 [B, L, V]."""
        import torch

        with torch.inference_mode():
            return self._model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def architecture_of(config: "PreTrainedConfig") -> str:
    """Return llama.cpp's name for a model's architecture. Raises `ModelError` for one that it would run otherwise."""
    if config.model_type not in _ARCHITECTURES:
        raise ModelError(
            f"a model of type {config.model_type} cannot be exported to GGUF yet; supported are "
            f"{', '.join(_ARCHITECTURES)}. For classifiers use --to onnx."
        )
    _check_gemma(config)
    for option in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "mlp_bias"):
        if getattr(config, option, False):
            raise ModelError(f"the model's config has {option}: true, which llama.cpp does not compute.")
    scaling = _rope(config)
    if scaling.get("rope_type", "default") not in ("default", "linear"):
        raise ModelError(
            f"the model's positions are scaled by {scaling['rope_type']!r}, which export to GGUF does not write yet."
        )
    return _ARCHITECTURES[config.model_type]


def _check_gemma(config: "PreTrainedConfig") -> None:
    """Raise `ModelError` for a Gemma 3 with values of attention other than those that llama.cpp has built in."""
    c: Any = config
    if not c.model_type.startswith("gemma3"):
        return
    if c.query_pre_attn_scalar != c.head_dim:
        raise ModelError(
            f"the model scales attention by {c.query_pre_attn_scalar} (query_pre_attn_scalar), and llama.cpp by the "
            f"width of a head, {c.head_dim}."
        )
    usual = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(c.num_hidden_layers)]
    if list(c.layer_types) != usual and c.sliding_window < c.max_position_embeddings:
        raise ModelError(
            "the model's layers with sliding and with full attention are not in the order that llama.cpp has built in "
            "for Gemma 3 (every sixth is full); keep layers in that order when you truncate it."
        )


def _rope(config: "PreTrainedConfig") -> Mapping[str, Any]:
    """Return the parameters of the rotary positions; of Gemma 3, of its layers with full attention."""
    found = getattr(config, "rope_parameters", None) or {}
    return found.get("full_attention", found)


def _rows_of_table(model: "PreTrainedModel") -> int:
    table: Any = model.get_input_embeddings()
    return len(table.weight)


def _add_sizes(writer: "GGUFWriter", config: "PreTrainedConfig") -> None:
    """Add the sizes, in the fields that llama.cpp reads for the architecture."""
    c: Any = config
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(
        getattr(c, "intermediate_size", None) or getattr(c, "n_inner", None) or 4 * c.hidden_size
    )
    writer.add_head_count(c.num_attention_heads)
    writer.add_vocab_size(c.vocab_size)
    if c.model_type == "gpt2":
        writer.add_layer_norm_eps(c.layer_norm_epsilon)
        return
    writer.add_head_count_kv(getattr(c, "num_key_value_heads", None) or c.num_attention_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    rope = _rope(c)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    if rope.get("rope_type") == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if window := getattr(c, "sliding_window", None):
        writer.add_sliding_window(window)


def tensors(model: "PreTrainedModel", architecture: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name in GGUF and the values in fp32 of each parameter, in the layout that llama.cpp expects."""
    import gguf

    config: Any = model.config
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, parameter in model.state_dict().items():
        if name.endswith((".attn.bias", ".attn.masked_bias")) or (tied and name == "lm_head.weight"):
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"the parameter {name} has no name in GGUF's {architecture} architecture.")
        yield found, _laid_out(parameter.float().numpy(), name, found, config)


def _laid_out(array: np.ndarray, name: str, found: str, config: Any) -> np.ndarray:
    if config.model_type == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return array.T  # GPT-2 stores [in, out]
    if config.model_type in ("llama", "mistral") and ".attn_q." in found:
        return _interleaved(array, config.num_attention_heads)
    if config.model_type in ("llama", "mistral") and ".attn_k." in found:
        return _interleaved(array, config.num_key_value_heads)
    if config.model_type.startswith("gemma") and found.endswith("norm.weight"):
        return array + 1  # Gemma multiplies by 1 + weight
    return array


def _interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Return rows of queries or keys in the order of llama.cpp, where the halves of a rotary pair are neighbours."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _add_tensor(writer: "GGUFWriter", name: str, array: np.ndarray, kind: str) -> None:
    """Add a tensor: vectors and position tables in fp32, matrices in this kind where their rows fill its blocks."""
    import gguf

    types = gguf.GGMLQuantizationType
    target = types[kind]
    if array.ndim < 2 or name.startswith("position_embd"):
        target = types.F32
    elif name in _TABLES and kind.startswith(("Q4", "Q5")):
        target = types.Q8_0
    if array.shape[-1] % gguf.GGML_QUANT_SIZES[target][0]:
        target = types.F16  # as llama.cpp does
    writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), target), raw_dtype=target)


# -- the tokenizer

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def pre_tokenizer_name(core: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name for how a byte-level tokenizer splits text into words, None for an unknown way.

    core: tokenizer.json.
    """
    steps = core.get("pre_tokenizer") or {}
    parts = steps.get("pretokenizers", [steps])
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        pattern = parts[0].get("pattern", {}).get("Regex")
        return {_QWEN2: "qwen2", _LLAMA3: "llama-bpe"}.get(pattern)
    return None


def _add_tokenizer(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase", rows: int) -> None:
    """Add the vocabulary, merges, special tokens and chat template. rows: of the model's embedding table."""
    import json

    import gguf

    if not tokenizer.is_fast:
        raise ModelError("the tokenizer has no tokenizer.json, which export to GGUF reads; save a fast tokenizer.")
    core = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined] # of fast tokenizers
    if core["model"]["type"] != "BPE":
        raise ModelError(
            f"the tokenizer is of type {core['model']['type']}, and export to GGUF writes byte-pair encodings only."
        )
    if not core["model"].get("merges"):
        raise ModelError("the tokenizer has no merges; llama.cpp needs at least one for a byte-pair encoding.")
    tokens, kinds = _vocabulary(core, rows)
    if core["model"].get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(_prepends_space(core))
        # SentencePiece merges by score: llama.cpp needs one for each token, and their order is that of the merges
        writer.add_token_scores([-float(i) for i in range(rows)])
    else:
        name = pre_tokenizer_name(core)
        if name is None:
            raise ModelError(
                "the tokenizer splits text into words in a way that has no name in llama.cpp that is known here, and "
                "under another name it would give other tokens. Known are those of GPT-2, SmolLM, Qwen 2 and Llama 3."
            )
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # of fields that llama.cpp does not have
        try:
            special = gguf.SpecialVocab(folder, load_merges=not core["model"].get("byte_fallback"), n_vocab=rows)
            for role in ("bos", "eos", "unk", "pad"):
                if (found := getattr(tokenizer, f"{role}_token_id")) is not None:
                    special.special_token_ids[role] = found
            ids = tokenizer("a").input_ids
            special.add_special_token = {
                "bos": bool(ids) and ids[0] == tokenizer.bos_token_id,
                "eos": bool(ids) and ids[-1] == tokenizer.eos_token_id,
            }
            special.add_to_gguf(writer, quiet=True)
        finally:
            logging.disable(disabled)


def _prepends_space(core: Mapping[str, Any]) -> bool:
    """Return whether a SentencePiece tokenizer puts a space in front of the text."""
    found = _types_of(core.get("normalizer")) | _types_of(core.get("pre_tokenizer"))
    scheme = (core.get("pre_tokenizer") or {}).get("prepend_scheme")
    return "Prepend" in found or scheme in ("always", "first")


def _types_of(step: Mapping[str, Any] | None) -> set[str]:
    """Return the types of a step of tokenizer.json and of the steps in it."""
    if not step:
        return set()
    inner = step.get("normalizers") or step.get("pretokenizers") or ()
    return {str(step.get("type"))}.union(*map(_types_of, inner))


def _vocabulary(core: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return the token of each id and its kind; ids of the table that no token has are unused."""
    from gguf import TokenType

    by_id = {i: token for token, i in core["model"]["vocab"].items()}
    added = {entry["id"]: entry for entry in core.get("added_tokens", ())}
    tokens, kinds = [], []
    for i in range(rows):
        entry = added.get(i)
        token = entry["content"] if entry else by_id.get(i)
        if token is None:
            tokens.append(f"[PAD{i}]")
            kinds.append(TokenType.UNUSED)
        elif entry:
            tokens.append(token)
            kinds.append(TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED)
        else:
            tokens.append(token)
            is_byte = core["model"].get("byte_fallback") and len(token) == 6 and token.startswith("<0x")
            kinds.append(TokenType.BYTE if is_byte else TokenType.NORMAL)
    return tokens, [int(kind) for kind in kinds]
