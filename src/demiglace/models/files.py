"""Where a model lies (run directory, model directory, hub name), and its files, checked before they are read."""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from demiglace.errors import ModelError
from demiglace.models.paths import check_available, resolve_model
from demiglace.runs.files import fingerprint

# what reading somebody's config, tokenizer or weights raises where they cannot be used
LOAD_ERRORS = (OSError, EOFError, ValueError, ImportError, RuntimeError, SafetensorError, StrictDataclassError)
_SAFE = ("model*.safetensors",)
_PICKLED = ("pytorch_model*.bin",)
_VOCABULARIES = ("tokenizer.json", "vocab*", "merges.txt", "*.model", "*.tiktoken")
_TOKENIZER = (*_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def fingerprint_model(model: str | Path) -> str:
    """What tells a model from all others: SHA-256 of weights, config and tokenizer (16 hex digits), or its hub commit.

    Raises `ModelError` as `resolve_model` does, and for a hub name that cannot be reached.
    """
    path = resolve_model(model)
    if Path(path).is_dir():
        return fingerprint([Path(path) / "config.json", *weight_files(Path(path)), *_glob(Path(path), _TOKENIZER)])
    check_available(path)
    try:
        return Path(hf_hub_download(path, "config.json")).parent.name  # …/snapshots/COMMIT/config.json
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error


def fingerprint_tokenizer(directory: str | Path) -> str:
    """What tells a tokenizer from all others: SHA-256 of its files (16 hex digits)."""
    return fingerprint(_glob(Path(directory), _TOKENIZER))


def fingerprint_config(model: str | Path) -> str:
    """As `fingerprint_model`, of a model directory's config and tokenizer alone."""
    path = Path(resolve_model(model))
    return fingerprint([path / "config.json", *_glob(path, _TOKENIZER)])


def weight_files(path: Path) -> list[Path]:
    """The files of weights in a model directory: safetensors, or pickles where there are no safetensors."""
    return _glob(path, _SAFE) or _glob(path, _PICKLED)


def has_tokenizer(path: Path) -> bool:
    """Whether a model directory holds a vocabulary; transformers would make up an empty one where it does not."""
    return bool(_glob(path, _VOCABULARIES))


def _glob(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def check_weights(path: Path, allow_pickle: bool) -> None:
    """Raise `ModelError` where a model directory has no weights, only pickled ones (unless allowed) or torn ones."""
    files = weight_files(path)
    if not files:
        raise ModelError(f"{path} holds no weights (no model.safetensors there).")
    for file in files:
        if file.suffix == ".safetensors":
            _check_whole(file)
        elif not allow_pickle:
            raise ModelError(
                f"{path} offers its weights only as a pickle file ({file.name}), which can run any code when it is "
                "read. Convert it to safetensors, or give --allow-pickle if you trust its origin."
            )


def _check_whole(file: Path) -> None:
    try:
        with safe_open(file, "pt"):  # reads the header and compares it with the file's size
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is torn or no safetensors file ({error}); copy or download it again.") from error


def load_config(path: str) -> PreTrainedConfig:
    """Return the config of a model that `resolve_model` found. Raises `ModelError` where it is damaged or unknown."""
    check_available(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error


def load_error(path: str, error: Exception) -> ModelError:
    """The `ModelError` for a failed load: which model, the library's reason, and what a name may also have meant."""
    reason = " ".join(str(error).split())
    hint = "" if Path(path).is_dir() else " (There is no directory of that name, so it was looked up on the hub.)"
    return ModelError(f"{path} could not be loaded: {reason}{hint}")
