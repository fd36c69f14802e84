"""Measure memory and time of distilling language models, against plain PyTorch losses and TRL's GKD trainer.

Plain training is also compared with a bare PyTorch loop.

    make bench-language                          about an hour
    python benchmarks/language.py --quick        tiny shapes, as a test; writes no results

Every measurement runs in a separate process (`language_measure.py`), on one core with one thread, in fp32. Speeds are
in tokens per CPU-second. Ratios are taken within a round or a pair of steps; their median and quartiles are reported.
Memory is the peak of the process (VmHWM, Linux) minus its memory before the first step, with models and libraries
loaded.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.runs.environment import machine, versions
from demiglace.runs.files import write_json

HERE = Path(__file__).resolve().parent
SIDES = ("plain", "ours", "ours, KL alone", "no loss", "TRL GKD")
Measure = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """The shape of teacher and student, which are GPT-2s, and of a step."""

    vocabulary: int
    width: int
    block: int  # tokens per row
    rows: int  # per step
    layers: int = 12
    student_layers: int = 6
    steps: int = 4  # per epoch
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Return the tokens of a step."""
        return self.block * self.rows


DISTIL = (Shape(50_257, 256, 1024, 4), Shape(50_257, 768, 1024, 4))
TRAIN = tuple(Shape(v, 256, block, 4096 // block) for v in (8_192, 50_257) for block in (256, 512))
QUICK = Shape(503, 32, 16, 2, layers=4, student_layers=2, steps=2)


def main() -> None:
    args = _arguments()
    measure = _in_process(args.core)
    distil, train = ((QUICK,), (QUICK,)) if args.quick else (DISTIL, TRAIN)
    results: dict[str, Any] = {"distillation": [], "training": []}
    for i, shape in enumerate(distil):
        # The second, wider model shows how the shares change. Its steps are long, so one turn per side is enough.
        rounds, pairs, sides = (args.rounds, args.pairs, SIDES) if i == 0 else (1, 0, ("plain", "ours", "no loss"))
        results["distillation"].append(distillation(shape, rounds, pairs, sides, measure))
    for shape in train:
        results["training"].append(training(shape, args.rounds, measure))
    record = {
        "benchmark": "language",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": 1,
        "precision": "fp32",
        "versions": versions() | ({"trl": metadata.version("trl")} if _present("TRL GKD") else {}),
        "config": {"rounds": args.rounds, "pairs": args.pairs, "pinned": args.core >= 0},
        "results": results,
    }
    print(json.dumps(results, indent=2))
    if not args.quick:
        write_json(HERE / "results" / "language.json", record)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="training of language models against plain PyTorch and TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=6, help="pairs of steps, plain and ours alternately")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, without a file in results/")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="the core to pin to, -1 for none")
    return parser.parse_args()


def _in_process(core: int) -> Measure:
    """Measures in a new process, and returns what it says on its last line."""

    def measure(what: str, shape: Shape, number: int) -> dict[str, Any]:
        words = [sys.executable, str(HERE / "language_measure.py"), what, json.dumps(asdict(shape)), str(number)]
        done = subprocess.run([*words, str(core)], env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(f"{what}, V {shape.vocabulary}, width {shape.width}, block {shape.block}: {found}", file=sys.stderr)
        return found

    return measure


def _environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    return os.environ | quiet | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}


def _present(side: str) -> bool:
    return side != "TRL GKD" or importlib.util.find_spec("trl") is not None


def distillation(shape: Shape, rounds: int, pairs: int, sides: Sequence[str], measure: Measure) -> dict[str, Any]:
    """A step with a teacher: every side alone, turn by turn, and then `pairs` times a step of plain and one of ours."""
    sides = [name for name in sides if _present(name)]
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in _rotated(sides, number):
            turns[name].append(measure(name, shape, 1))
    found = {
        "shape": asdict(shape),
        "tokens of a step": shape.tokens,
        "sides": {name: _side(turns[name], shape) for name in sides},
    } | _ratios(turns)
    if pairs:
        paired = measure("pair", shape, pairs)
        found["agreement of plain and ours"] = paired["agreement"]
        found["speed of ours over plain, paired steps"] = _ratio(paired["plain"], paired["ours"])
    return found


def _rotated(sides: Sequence[str], number: int) -> Iterable[str]:
    """Rotate the sides by one per round, so that no side always runs after the same one."""
    start = number % len(sides)
    return (*sides[start:], *sides[:start])


def _side(turns: Sequence[Mapping[str, Any]], shape: Shape) -> dict[str, Any]:
    speeds = [shape.tokens / t for turn in turns for t in turn["seconds"]]
    return {
        "tokens per CPU-second": spread(speeds),
        "resting MiB": round(turns[0]["resting MiB"]),
        "peak MiB above it": spread([turn["peak MiB"] for turn in turns]),
    }


def _ratios(turns: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return ratios of peak memory, with and without the models, and of speed to the peer with the same computation."""
    peaks = {name: np.array([turn["peak MiB"] for turn in of]) for name, of in turns.items()}
    times = {name: [float(np.median(turn["seconds"])) for turn in of] for name, of in turns.items()}
    floor = peaks["no loss"]
    found = {
        "peak of ours over plain": spread(peaks["ours"] / peaks["plain"]),
        "speed of ours over plain, turns": _ratio(times["plain"], times["ours"]),
        "MiB that the losses add to the models, plain": spread(peaks["plain"] - floor),
        "MiB that the losses add to the models, ours": spread(peaks["ours"] - floor),
    }
    if "TRL GKD" in turns:
        ours = "ours, KL alone"
        found["peak of ours over TRL GKD, KL alone"] = spread(peaks[ours] / peaks["TRL GKD"])
        found["speed of ours over TRL GKD, KL alone"] = _ratio(times["TRL GKD"], times[ours])
    return found


def training(shape: Shape, rounds: int, measure: Measure) -> dict[str, Any]:
    """Compare plain training of the student by our loop and by a bare loop."""
    times = measure("training", shape, rounds)
    tokens = shape.tokens * shape.steps
    return {
        "shape": asdict(shape),
        "tokens per CPU-second": {name: spread([tokens / t for t in times[name]]) for name in ("ours", "bare")},
        "mean loss": times["losses"],
        "speed of ours over bare": _ratio(times["bare"], times["ours"]),
    }


def _ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(slower, faster, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {"median": round(float(middle), 4), "q1": round(float(low), 4), "q3": round(float(high), 4)}


if __name__ == "__main__":
    main()
