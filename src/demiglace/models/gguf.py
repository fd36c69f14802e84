"""Read a decoder from a GGUF file, with transformers, as an ordinary model in fp32."""

import io
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.constants import HF_HOME
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from demiglace.console import say
from demiglace.errors import ModelError, UserError, install_command
from demiglace.models.library import LOAD_ERRORS, silence_transformers
from demiglace.runs.files import fingerprint

_READ_ERRORS = (*LOAD_ERRORS, struct.error, LookupError, ArithmeticError, AttributeError, MemoryError)
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_OF_FILE = ("quantization_config", "_model_name_or_path", "dtype")  # fields about the file, not about the model


def unpacked_gguf(file: Path) -> Path:
    """Return a model directory with the model and the tokenizer of a GGUF file, in fp32.

    It is made once for each content of a file, below `HF_HOME` in demiglace/gguf. Raises as `read_gguf` does.
    """
    directory = Path(HF_HOME) / "demiglace" / "gguf" / fingerprint([file])
    if not directory.is_dir():
        model, tokenizer = read_gguf(file), read_gguf_tokenizer(file)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=directory.parent) as folder:
            draft = Path(folder) / "model"
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            with suppress(OSError):  # another process was faster
                draft.rename(directory)
        say(f"{file}: its model was converted to fp32 and is kept in {directory}.")
    return directory


def read_gguf(file: Path) -> PreTrainedModel:
    """Return the model of a GGUF file, its weights in fp32, with a config of its own, so that it can be saved.

    Raises `UserError` if the package `gguf` is missing, `ModelError` for a file that transformers cannot read.
    """
    with _reading(file) as (folder, name):
        config = _config(folder / name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, config=config, dtype=torch.float32)
    # save_pretrained refuses a model that came from GGUF: a new model takes its weights
    values = {name: value for name, value in loaded.config.to_dict().items() if name not in _OF_FILE}
    model: PreTrainedModel = type(loaded)._from_config(type(config).from_dict(values), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    return model.eval()


def read_gguf_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, with the special tokens that it names. Raises as `read_gguf` does."""
    with _reading(file) as (folder, name):
        from gguf import GGUFReader

        fields = GGUFReader(folder / name).fields
        read: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokens = fields["tokenizer.ggml.tokens"].contents()
    core = json.loads(read.backend_tokenizer.to_str())
    # the class that transformers chooses adds its usual special tokens where the file has others
    core["added_tokens"] = [entry for entry in core["added_tokens"] if entry["id"] < len(tokens)]
    found = {role: fields.get(f"tokenizer.ggml.{key}_token_id") for role, key in _ROLES.items()}
    special = {role: tokens[field.contents()] for role, field in found.items() if field is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)),
        chat_template=read.chat_template,
        clean_up_tokenization_spaces=False,
        **special,
    )


@contextmanager
def _reading(file: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder that holds nothing but the file, and its name there; turn errors of libraries into `ModelError`.

    transformers would take a config or a tokenizer that lies beside the file instead of the file's.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"reading a GGUF file needs the package gguf, which is not installed; run: {install_command('gguf')}"
        ) from error
    with TemporaryDirectory() as folder:
        (Path(folder) / "model.gguf").symlink_to(file.absolute())
        try:
            with silence_transformers(), redirect_stderr(io.StringIO()):  # progress bars
                yield Path(folder), "model.gguf"
        except _READ_ERRORS as error:
            raise ModelError(f"{file} could not be read as a GGUF model: {' '.join(str(error).split())}") from error


def _config(file: Path) -> PreTrainedConfig:
    """Return the config that transformers reads, with the fields of the file that it leaves out."""
    from gguf import GGUFReader

    config: Any = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    reader = GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    values = {
        key.removeprefix(f"{architecture}."): field.contents()
        for key, field in reader.fields.items()
        if key.startswith(f"{architecture}.")  # not the tokens, which take seconds
    }
    config.tie_word_embeddings = all(tensor.name != "output.weight" for tensor in reader.tensors)
    config.max_position_embeddings = values["context_length"]
    if "attention.key_length" in values:
        config.head_dim = values["attention.key_length"]
    if values.get("rope.scaling.type") == "linear":
        factor = float(values["rope.scaling.factor"])
        config.rope_parameters = {**config.rope_parameters, "rope_type": "linear", "factor": factor}
    if hasattr(config, "query_pre_attn_scalar"):
        config.query_pre_attn_scalar = config.head_dim  # the scale of attention that llama.cpp has for Gemma 3
    return config
