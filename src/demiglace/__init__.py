"""demiglace: compress fine-tuned Transformers by truncation and distillation, evaluate and export them.

Every command is a function here: ``demiglace.distill(teacher=…, data=…, layers=3, output=…)``. It returns a result
with the metrics and the path of the run directory. Nothing heavy is imported until a function is first used.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"
_COMMANDS = (
    *("clean", "clean_up", "compare", "compress", "demo", "distill", "evaluate", "export", "finetune", "generate"),
    *("methods", "plan", "pretrain", "report", "tasks", "tokenizer", "truncate", "verify"),
)
_CALLBACKS = ("Callback", "EpochEvent", "StepEvent")
__all__ = ["__version__", *_CALLBACKS, *_COMMANDS]


def __getattr__(name: str) -> Any:
    if name in _CALLBACKS:
        return getattr(importlib.import_module("demiglace.callbacks"), name)
    if name not in _COMMANDS:
        raise AttributeError(f"module 'demiglace' has no attribute {name!r}")
    module = {"methods": "list", "tasks": "list"}.get(name, name)
    return getattr(importlib.import_module(f"demiglace.commands.{module}"), name)


class _Package(ModuleType):
    """Keeps `demiglace.export` the function: importing the package of that name would put the module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _COMMANDS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
