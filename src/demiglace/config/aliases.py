"""Other names of options: those of demiglace 0.1, and those of Hugging Face's scripts and `TrainingArguments`.

They are accepted as flags, YAML keys and Python keywords, and in grids of `compare`. Configs, manifests and
`--print-config` have the options' names alone.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from demiglace.errors import ConfigError, near, suggestion, unknown

RENAMED = {
    "lr": "learning_rate",
    "clip": "max_grad_norm",
    "warmup": "warmup_ratio",
    "masked_share": "mlm_probability",
    "track": "report_to",
    "tune": "holdout_from_train",
    "config_of": "architecture",
    "against": "decontaminate_against",
    "no_controls": "no_baselines",
}
"""Names of 0.1 -> the names now; run directories that 0.1 wrote hold them too."""
ALIASES = RENAMED | {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "output_dir": "output",
    "lr_scheduler_type": "lr_scheduler",
    "metric_for_best_model": "metric",
    "early_stopping_patience": "patience",
    "logging_steps": "log_steps",
    "max_train_samples": "max_rows",
    "max_seq_length": "max_length",
    "max_new_tokens": "new_tokens",
    "model_name_or_path": "model",
    "teacher_model_name_or_path": "teacher",
    "tokenizer_name": "tokenizer",
    "hub_model_id": "push_to_hub",
    "train_file": "data",
    "validation_file": "validation",
    "test_file": "test",
    "torch_compile": "compile",
    "lora_r": "lora_rank",
    "bf16": "precision",
    "fp16": "precision",
}
"""Every other name -> the option's name."""
SWITCHES = ("bf16", "fp16")
"""Aliases that need no value on a command line."""
SCHEDULERS = {"warmup_stable_decay": "wsd", "constant_with_warmup": "constant"}
"""transformers' names of --lr-scheduler -> demiglace's."""
TRANSLATED = (*SWITCHES, "per_device_train_batch_size", "lr_scheduler_type")
"""Aliases whose values are not those of the option."""
_OF_METHODS = "is an option of a method: --method-options.{name} VALUE; see `demiglace methods METHOD`"
_TORCHRUN = "is given by the launcher: torchrun --nproc-per-node N -m demiglace COMMAND …"
HINTS = {
    **dict.fromkeys(("temperature", "alpha", "kd_weight", "layer_weight"), _OF_METHODS),
    **dict.fromkeys(("devices", "gpus", "num_gpus", "num_processes", "nproc_per_node"), _TORCHRUN),
    "gradient_accumulation_steps": "follows from --batch-size (rows of a step, over all processes) and --batch-tokens "
    "(largest forward pass): a larger batch is split and its gradients are accumulated",
    "per_device_eval_batch_size": "is chosen by --batch-tokens (largest forward pass)",
}
"""Options that users of other libraries look for -> what demiglace has instead."""


def canonical(name: str, names: Iterable[str]) -> str:
    """Return the name of an option among `names` that a name or an alias means; an unknown name as it was given."""
    known = list(names)
    plain = name.replace("-", "_")
    return ALIASES[plain] if plain not in known and ALIASES.get(plain) in known else plain


def canonical_values(
    values: Mapping[str, Any], names: Iterable[str], others: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return option values under the options' names, translated from what their aliases mean.

    others: further options of the same command, for the translation. Raises `ConfigError` for an option that is given
    under two of its names.
    """
    known = list(names)
    found: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, value in values.items():
        option = canonical(str(name), known)
        if option in given:
            raise ConfigError(f"{given[option]} and {name} are the same option; give one of them.")
        alias, given[option] = str(name).replace("-", "_"), name
        found[option] = value if alias == option else _translate(alias, value, {**(others or {}), **values})
    return found


def _translate(alias: str, value: Any, values: Mapping[str, Any]) -> Any:
    """Return the value of an alias as the value of its option.

    A batch size for one device is multiplied by the number of devices: `devices` of `plan`, else torchrun's.
    """
    if alias in SWITCHES and str(value).lower() in ("true", "false"):
        return alias if str(value).lower() == "true" else "fp32"
    if alias == "per_device_train_batch_size" and str(value).isdecimal():
        return int(value) * int(values.get("devices") or os.environ.get("WORLD_SIZE") or 1)
    if alias == "lr_scheduler_type":
        return SCHEDULERS.get(str(value), value)
    return value


def renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run under the names that they have now, whichever version wrote them."""
    return {RENAMED.get(name, name): value for name, value in config.items()}


_FEW = 12  # names that a message lists


def unknown_option(name: str, names: Iterable[str]) -> str:
    """Return the message for an option that does not exist: the alternative that exists, or the nearest names.

    A name that begins with a dash is a flag, and so are the names that the message suggests for it. Few names are
    listed in full.
    """
    known, is_flag = list(names), name.startswith("-")
    if len(known) <= _FEW and not is_flag:
        return unknown("option", name, known)
    plain = name.lstrip("-").replace("-", "_")
    if plain in HINTS:
        return f"unknown option {name!r}: it {HINTS[plain].format(name=plain)}."
    others = [alias for alias, target in ALIASES.items() if target in known]
    found = dict.fromkeys(canonical(n, known) for n in near(plain, [*known, *others]))
    shown = [f"--{n.replace('_', '-')}" if is_flag else n for n in found]
    return f"unknown option {name!r}{suggestion(shown)} --help lists all options."
