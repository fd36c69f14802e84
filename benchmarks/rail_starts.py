"""Paired tests of old and new RAIL-KD, from the runs of recipes/compare/rail-starts.yaml; writes JSON, prints tables.

    demiglace compare recipes/compare/rail-starts.yaml -o runs/rail-starts
    python benchmarks/rail_starts.py runs/rail-starts benchmarks/results/rail_starts.json

Only finished runs are used; the JSON lists their tasks and seeds, and keeps the tasks of an earlier call that HOME does
not have. The contrasts were chosen before the runs. Their p values are not corrected for multiple tests.
"""

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.evaluation.significance import PairedDifference, influence, paired_difference
from demiglace.runs.directory import read_manifest
from demiglace.runs.environment import machine, versions

CONTRASTS = (
    *(("rail-kd-l", other) for other in ("rail-before", "vanilla-kd", "none")),
    *(("rail-balanced", other) for other in ("rail-before", "vanilla-kd", "none")),
    *((method, "rail-before") for method in ("rail-tied", "rail-identity")),
    *((method, "vanilla-kd") for method in ("rail-before", "rail-tied", "rail-identity", "last-layer-kd")),
    ("vanilla-kd", "none"),
)
AVERAGED = ("banking77-10000", "mrpc", "rte")  # both tasks of Banking77 are scored on the same rows, so one takes part
Runs = dict[str, dict[str, dict[int, Path]]]


def evaluations(home: Path, ending: str) -> Runs:
    """Return task -> method -> seed -> directory of a finished evaluation."""
    found: Runs = defaultdict(lambda: defaultdict(dict))
    for manifest in sorted(home.glob(f"*/*/*/seed-*{ending}/manifest.json")):
        task, _, method, run = manifest.parent.relative_to(home).parts
        found[task][method][int(run.removesuffix(ending).removeprefix("seed-"))] = manifest.parent
    return found


def measured(directory: Path) -> tuple[str, float, np.ndarray, np.ndarray]:
    """Return the main metric, its value in points, labels and predictions [N] of the first set."""
    result = next(iter(read_manifest(directory)["sets"].values()))
    metric, value = next(iter(result["metrics"].items()))
    stem = next(directory.glob("*.predictions.npy")).name.removesuffix(".predictions.npy")
    labels, predictions = (np.load(directory / f"{stem}.{kind}.npy") for kind in ("labels", "predictions"))
    return metric, 100 * value, labels, predictions


def contrast(method_runs: dict[int, Path], control_runs: dict[int, Path]) -> dict[str, Any] | None:
    """Return the paired difference over the seeds that both have; None for fewer than two."""
    seeds = sorted(method_runs.keys() & control_runs.keys())
    if len(seeds) < 2:
        return None
    differences, rows = [], []
    for seed in seeds:
        (metric, value, labels, method_predictions), (_, other, _, control_predictions) = (
            measured(method_runs[seed]),
            measured(control_runs[seed]),
        )
        differences.append(value - other)
        rows.append(
            100 * (influence(metric, labels, method_predictions) - influence(metric, labels, control_predictions))
        )
    result = paired_difference(differences, [np.stack(rows)])
    return {
        "seeds": seeds,
        "difference": result.mean,
        "ci": result.interval(),
        "p": result.p(),
        "mde": result.detectable(),
        "error": result.error,
        "df": result.df,
    }


def summary(runs: Runs) -> dict[str, Any]:
    """Return each task's scores by method and seed, and its contrasts."""
    return {
        task: {
            "scores": {
                m: {seed: round(measured(d)[1], 3) for seed, d in found.items()} for m, found in methods.items()
            },
            "contrasts": {
                f"{method} - {control}": result
                for method, control in CONTRASTS
                if (result := contrast(methods.get(method, {}), methods.get(control, {}))) is not None
            },
        }
        for task, methods in runs.items()
    }


def average(tasks: dict[str, Any]) -> dict[str, Any]:
    """Return the mean over `AVERAGED` of each contrast that all of these tasks have; {} if one of them is missing.

    They share no rows and no teacher, so their errors are independent; Satterthwaite's degrees of freedom.
    """
    if not tasks.keys() >= {*AVERAGED}:
        return {}
    found = {}
    for name in tasks[AVERAGED[0]]["contrasts"]:
        parts = [tasks[task]["contrasts"][name] for task in AVERAGED if name in tasks[task]["contrasts"]]
        if len(parts) < len(AVERAGED):
            continue
        variances = np.array([part["error"] ** 2 for part in parts]) / len(parts) ** 2
        df = variances.sum() ** 2 / (variances**2 / [part["df"] for part in parts]).sum()
        mean = PairedDifference(
            float(np.mean([p["difference"] for p in parts])), float(variances.sum() ** 0.5), float(df)
        )
        found[name] = {"difference": mean.mean, "ci": mean.interval(), "p": mean.p(), "mde": mean.detectable()}
    return found


def show(result: dict[str, Any]) -> None:
    for task, content in result.items():
        print(f"\n{task}\n\n| method | mean ± sd | by seed |\n| --- | ---: | --- |")
        for method, scores in content["scores"].items():
            values = list(scores.values())
            deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            print(f"| {method} | {np.mean(values):.2f}{deviation} | {', '.join(f'{v:.2f}' for v in values)} |")
        show_contrasts(content["contrasts"])


def show_contrasts(contrasts: dict[str, Any]) -> None:
    print("\n| difference | points | 95 % interval | p | could have seen (MDE) |\n| --- | ---: | --- | ---: | ---: |")
    for name, found in contrasts.items():
        low, high = found["ci"]
        values = f"{found['difference']:+.2f} | {low:+.2f} to {high:+.2f} | {found['p']:.3f} | {found['mde']:.2f}"
        print(f"| `{name.replace(' - ', '` − `')}` | {values} |".replace(" -", " −"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ending", default=".evaluation", help="suffix of the evaluations' directories")
    args = parser.parse_args()
    facts = {"date": str(datetime.now(UTC).date()), "machine": machine(), "versions": versions()}
    known = json.loads(args.output.read_text())["tasks"] if args.output.exists() else {}
    tasks = known | {name: facts | found for name, found in summary(evaluations(args.home, args.ending)).items()}
    content = {"benchmark": "rail_starts", "tasks": tasks, "average": average(tasks)}
    args.output.write_text(json.dumps(content, indent=1) + "\n")
    show(tasks)
    print(f"\nmean of {', '.join(AVERAGED)}")
    show_contrasts(content["average"])


if __name__ == "__main__":
    main()
