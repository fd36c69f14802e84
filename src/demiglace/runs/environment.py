"""The environment of a run, for its manifest: versions of libraries, and the machine."""

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_VERSIONED = ("demiglace", "torch", "transformers", "tokenizers", "accelerate", "numpy", "onnxruntime")
_CLEANING = ("daft", "fastwarc", "ftfy", "py3langid", "pyarrow", "scipy", "trafilatura", "zstandard")


def versions(stage: str = "") -> dict[str, str]:
    """Return the installed versions of the libraries that affect the result of a command.

    Args:
        stage: the command; "clean" adds the libraries of cleaning.
    """
    names = (*_VERSIONED, *(_CLEANING if stage == "clean" else ()))
    return {name: version for name in names if (version := _version(name)) is not None}


@cache  # a comparison writes a manifest for each of its jobs
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores, memory in GiB, operating system, Python version."""
    import psutil

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
