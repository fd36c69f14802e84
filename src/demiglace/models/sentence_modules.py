"""The modules of a sentence-transformers model: `modules.json` and the folders that it names; without torch.

The first module is the encoder in the directory itself. Pooling makes one vector of its hidden states, and dense layers
and normalization follow. demiglace reads these files itself: it does not need the package sentence-transformers.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download

from demiglace.console import notice
from demiglace.errors import ModelError

Modules = list[dict[str, Any]]
"""The entries of modules.json after the encoder, each with its "kind" and its "config"."""

_INDEX = "modules.json"
_SETTINGS = ("sentence_*config.json", "config_sentence_transformers.json")  # of the encoder and of the model
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SUPPORTED = ("Pooling", "Dense", "Normalize")  # after the encoder, Pooling first
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_FLAGS = (  # of version 5 and earlier, in the order in which their vectors are concatenated
    *("pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens"),
    *("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"),
)
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
_ON_EMBEDDINGS = (None, "sentence_embedding")


def module_directory(path: str) -> Path | None:
    """Return the directory with the files of a sentence-transformers model; None for any other model.

    path: as `resolve_model` returns it. Of a model on the hub, only the modules' files are downloaded.
    """
    if Path(path).is_dir():
        return Path(path) if (Path(path) / _INDEX).is_file() else None
    try:
        hf_hub_download(path, _INDEX)
        patterns = [_INDEX, *_SETTINGS, "*/config.json", *(f"*_*/{name}" for name in _WEIGHTS)]
        return Path(snapshot_download(path, allow_patterns=patterns))
    except (OSError, ValueError):  # the repository has no such file, or cannot be reached
        return None


def module_files(directory: Path) -> list[Path]:
    """Return the files that a sentence-transformers model has in addition to its encoder, sorted; [] for others."""
    if not (directory / _INDEX).is_file():
        return []
    folders = [directory / str(entry.get("path", "")) for entry in _entries(directory)[1:]]
    names = ("config.json", *_WEIGHTS)
    files = {directory / _INDEX, *(file for pattern in _SETTINGS for file in directory.glob(pattern))}
    return sorted(files | {folder / name for folder in folders for name in names if (folder / name).is_file()})


def copy_modules(path: str, target: Path) -> list[str]:
    """Copy the modules of a model, as `resolve_model` names it, beside a smaller encoder; return their kinds.

    Modules of any kind are copied, also those that `read_modules` refuses: the encoder's width is the same. Returns []
    for a model without modules.
    """
    directory = module_directory(path)
    if directory is None:
        return []
    for file in module_files(directory):
        copy = target / file.relative_to(directory)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return [_kind(entry) for entry in _entries(directory)[1:]]


def read_modules(directory: Path) -> Modules:
    """Return the modules after the encoder. Raises `ModelError` for those that demiglace does not have."""
    first, *others = _entries(directory)
    if _kind(first) != "Transformer" or first.get("path"):
        raise ModelError(
            f"{directory / _INDEX} starts with a {_kind(first)} in {first.get('path') or 'the directory'!r}; expected "
            "a Transformer in the directory itself."
        )
    modules = [{**entry, "kind": _kind(entry), "config": _config(directory, entry)} for entry in others]
    if [m["kind"] for m in modules][:1] != ["Pooling"] or any(m["kind"] == "Pooling" for m in modules[1:]):
        raise _refusal(directory, "its modules after the encoder do not start with a single Pooling")
    for module in modules:
        if reason := _fault(module):
            raise _refusal(directory, reason)
    if read_settings(directory).get("do_lower_case"):
        raise _refusal(directory, "do_lower_case is set, which changes texts before they are tokenized")
    return modules


def longest_text(path: str | Path, max_length: int | None) -> int | None:
    """Return the longest text in tokens: `max_length`, or what a sentence-transformers model reads, if that is less.

    path: as `resolve_model` returns it. A line is printed where the model's number is taken.
    """
    directory = module_directory(str(path))
    limit = None if directory is None else read_settings(directory).get("max_seq_length")
    if not isinstance(limit, int) or (max_length is not None and limit >= max_length):
        return max_length
    notice(
        "max_seq_length",
        f"{path} reads at most {limit} tokens of a text (max_seq_length); longer texts are truncated.",
        tokens=limit,
    )
    return limit


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the encoder's settings, such as max_seq_length; {} where there are none."""
    files = sorted(directory.glob(_SETTINGS[0]))
    return _json(files[0]) if files else {}


def settings_files(directory: Path) -> dict[str, Any]:
    """Return the content of the settings' files by name."""
    return {file.name: _json(file) for pattern in _SETTINGS for file in sorted(directory.glob(pattern))}


def write_modules(modules: Modules, settings: Mapping[str, Any], directory: Path) -> None:
    """Write modules.json, the modules' configs and the settings' files; the weights of dense layers are the model's."""
    index = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, module in enumerate(modules, 1):
        folder = f"{number}_{module['kind']}"
        entry = {"idx": number, "name": str(number), "path": folder}
        index.append(entry | {"type": f"sentence_transformers.models.{module['kind']}"})
        (directory / folder).mkdir(parents=True, exist_ok=True)
        _write(directory / folder / "config.json", module["config"])
    _write(directory / _INDEX, index)
    for name, content in settings.items():
        _write(directory / name, content)


def embedding_width(modules: Modules, hidden_size: int) -> int:
    """Return the width of the embeddings that these modules make of hidden states."""
    dense = [int(m["config"]["out_features"]) for m in modules if m["kind"] == "Dense"]
    return dense[-1] if dense else hidden_size * len(poolings_of(modules[0]["config"]))


def with_width(modules: Modules, inputs: int, outputs: int) -> Modules:
    """Return the modules with a dense layer without activation before a normalization at their end."""
    activation = "torch.nn.modules.linear.Identity"
    config = {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": activation}
    end = len(modules) - (modules[-1]["kind"] == "Normalize")
    return [*modules[:end], {"kind": "Dense", "config": config}, *modules[end:]]


def poolings_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the poolings whose vectors are concatenated, from the config of a Pooling of any version."""
    given = config.get("pooling_mode")
    if given is None:
        given = [name for name, flag in zip(POOLINGS, _FLAGS, strict=True) if config.get(flag)] or "mean"
    return (given,) if isinstance(given, str) else tuple(given)


def _fault(module: Mapping[str, Any]) -> str | None:
    """Return why a module is not supported, or None."""
    kind, config = module["kind"], module["config"]
    if kind not in SUPPORTED:
        return f"it has a module {kind}"
    if config.get("use_residual") or any(
        config.get(name) not in _ON_EMBEDDINGS for name in ("module_input_name", "module_output_name")
    ):
        return f"its {kind} has a residual connection or does not change the sentence embedding"
    if kind == "Pooling" and not set(poolings_of(config)) <= set(POOLINGS):
        return f"its pooling is {', '.join(poolings_of(config))}"
    activation = str(config.get("activation_function", "Tanh"))
    if kind == "Dense" and activation.rpartition(".")[2] not in ACTIVATIONS:
        return f"a dense layer has the activation {activation}"
    return None


def _refusal(directory: Path, reason: str) -> ModelError:
    return ModelError(
        f"{directory} is a sentence-transformers model, and {reason}; demiglace reads an encoder followed by Pooling "
        f"({', '.join(POOLINGS)}), then Dense and Normalize."
    )


def _entries(directory: Path) -> list[dict[str, Any]]:
    found = _json(directory / _INDEX)
    if not isinstance(found, list) or not found or not all(isinstance(e, dict) and "type" in e for e in found):
        raise ModelError(f"{directory / _INDEX} is not a list of modules with a type; copy or download it again.")
    if outside := [str(e["path"]) for e in found if {"..", "/"} & {*Path(str(e.get("path", ""))).parts}]:
        raise ModelError(f"{directory / _INDEX} names a folder outside of the model: {outside[0]}; it is not read.")
    return found


def _kind(entry: Mapping[str, Any]) -> str:
    return str(entry["type"]).rpartition(".")[2]


def _config(directory: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    file = directory / str(entry.get("path", "")) / "config.json"
    return _json(file) if file.is_file() else {}  # Normalize had none before version 5


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}); copy or download it again.") from error


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
