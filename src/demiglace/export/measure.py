"""Measure latency and memory of one artefact in a fresh process: ``python -m demiglace.export.measure``.

A fresh process holds only the artefact and the library that runs it, as a device would, and no other thread pool
disturbs the timing. So this module imports nothing heavy.
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
from demiglace.export.base import Artefact, Inputs, Runner, address_of, format_at
from demiglace.interpreters import SAFE_PATH

BATCH_SIZES = (1, 32)
_WARM_UP = 5  # untimed calls at the start, for caches, memory arenas and thread pools
_MB = 1e6


@dataclass(frozen=True)
class Measurement:
    """What one artefact needs to run."""

    latency_ms: Mapping[str, Mapping[str, float]]  # batch size -> {"p50", "p95"} in milliseconds a call
    peak_memory_mb: float  # largest resident memory of the process, in 10⁶ bytes


def measure(
    artefact: Artefact, batches: Mapping[int, Sequence[Inputs]], *, threads: int = 1, repeats: int = 100
) -> Measurement:
    """Measure an artefact on real rows in a fresh process.

    batches: batch size -> batches of that size, run in turn. repeats: timed calls with one row; a larger batch takes
    longer, so it is timed repeats / 5 times. Raises `ModelError` with the last line of its errors if the process fails.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "batches.npz"
        np.savez(file, **_to_npz(batches))  # type: ignore[arg-type] # a keyword for each array
        arguments = [address_of(artefact.format), json.dumps(artefact.to_json()), str(file), str(threads), str(repeats)]
        done = subprocess.run(
            [sys.executable, "-m", "demiglace.export.measure", *arguments],
            env=os.environ | SAFE_PATH | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message; perhaps memory ran out"])[-1]
        raise ModelError(f"{artefact.path} could not be run in a fresh process (exit code {done.returncode}): {last}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def latency_ms(runner: Runner, batches: Sequence[Inputs], repeats: int) -> dict[str, float]:
    """Return the median and 95th percentile of the time of a call in milliseconds, over the batches in turn."""
    for batch in islice(cycle(batches), _WARM_UP):
        runner.logits(batch)
    times = []
    for batch in islice(cycle(batches), repeats):
        start = time.perf_counter()
        runner.logits(batch)
        times.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _to_npz(batches: Mapping[int, Sequence[Inputs]]) -> dict[str, np.ndarray]:
    return {
        f"{size}/{i}/{name}": array
        for size, several in batches.items()
        for i, batch in enumerate(several)
        for name, array in batch.items()
    }


def _from_npz(arrays: Mapping[str, np.ndarray]) -> dict[int, list[Inputs]]:
    batches: dict[int, dict[int, dict[str, np.ndarray]]] = {}
    for key, array in arrays.items():
        size, i, name = key.split("/")
        batches.setdefault(int(size), {}).setdefault(int(i), {})[name] = array
    return {size: list(several.values()) for size, several in batches.items()}


def peak_memory() -> float:
    """Return the largest resident memory that this process has had, in MB (10⁶ bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count what the parent had at the fork
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / _MB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def _main(address: str, artefact: str, file: str, threads: str, repeats: str) -> None:
    """Print the measurement as JSON. address: MODULE:CLASS of the format; file: the batches."""
    with np.load(file) as arrays:
        batches = _from_npz(arrays)
    runner = format_at(address).open(Artefact.from_json(json.loads(artefact)), int(threads))
    latency = {
        str(size): latency_ms(runner, several, int(repeats) if size == 1 else max(int(repeats) // 5, 1))
        for size, several in batches.items()
    }
    result = {"latency_ms": latency, "peak_memory_mb": round(peak_memory(), 1)}
    print(json.dumps(result))  # noqa: T201 - the parent process reads it


if __name__ == "__main__":
    _main(*sys.argv[1:])
