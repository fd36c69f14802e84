"""Resolve a model (run directory, model directory, hub name), and check its files before they are read."""

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from demiglace.errors import ModelError
from demiglace.runs.files import fingerprint

# raised for a config, tokenizer or weights that cannot be used
LOAD_ERRORS = (OSError, EOFError, ValueError, ImportError, RuntimeError, SafetensorError, StrictDataclassError)
_SAFE = ("model*.safetensors",)
_PICKLED = ("pytorch_model*.bin",)
_VOCABULARIES = ("tokenizer.json", "vocab*", "merges.txt", "*.model", "*.tiktoken")
_TOKENIZER = (*_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def resolve_model(model: str | Path) -> str:
    """Return the model directory of `model`, or `model` unchanged if it can only be a hub name.

    A run directory of finetune or distill has its model in `model/`; one of truncate is a model directory. Raises
    `ModelError` for an unfinished run, a directory or file that is no model, and a path that does not exist.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(_model_directory(path))
    if path.exists():
        raise ModelError(
            f"{model} is a file; give a model directory (with config.json), a run directory or a hub name."
        )
    if _is_local_path(str(model)):
        raise ModelError(f"there is no model at {model}; expected a model directory, a run directory or a hub name.")
    return str(model)


def _model_directory(path: Path) -> Path:
    if (path / "run.json").exists() and not (path / "manifest.json").exists():
        raise ModelError(f"{path} is an unfinished run; repeat its command to complete it, then use its model.")
    for directory in (path / "model", path) if (path / "run.json").exists() else (path,):
        if (directory / "config.json").is_file():
            return directory
    raise ModelError(f"{path} contains no model (no config.json); give a model directory or a run directory.")


def _is_local_path(model: str) -> bool:
    """Return whether a name is a path: it is no `name` or `owner/name` of the hub, or its parent directory exists."""
    is_hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model) is not None
    return not is_hub_name or ("/" in model and Path(model).parent.is_dir())


def fingerprint_model(model: str | Path) -> str:
    """Return the fingerprint of a model: SHA-256 of weights, config and tokenizer (16 hex digits), or its hub commit.

    Raises `ModelError` as `resolve_model` does, and for a hub name that cannot be downloaded.
    """
    path = resolve_model(model)
    if Path(path).is_dir():
        return fingerprint([Path(path) / "config.json", *weight_files(Path(path)), *_glob(Path(path), _TOKENIZER)])
    try:
        return Path(hf_hub_download(path, "config.json")).parent.name  # …/snapshots/COMMIT/config.json
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
    """Return the weight files of a model directory: safetensors, or pickle files if there are no safetensors."""
    return _glob(path, _SAFE) or _glob(path, _PICKLED)


def has_tokenizer(path: Path) -> bool:
    """Return whether a model directory has a vocabulary. Without one, transformers would create an empty one."""
    return bool(_glob(path, _VOCABULARIES))


def _glob(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def check_weights(path: Path, allow_pickle: bool) -> None:
    """Raise `ModelError` if a model directory has no weights, damaged ones, or only pickled ones (unless allowed)."""
    files = weight_files(path)
    if not files:
        raise ModelError(f"{path} contains no weights (no model.safetensors); give the directory of a saved model.")
    for file in files:
        if file.suffix == ".safetensors":
            _check_safetensors(file)
        elif not allow_pickle:
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
    """Return the config of a path from `resolve_model`. Raises `ModelError` if it is damaged or of an unknown type."""
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error


def load_error(path: str, error: Exception) -> ModelError:
    """Return the `ModelError` for a failed load: the model, the library's reason, and how the name was interpreted."""
    reason = " ".join(str(error).split())
    hint = "" if Path(path).is_dir() else " (There is no directory of this name, so it was looked up on the hub.)"
    return ModelError(f"{path} could not be loaded: {reason}{hint}")
