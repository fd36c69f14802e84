"""The accelerator of a run: device, processes, trackers."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from demiglace.config.training import TrainConfig
from demiglace.errors import ConfigError, unknown
from demiglace.models.compilation import check_compiler
from demiglace.runs.processes import processes
from demiglace.training.lora import check_lora


def check_trackers(config: TrainConfig) -> None:
    """Raise `ConfigError` for a tracker that accelerate does not support or that is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in config.report_to or ():
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(unknown("tracker", name, LOGGER_TYPE_TO_CLASS))
        if name not in [t.value for t in get_available_trackers()]:
            raise ConfigError(f"--report-to {name} needs a package that is not installed; install {name}.")


def check_machine(config: TrainConfig) -> None:
    """Raise `ConfigError` for options that need a package, a compiler or a GPU that is not there."""
    check_trackers(config)
    check_lora(config)
    if config.compile:
        check_compiler(processes().device)


def make_accelerator(
    config: TrainConfig, directory: Path, run_config: dict[str, Any], all_parameters: bool = True
) -> Accelerator:
    """Return the accelerator of a run with its trackers started; its precision is off, because the objective casts.

    all_parameters: whether every step uses every parameter. If not, as in methods of several phases or without a term
    on logits, DDP has to find the parameters without a gradient in every step, which takes time. Raises `ConfigError`
    as `check_trackers` does.
    """
    check_trackers(config)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        log_with=list(config.report_to) if config.report_to else None,
        project_dir=directory,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=not all_parameters)],
    )
    if config.report_to:
        plain = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in run_config.items()}
        accelerator.init_trackers("tracking", plain)
    return accelerator
