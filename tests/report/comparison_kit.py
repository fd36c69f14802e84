"""Directories of `demiglace compare`, made of invented predictions and summarized by the real `summarize`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report_runs import write_run
from sklearn.metrics import f1_score

from demiglace.results.contrasts import Contrast
from demiglace.results.summary import summarize
from demiglace.runs.directory import open_run
from demiglace.runs.files import write_json

TASKS = ("sst2", "mrpc")
RIGHT = {"none": 0.70, "vanilla-kd": 0.705, "rail-kd-l": 0.84}  # share of rows that a method gets right
NAMES = ("negative", "positive")
ROWS = 300


def write_comparison(
    home: Path,
    *,
    tasks: Sequence[str] = TASKS,
    right: Mapping[str, float] = RIGHT,
    students: Sequence[str] = ("half",),
    seeds: int = 3,
    missing: Mapping[str, tuple[str, str]] | None = None,
    latency: bool = True,
    complete: bool = True,
    text: str = "a fine film",
    steps: int = 60,
    rows: int = ROWS,
    given: Mapping[str, Any] | None = None,
    primary: Sequence[Contrast] = (),
    protocol: Mapping[str, Any] | None = None,
    unit: str = "seed",
) -> Path:
    """Write a comparison as `compare` leaves it.

    missing: run -> (status, error); text: of the rows in the examples; given: further options of the command.
    """
    open_run(home, "compare", {}, {}, shared=True)
    found = [_teacher(home, task, latency, rows) for task in tasks]
    for task in tasks:
        for student in students:
            truncated = {"model": str(home / task / "teacher"), "layers": 3}
            write_run(home / task / student / "start", "truncate", truncated)
    for task in tasks:
        for student in students:
            for method, share in right.items():
                for seed in range(seeds):
                    found.append(_student(home, task, student, method, share, seed, latency, text, steps, rows))
    found = [r | {"unit": unit} for r in found]
    found = [_gone(r, *missing[r["run"]]) if missing and r["run"] in missing else r for r in found]
    grid = {"tasks": {t: {} for t in tasks}, "methods": {m: {} for m in right}, "seeds": list(range(seeds))}
    config = {"grid": grid, "search": "none"} | dict(given or {})
    write_json(home / "results.json", {"config": config, "records": found})
    write_json(home / "summary.json", summarize(found, home, primary, protocol))
    if complete:
        write_json(home / "manifest.json", {"format": 1, "stage": "compare", "config": config, "inputs": {}})
    return home


def one_task(tmp_path: Path, **options) -> Path:
    """A comparison of one task."""
    return write_comparison(tmp_path / "c", tasks=("sst2",), **options)


def change(home: Path, part: str, how: Callable[[dict], object]) -> None:
    """Rewrite every entry of a part of the summary."""
    summary = json.loads((home / "summary.json").read_text())
    for entry in summary[part]:
        how(entry)
    (home / "summary.json").write_text(json.dumps(summary))


def _student(
    home: Path,
    task: str,
    student: str,
    method: str,
    share: float,
    seed: int,
    latency: bool,
    text: str,
    steps: int,
    rows: int,
) -> dict[str, Any]:
    run = f"{task}/{student}/{method}/seed-{seed}"
    start = {"teacher": str(home / task / "teacher"), "student": str(home / task / student / "start")}
    write_run(home / run, "distill", start | {"data": task, "seed": seed})
    _write_log(home / run, share, steps, draws=method.startswith("rail"))
    cost = 1 + len(student) / 10
    return _record(home, task, run, share, seed, text, rows) | {
        "student": student,
        "method": method,
        "method_name": method if method in ("none", "vanilla-kd") else "rail-kd-l",
        "role": "student",
        "layers": 3,
        "parameters": int(17e6 * cost),
        "bytes": int(68e6 * cost),
        **_exported(home, run, 4.7 * cost, 68e6 * cost, latency and seed == 0),
    }


def _exported(home: Path, run: str, p50: float, size: float, there: bool) -> dict[str, Any]:
    """What a record has of an export: int8 takes a quarter of the bytes and half of the time."""
    if not there:
        return {"export": None, "latency_ms": None, "artefacts": []}
    write_run(home / f"{run}.export", "export", {"model": str(home / run), "data": "sst2"})
    times = [{"1": {"p50": p50 / part, "p95": p50 / part + 1}} for part in (1, 2)]
    full = {"precision": "fp32", "bytes": int(size), "latency_ms": times[0], "agreement": 1.0}
    small = {"precision": "int8", "bytes": int(size / 4), "latency_ms": times[1], "agreement": 0.973}
    return {"export": f"{run}.export", "latency_ms": times[0], "artefacts": [full, small]}


def _teacher(home: Path, task: str, latency: bool, rows: int) -> dict[str, Any]:
    run = f"{task}/teacher"
    write_run(home / run, "finetune", {"model": "some-encoder", "data": task})
    return (
        _record(home, task, run, 0.88, 0, "", rows)
        | {"student": None, "method": "teacher", "method_name": "none", "role": "teacher"}
        | {"layers": 6, "parameters": 23_000_000, "bytes": 91_000_000}
        | _exported(home, run, 14.5, 91e6, latency)
    )


def _record(home: Path, task: str, run: str, share: float, seed: int, text: str, rows: int) -> dict[str, Any]:
    evaluated = {"model": str(home / run), "data": [task, "hans"]}
    write_run(home / f"{run}.evaluation", "evaluate", evaluated)
    sets = {task: _set(home / f"{run}.evaluation", task, share, seed, rows)}
    sets["hans"] = _set(home / f"{run}.evaluation", "hans", share - 0.2, seed, rows) | {"groups": _groups(share, seed)}
    write_json(home / f"{run}.evaluation" / f"{task}.changes.json", _changes(share, text))
    return {
        "task": task,
        "seed": seed,
        "axes": {},
        "run": run,
        "evaluation": f"{run}.evaluation",
        "status": "done",
        "error": None,
        "in_domain": task,
        "metric": "accuracy",
        "sets": sets,
        "rows": {"train": 1000},
        "epoch_chosen_on_reported_rows": task == "sst2",
        "seconds": {"capture": 0.0 if "/none" in run else 3.0, "train": 20.0 + seed, "evaluate": 1.0},
    }


def _set(directory: Path, name: str, share: float, seed: int, rows: int) -> dict[str, Any]:
    """Predictions on disk, right by `share`, and what `evaluate` would say of them."""
    generator = np.random.default_rng([seed, int(1000 * share), len(name), len(str(directory.parent.name))])
    labels = np.random.default_rng(9).integers(0, 2, rows)
    said = np.where(generator.random(rows) < share, labels, 1 - labels)
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / f"{name}.labels.npy", labels)
    np.save(directory / f"{name}.predictions.npy", said)
    metrics = {"accuracy": float((said == labels).mean())}
    metrics |= {"f1": float(f1_score(labels, said))} if name == "mrpc" else {}
    return {"metrics": metrics, "rows": rows, "agreement": 0.9, "ece": 0.1, "worst_class_f1": 0.6}


def _groups(share: float, seed: int) -> dict[str, Any]:
    shares = {"lexical_overlap": share, "subsequence": share - 0.3, "constituent": share - 0.4}
    return {n: {"metrics": {"accuracy": s + seed / 200}, "rows": 100} for n, s in shares.items()}


def _changes(share: float, text: str) -> dict[str, Any]:
    lost = int(ROWS * (1 - share) / 2)
    row = {"text": text, "pair": None, "label": NAMES[0], "teacher": NAMES[0], "student": NAMES[1], "confidence": 0.9}
    return {
        "rows": ROWS,
        "counts": {"both_right": ROWS - 2 * lost, "lost": lost, "gained": 4, "both_wrong": lost - 4},
        "confusions": [{"from": NAMES[0], "to": NAMES[1], "rows": lost}],
        "examples": {"lost": [row] * 6, "gained": [row]},
    }


def _write_log(path: Path, share: float, steps: int, draws: bool) -> None:
    entries: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        terms = {"labels": 2.0 / step**0.5, "soft labels": 3.0 / step**0.4}
        entries.append({"kind": "step", "step": step, "epoch": 0, "loss": sum(terms.values()) / 2, "terms": terms})
    for epoch in range(3):
        metrics = {"accuracy": share - 0.1 / (epoch + 1)}
        entries.append({"kind": "epoch", "epoch": epoch, "step": steps, "metrics": metrics})
        if draws:
            pairs = [[i + 1, i + 1 + (epoch * (i + 2)) % 3] for i in range(3)]
            entries.append({"kind": "mapping", "epoch": epoch, "step": epoch, "term": "layers", "pairs": pairs})
    (path / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))


def _gone(record: dict[str, Any], status: str, error: str) -> dict[str, Any]:
    return record | {"status": status, "error": error or None, "sets": {}, "evaluation": None, "latency_ms": None}
