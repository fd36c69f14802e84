"""Measure speed and memory of one artefact in a fresh process: ``python -m demiglace.export.measure``.

A fresh process holds only the artefact and the library that runs it, as a device would, and no other thread pool
disturbs the timing. So this module imports nothing heavy.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.errors import ModelError
from demiglace.export.base import Artefact, Inputs, Runner, address_of, format_at
from demiglace.export.decoding import Load, Speed
from demiglace.interpreters import end_with_parent, run_module

BATCH_SIZES = (1, 32)
_CALLS = 5  # of each batch
_WARM_UP = 5  # untimed calls at the start, for caches, memory arenas and thread pools
_MB = 1e6


@dataclass(frozen=True)
class Measurement:
    """What one artefact needs to run."""

    latency_ms: Mapping[str, Mapping[str, float]]  # batch size -> {"p50", "p95", "idle"}, see the function
    peak_memory_mb: float  # largest resident memory of the process, in 10⁶ bytes


@dataclass(frozen=True)
class DecodingMeasurement:
    """What one language model needs to generate text, one text at a time."""

    speed: Speed
    peak_memory_mb: float  # largest resident memory of the process, or of the program that it runs, in 10⁶ bytes


def measure(
    artefact: Artefact, batches: Mapping[int, Sequence[Inputs]], *, threads: int = 1, repeats: int = 100
) -> Measurement:
    """Measure an artefact on real rows in a fresh process.

    batches: batch size -> batches of that size, run in turn. repeats: timed calls with one row; a larger batch takes
    longer, so it is timed repeats / 5 times. Raises `ModelError` with the last line of its errors if the process fails.
    """
    content = BytesIO()  # given as standard input: a killed command leaves no rows in a temporary folder
    np.savez(content, **_to_npz(batches))  # type: ignore[arg-type] # a keyword for each array
    return Measurement(**_in_fresh_process("rows", artefact, threads, str(repeats), content=content.getvalue()))


def measure_decoding(artefact: Artefact, load: Load) -> DecodingMeasurement:
    """Measure a language model in a fresh process. Raises `ModelError` as `measure` does."""
    found = _in_fresh_process("decoding", artefact, load.threads, json.dumps(asdict(load)))
    return DecodingMeasurement(Speed(**found["speed"]), found["peak_memory_mb"])


def _in_fresh_process(
    work: str, artefact: Artefact, threads: int, *arguments: str, content: bytes = b""
) -> dict[str, Any]:
    """Return what `_main` prints there; content: its standard input."""
    about = [work, address_of(artefact.format), json.dumps(artefact.to_json()), str(threads)]
    environment = {"OMP_NUM_THREADS": str(threads)}
    try:
        done = run_module("demiglace.export.measure", [*about, *arguments], environment, content)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{artefact.path} was not measured within {error.timeout / 60:.0f} minutes.") from error
    if done.returncode:
        errors = done.stderr.decode(errors="replace").strip().splitlines()
        last = (errors or ["no message; perhaps memory ran out"])[-1]
        raise ModelError(f"{artefact.path} could not be run in a fresh process (exit code {done.returncode}): {last}")
    return json.loads(done.stdout.splitlines()[-1])


def latency_ms(runner: Runner, batches: Sequence[Inputs], repeats: int) -> dict[str, float]:
    """Return the median and 95th percentile of the time of a call in milliseconds, over the batches in turn.

    Each batch is timed up to five times. idle: the least time in which this process computed, median over the batches.
    With one thread it is the latency on an idle machine: other programs that interrupt a call do not count.
    """
    batches = batches[: -(-repeats // _CALLS)]
    for batch in islice(cycle(batches), _WARM_UP):
        runner.logits(batch)
    times, computing = [], []
    for batch in islice(cycle(batches), repeats):
        start, started = time.perf_counter(), time.process_time()
        runner.logits(batch)
        computing.append(1e3 * (time.process_time() - started))
        times.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    found = {
        "p50": p50,
        "p95": p95,
        "idle": np.median([min(computing[i :: len(batches)]) for i in range(len(batches))]),
    }
    return {name: round(float(value), 3) for name, value in found.items()}


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
    return _resource_peak("RUSAGE_SELF")


def _resource_peak(whose: str) -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(getattr(resource, whose)).ru_maxrss * unit / _MB


def _main(work: str, address: str, artefact: str, threads: str, *arguments: str) -> None:
    """Print the measurement as JSON. address: MODULE:CLASS of the format; artefact: as JSON."""
    found = Artefact.from_json(json.loads(artefact))
    result = (
        _rows(address, found, int(threads), *arguments) if work == "rows" else _decoding(address, found, *arguments)
    )
    print(json.dumps(result))  # noqa: T201 - the parent process reads it


def _rows(address: str, artefact: Artefact, threads: int, repeats: str) -> dict[str, Any]:
    """Return the latency on the batches that standard input holds, and the memory."""
    with np.load(BytesIO(sys.stdin.buffer.read())) as arrays:
        batches = _from_npz(arrays)
    runner = format_at(address).open(artefact, threads)
    latency = {
        str(size): latency_ms(runner, several, int(repeats) if size == 1 else max(int(repeats) // 5, 1))
        for size, several in batches.items()
    }
    return {"latency_ms": latency, "peak_memory_mb": round(peak_memory(), 1)}


def _decoding(address: str, artefact: Artefact, load: str) -> dict[str, Any]:
    """Return the speed on a load, and the memory of this process or of a larger one that it started."""
    values = json.loads(load)
    speed = format_at(address).time_decoding(artefact, Load(**{**values, "prompt": tuple(values["prompt"])}))
    memory = max(peak_memory(), _resource_peak("RUSAGE_CHILDREN"))
    return {"speed": asdict(speed), "peak_memory_mb": round(memory, 1)}


if __name__ == "__main__":
    end_with_parent()
    _main(*sys.argv[1:])
