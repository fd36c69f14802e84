"""Write a decoder as an ONNX graph whose inputs and outputs include its KV cache, and generate with ONNX Runtime.

The layout is the one that Transformers.js, Optimum and onnxruntime-genai load: onnx/model.onnx with the inputs
input_ids, attention_mask, position_ids and past_key_values.N.key and .value, and the outputs logits and present.N.key
and .value, where N counts the layers.
"""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demiglace.errors import ConfigError, ModelError
from demiglace.export.base import Artefact, Inputs
from demiglace.export.decoding import Decoder
from demiglace.export.onnx import BLOCK, FILES, OnnxExporter, OnnxRunner, quantize_blocks, write_graph
from demiglace.runs.files import write_atomically

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

_PAST, _PRESENT = "past_key_values", "present"
_TOKENS = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True)
class OnnxDecoderExporter(OnnxExporter):
    """Write the files of `onnx.FILES` for a causal language model, and genai_config.json beside them."""

    name = "onnx-decoder"
    precisions = ("fp32", "int8", "int4")

    def unsupported(self, task: "Task") -> str | None:
        """Return why models of this kind of problem cannot be written; None for language models."""
        return None if task.reads == "corpus" else "a graph with a KV cache is for models that generate text."

    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp32",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write an ONNX file; other precisions than fp32 start from `full`, which is written first if it is None."""
        artefact = super().write(model, tokenizer, task, directory, precision, full)
        config = genai_config(model.config, tokenizer, FILES["fp32"])
        write_atomically(directory / "genai_config.json", json.dumps(config, indent=2).encode())
        return artefact

    def write_full(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", task: "Task", file: Path
    ) -> None:
        """Write the graph in fp32."""
        export_decoder(model, file)

    def convert(self, source: Path, file: Path, precision: str) -> dict[str, Any]:
        """Write the fp32 file `source` to `file` in int8 or int4; return how, for the manifest.

        Both have a scale per block: int8 of classifiers, with one scale for all activations, is too coarse for
        decoders. Embedding and head have 8 bits in int4 as well.
        """
        bits = {"int8": 8, "int4": 4}[precision]
        table_bits = self.embedding_bits or 8
        quantize_blocks(source, file, bits=bits, embedding_bits=table_bits)
        return {"block_size": BLOCK, "embedding_bits": table_bits}

    def with_reduce_range(self, reduce_range: bool) -> "OnnxDecoderExporter":
        """Raise `ConfigError`: int8 of language models has no such choice."""
        raise ConfigError(
            f"--reduce-range {str(reduce_range).lower()} is about int8 files of classifiers; language models have a "
            "scale per block of weights, with no overflow. Leave it out."
        )

    def open(self, artefact: Artefact, threads: int) -> "OnnxDecoder":
        """Return a runner of ONNX Runtime's CPU provider."""
        return OnnxDecoder(artefact.path, threads)

    def open_decoder(self, artefact: Artefact, threads: int) -> Decoder:
        """Return a decoder of ONNX Runtime's CPU provider."""
        return OnnxDecoder(artefact.path, threads)


class OnnxDecoder(OnnxRunner):
    """Runs an ONNX graph with a KV cache on the CPU."""

    def __init__(self, path: str, threads: int = 1):
        super().__init__(path, threads)
        states = [i for i in self._session.get_inputs() if i.name.startswith(_PAST)]
        self._past = {state.name: (state.shape[1], state.shape[3]) for state in states}  # heads, width of a head
        self._cache = self._empty(1)
        self._length = 0  # tokens in the cache

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of each token of texts without padding, float32 [B, L, V]."""
        ids = batch["input_ids"]
        return self._run(ids, self._empty(len(ids)), 0)[0]

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Start a text with these tokens. Return the logits of the token after them, float32 [V]."""
        self._cache, self._length = self._empty(1), 0
        return self._append(ids)

    def decode(self, token: int) -> np.ndarray:
        """Append a token to the text. Return the logits of the token after it, float32 [V]."""
        return self._append([token])

    def _append(self, ids: Sequence[int]) -> np.ndarray:
        logits, *states = self._run(np.array([ids], dtype=np.int64), self._cache, self._length)
        self._cache = dict(zip(self._past, states, strict=True))
        self._length += len(ids)
        return logits[0, -1]

    def _run(self, ids: np.ndarray, cache: dict[str, np.ndarray], start: int) -> list[np.ndarray]:
        """Return logits, and keys and values of each layer, for tokens [B, L] after `start` others."""
        end = start + ids.shape[1]
        given = {
            "input_ids": ids,
            "attention_mask": np.ones((len(ids), end), dtype=np.int64),
            "position_ids": np.broadcast_to(np.arange(start, end, dtype=np.int64), ids.shape),
        }
        return self._session.run(None, {name: array for name, array in (given | cache).items() if name in self._names})

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        """Return the cache of no tokens: for each layer keys and values, float32 [B, heads, 0, width of a head]."""
        return {name: np.zeros((rows, heads, 0, width), np.float32) for name, (heads, width) in self._past.items()}


def export_decoder(model: "PreTrainedModel", path: Path) -> Path:
    """Write `model` to `path` as ONNX with its KV cache. Return `path`.

    Inputs: input_ids and position_ids, int64 [batch, sequence]; attention_mask, int64 [batch, past + sequence]; keys
    and values, float32 [batch, heads, past, width of a head]. Outputs: logits, float32 [batch, sequence, vocabulary],
    and the longer keys and values. All layers keep all positions; in layers with sliding attention, the mask excludes
    those beyond the window. Raises `ModelError` for a model that is too large for one file, that keeps other states
    than keys and values, or that cannot be traced.
    """
    import torch

    heads = _heads_of_cache(model)
    known = inspect.signature(model.forward).parameters
    tokens = [name for name in _TOKENS if name in known]  # models with relative positions take no position_ids
    states = [f"{layer}.{part}" for layer in range(len(heads)) for part in ("key", "value")]
    batch, sequence, past = 2, 3, 5  # of the example; sizes of 0 and 1 would be constants of the graph
    lengths = {"attention_mask": past + sequence}
    example = [torch.ones(batch, lengths.get(name, sequence), dtype=torch.int64) for name in tokens]
    example += [torch.zeros(batch, count, past, width) for count, width in heads for _ in range(2)]
    # the names of the sizes are those of Optimum: Transformers.js makes the empty cache by them
    dynamic = [
        {0: "batch_size", 1: "total_sequence_length" if name in lengths else "sequence_length"} for name in tokens
    ]
    dynamic += [{0: "batch_size", 2: "past_sequence_length"} for _ in states]
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")  # see `onnx.export_onnx`
    try:
        return write_graph(
            _with_cache(model, tokens),
            tuple(example),
            (tuple(dynamic),),
            path,
            inputs=[*tokens, *(f"{_PAST}.{state}" for state in states)],
            outputs=["logits", *(f"{_PRESENT}.{state}" for state in states)],
        )
    finally:
        model.set_attn_implementation(attention)


def _heads_of_cache(model: "PreTrainedModel") -> list[tuple[int, int]]:
    """Return for each layer how many heads its cache has, and their width.

    Raises `ModelError` for a model that keeps other states than keys and values, as recurrent layers do.
    """
    import torch

    with torch.inference_mode():
        made = model(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=True)
    cache: Any = getattr(made, "past_key_values", None)  # models without attention have another field
    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ())}
    if not kinds or kinds - {"DynamicLayer", "DynamicSlidingWindowLayer"}:
        raise ModelError(
            f"{type(model).__name__} cannot be exported to ONNX: its cache has other states than keys and values "
            f"({', '.join(sorted(kinds)) or 'no layers'}); expected a decoder with attention layers only."
        )
    return [(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers]


def _with_cache(model: "PreTrainedModel", tokens: Sequence[str]) -> "nn.Module":
    """Return a module in eval mode that takes tokens, keys and values in this order and returns logits and cache."""
    from torch import Tensor, nn
    from transformers.cache_utils import Cache, DynamicLayer

    class WithCache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            past = inputs[len(tokens) :]
            layers: list[Any] = [DynamicLayer() for _ in past[::2]]
            for layer, keys, values in zip(layers, past[::2], past[1::2], strict=True):
                layer.keys, layer.values, layer.is_initialized = keys, values, True
                layer.dtype, layer.device = keys.dtype, keys.device
            named = dict(zip(tokens, inputs, strict=False))
            made = self.model(**named, past_key_values=Cache(layers=layers), use_cache=True)
            return made.logits, *(state for layer in layers for state in (layer.keys, layer.values))

    return WithCache().eval()


def genai_config(config: Any, tokenizer: "PreTrainedTokenizerBase", file: str) -> dict[str, Any]:
    """Return the content of genai_config.json, with which onnxruntime-genai runs `file`; greedy by default."""
    heads, limit = config.num_attention_heads, config.max_position_embeddings
    end = tokenizer.eos_token_id if config.eos_token_id is None else config.eos_token_id
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = end[0] if isinstance(end, list) else end
    return {
        "model": {
            "type": "decoder",
            "vocab_size": config.vocab_size,
            "context_length": limit,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": end,
            "pad_token_id": padding,
            "decoder": {
                "filename": file,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "num_hidden_layers": config.num_hidden_layers,
                "num_attention_heads": heads,
                "num_key_value_heads": getattr(config, "num_key_value_heads", None) or heads,
                "head_size": getattr(config, "head_dim", None) or config.hidden_size // heads,
                "hidden_size": config.hidden_size,
                "inputs": {name: name for name in _TOKENS}
                | {"past_key_names": f"{_PAST}.%d.key", "past_value_names": f"{_PAST}.%d.value"},
                "outputs": {
                    "logits": "logits",
                    "present_key_names": f"{_PRESENT}.%d.key",
                    "present_value_names": f"{_PRESENT}.%d.value",
                },
            },
        },
        "search": {"do_sample": False, "max_length": limit, "past_present_share_buffer": False},
    }
