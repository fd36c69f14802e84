"""demiglace: reduce pre-trained language models to small ones that keep their quality.

Every command is a function here: ``demiglace.distill(teacher=…, data=…, layers=3, output=…)``. Nothing heavy is
imported until a function is first used.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"
_COMMANDS = (
    *("clean", "compare", "demo", "distill", "evaluate", "export", "finetune", "generate"),
    *("methods", "plan", "pretrain", "report", "tasks", "tokenizer", "truncate"),
)
__all__ = ["__version__", *_COMMANDS]


def __getattr__(name: str) -> Any:
    if name not in _COMMANDS:
        raise AttributeError(f"module 'demiglace' has no attribute {name!r}")
    module = {"methods": "list", "tasks": "list"}.get(name, name)
    return getattr(importlib.import_module(f"demiglace.commands.{module}"), name)


class _Package(ModuleType):
    """Keeps `demiglace.export` the function: importing the room of that name would put the module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _COMMANDS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
