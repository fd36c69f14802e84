"""Latency and memory of one artefact, in a process of its own: ``python -m demiglace.export.measure``.

A fresh process holds nothing but the artefact and the library that runs it, which is what a device would hold, and
no other thread pool disturbs the clock. So this module imports nothing heavy.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from demiglace.errors import ModelError
from demiglace.export.runners import Inputs, Runner, open_runner
from demiglace.interpreters import SAFE_PATH

BATCH_SIZES = (1, 32)
_WARM_UP = 5  # calls before the clock starts: caches, memory arenas, thread pools
_MB = 1e6


@dataclass(frozen=True)
class Measurement:
    """latency_ms: batch size -> {"p50", "p95"} in milliseconds a call; peak_memory_mb: resident, in 10⁶ bytes."""

    latency_ms: Mapping[str, Mapping[str, float]]
    peak_memory_mb: float


def measure(
    artefact: str,
    batches: Mapping[int, Sequence[Inputs]],
    *,
    threads: int = 1,
    repeats: int = 100,
    allow_pickle: bool = False,
) -> Measurement:
    """Measure an `.onnx` file, or a model directory in PyTorch, on real rows in a fresh process.

    batches: batch size -> batches of that size, run in turn; a batch of B > 1 is timed repeats / 5 times, since
    a call takes so much longer. `ModelError` if the process fails, with its last words.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "batches.npz"
        np.savez(file, **_to_npz(batches))  # type: ignore[arg-type] # a keyword for each array
        words = [artefact, str(file), str(threads), str(repeats), *(["--allow-pickle"] if allow_pickle else [])]
        done = subprocess.run(
            [sys.executable, "-m", "demiglace.export.measure", *words],
            env=os.environ | SAFE_PATH | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message; perhaps memory ran out"])[-1]
        raise ModelError(f"{artefact} could not be run in a fresh process (exit code {done.returncode}): {last}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def latency_ms(runner: Runner, batches: Sequence[Inputs], repeats: int) -> dict[str, float]:
    """Median and 95th percentile of the time of a call in milliseconds, over the batches in turn."""
    for batch in islice(cycle(batches), _WARM_UP):
        runner(batch)
    times = []
    for batch in islice(cycle(batches), repeats):
        start = time.perf_counter()
        runner(batch)
        times.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def size_of(artefact: str, parameters: int) -> int:
    """Bytes of an ONNX file, or of the weight files in a model directory; a hub name's from its fp32 parameters."""
    path = Path(artefact)
    if path.is_dir():
        return sum(f.stat().st_size for f in list(path.glob("*.safetensors")) or path.glob("*.bin"))
    return path.stat().st_size if path.is_file() else 4 * parameters


def _to_npz(batches: Mapping[int, Sequence[Inputs]]) -> dict[str, np.ndarray]:
    return {
        f"{size}/{i}/{name}": array
        for size, several in batches.items()
        for i, batch in enumerate(several)
        for name, array in batch.items()
    }


def _unpacked(arrays: Mapping[str, np.ndarray]) -> dict[int, list[Inputs]]:
    found: dict[int, dict[int, dict[str, np.ndarray]]] = {}
    for key, array in arrays.items():
        size, i, name = key.split("/")
        found.setdefault(int(size), {}).setdefault(int(i), {})[name] = array
    return {size: list(several.values()) for size, several in found.items()}


def peak_memory() -> float:
    """The most resident memory this process has had, in MB (10⁶ bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count what the parent had at the fork
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / _MB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def _main(artefact: str, file: str, threads: str, repeats: str, *flags: str) -> None:
    with np.load(file) as arrays:
        batches = _unpacked(arrays)
    runner = open_runner(artefact, int(threads), allow_pickle="--allow-pickle" in flags)
    latency = {
        str(size): latency_ms(runner, several, int(repeats) if size == 1 else max(int(repeats) // 5, 1))
        for size, several in batches.items()
    }
    result = {"latency_ms": latency, "peak_memory_mb": round(peak_memory(), 1)}
    print(json.dumps(result))  # noqa: T201 - read by the process that asked


if __name__ == "__main__":
    _main(*sys.argv[1:])
