"""Resolve a model (run directory, model directory, hub name), and check its files before they are read."""

import copy
import json
from functools import lru_cache
from pathlib import Path

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from demiglace.errors import ModelError
from demiglace.models.config_check import check_config_file
from demiglace.models.library import LOAD_ERRORS
from demiglace.models.paths import check_available, hub_address, resolve_model
from demiglace.models.sentence_modules import module_files
from demiglace.models.static import register
from demiglace.runs.files import fingerprint

_SAFE = ("model*.safetensors",)
_ADAPTERS = ("adapter_model*.safetensors", "adapter_model*.bin")
_PICKLED = ("pytorch_model*.bin",)
_VOCABULARIES = ("tokenizer.json", "vocab*", "merges.txt", "*.model", "*.tiktoken")
_TOKENIZER = (*_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def fingerprint_model(model: str | Path) -> str:
    """Return the fingerprint of a model: SHA-256 of weights, config, tokenizer and the modules of a sentence encoder
    (16 hex digits), or its hub commit.

    Raises `ModelError` as `resolve_model` does, and for a hub name that cannot be downloaded.
    """
    path = resolve_model(model)
    if Path(path).is_dir():
        files = [*weight_files(Path(path)), *_glob(Path(path), _TOKENIZER), *module_files(Path(path))]
        return fingerprint([Path(path) / "config.json", *files])
    check_available(path)
    try:
        repository, _, revision = path.partition("@")
        file = hf_hub_download(repository, "config.json", revision=revision or None)
        return Path(file).parent.name  # …/snapshots/COMMIT/config.json
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error


def fingerprint_tokenizer(directory: str | Path) -> str:
    """Return the fingerprint of a tokenizer: SHA-256 of its files (16 hex digits)."""
    return fingerprint(_glob(Path(directory), _TOKENIZER))


def fingerprint_config(model: str | Path) -> str:
    """Return the fingerprint of a model directory's config and tokenizer, without its weights.

    Raises `ModelError` as `resolve_model` does.
    """
    path = Path(resolve_model(model))
    return fingerprint([path / "config.json", *_glob(path, _TOKENIZER)])


def weight_files(path: Path) -> list[Path]:
    """Return the weight files of a model directory: safetensors, or pickle files if there are no safetensors.

    With sharded weights they include the index and each file that it names. Raises `ModelError` for an index that is
    damaged, or that names a file which is missing or outside of the directory.
    """
    for patterns, whole in ((_SAFE, "model.safetensors"), (_PICKLED, "pytorch_model.bin")):
        files, index = set(_glob(path, patterns)), path / f"{whole}.index.json"
        if index.is_file() and path / whole not in files:  # transformers reads the index only then
            files |= {index, *_indexed(index)}
        if files:
            return sorted(files)
    return []


def _indexed(index: Path) -> set[Path]:
    """Return the files that an index of sharded weights names."""
    try:
        names = sorted(map(str, set(json.loads(index.read_text("utf-8"))["weight_map"].values())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged ({error}); copy or download the model again.") from error
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ModelError(
                f"{index} names the weight file {name!r}; expected a file beside it. Put all files of the model into "
                "one directory."
            )
    return {index.with_name(name) for name in names}


def has_tokenizer(path: Path) -> bool:
    """Return whether a model directory has a vocabulary. Without one, transformers would create an empty one."""
    return bool(_glob(path, _VOCABULARIES))


def _glob(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def check_weights(path: Path, allow_pickle: bool) -> None:
    """Raise `ModelError` if a model directory has no weights, damaged ones, or only pickled ones (unless allowed).

    Also raised for an adapter beside the weights, which would silently be left out.
    """
    if adapters := _glob(path, _ADAPTERS):
        raise ModelError(
            f"{path} holds an adapter ({adapters[0].name}), which is not read; merge it into the weights "
            "(`merge_and_unload` of peft), save the result, and give that directory."
        )
    files = weight_files(path)
    if not files:
        raise ModelError(f"{path} contains no weights (no model.safetensors); give the directory of a saved model.")
    for file in files:
        if file.suffix == ".safetensors":
            _check_safetensors(file)
        elif file.suffix != ".json" and not allow_pickle:
            raise ModelError(
                f"{path} has its weights only as a pickle file ({file.name}), which can run any code when it is "
                "loaded. Convert it to safetensors, or give --allow-pickle if you trust its origin."
            )


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, "pt"):  # reads the header and compares it with the file's size
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is damaged or not a safetensors file ({error}); copy or download it again."
        ) from error


def load_config(path: str) -> PreTrainedConfig:
    """Return the config of a model that `resolve_model` found. Raises `ModelError` for a damaged or unknown one.

    Also raised for a multimodal model, whose text part has a config inside of this one.
    """
    check_available(path)
    register()
    file = Path(path) / "config.json"
    if is_local := file.is_file():
        check_config_file(file)
    try:
        config = copy.deepcopy(_local_config(path, file.read_bytes())) if is_local else _config(path)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error
    if getattr(config, "text_config", None) is not None:
        raise ModelError(
            f"{path} is a {config.model_type} model, which reads more than text: its config.json has a text_config. "
            "Only models of text are supported; load it with transformers' AutoModelForImageTextToText, save its text "
            "part (`model.language_model.save_pretrained`) with the tokenizer, and give that directory."
        )
    return config


@lru_cache(maxsize=32)  # a command needs the config of a model up to ten times, and reading it takes milliseconds
def _local_config(path: str, content: bytes) -> PreTrainedConfig:
    """Return the config of a directory; content: that of config.json, so that a changed file is read again."""
    return _config(path)


def _config(path: str) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(**hub_address(path), trust_remote_code=False)


def load_error(path: str, error: Exception) -> ModelError:
    """Return the `ModelError` for a failed load: the model, the library's reason, and how the name was interpreted."""
    reason = " ".join(str(error).split())
    hint = "" if Path(path).is_dir() else " (There is no directory of this name, so it was looked up on the hub.)"
    return ModelError(f"{path} could not be loaded: {reason}{hint}")
