"""Measure static students: accuracy, size and latency of one row, with and without a teacher.

    python benchmarks/static_student.py runs/static TASK=TEACHER... [--max-rows N] [--epochs 10]
                                        [--learning-rates 0.003 0.01 0.03] [--no-teach] [--layers 3]

TASK is a named task, TEACHER the run directory of its teacher. For each task a static student is trained with `none`
(labels alone) at each of the learning rates, and with `vanilla-kd` unless --no-teach is given; then it is exported with
int8 weights and scored on the test rows, or on the validation rows of a task without test labels. Even `none` starts
from the teacher's token vectors. --layers adds a student of that many of the teacher's layers. The vocabulary is
trimmed to the tokens of the training rows.

All runs are demiglace runs, so the same command resumes. Results of a task that the results file has are kept, and
replaced if the task is given again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import kit

import demiglace
from demiglace.runs.directory import read_manifest


def measured(home: Path, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Train one student, export it, and return its scores, sizes and latencies."""
    demiglace.distill(output=home, **options)
    exported = home.with_name(home.name + "-onnx")
    demiglace.export(model=str(home), quantize="int8", repeats=repeats, output=exported)
    run, files = read_manifest(home), read_manifest(exported)
    facts = {
        artefact["precision"]: {
            "bytes": artefact["bytes"],
            "p50 of one row, ms": artefact["latency_ms"]["1"]["p50"],
            "same label": artefact["label_agreement"],
            "accuracy": artefact["metrics"]["accuracy"],
        }
        for artefact in files["artefacts"]
        if artefact["role"] == "export"
    }
    return {
        "rows": run["rows"],
        "parameters": run["parameters"],
        "learning_rate": run["config"]["learning_rate"],
        "metrics": run["metrics"],
        "seconds of training": run["seconds"]["train"],
        "onnx": facts,
    }


def task_results(home: Path, task: str, teacher: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train and measure all students of a task."""
    trained = read_manifest(Path(teacher))
    shared = {"teacher": teacher, "data": task, "max_rows": given.max_rows, "vocabulary": "trim"}
    static = shared | {"student": "static", "epochs": given.epochs}
    found = {}
    for rate in given.learning_rates:
        options = static | {"method": "none", "learning_rate": rate}
        found[f"static, none, {rate:g}"] = measured(home / f"{task}-static-none-{rate:g}", options, given.repeats)
    if given.teach:
        found["static, vanilla-kd"] = measured(home / f"{task}-static", static, given.repeats)
    if given.layers:
        options = shared | {"layers": given.layers, "method": "vanilla-kd", "learning_rate": 2e-4}
        found[f"{given.layers} layers, vanilla-kd"] = measured(home / f"{task}-layers", options, given.repeats)
    names = ("data", "max_rows", "epochs", "learning_rate")
    about = {"rows": trained["rows"], "config": {name: trained["config"].get(name) for name in names}}
    return {"teacher": about | {"metrics": trained["metrics"]}, "students": found}


def main() -> None:
    """Measure the tasks that are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("tasks", nargs="+", metavar="TASK=TEACHER")
    parser.add_argument("--max-rows", type=int)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rates", type=float, nargs="*", default=[0.003, 0.01, 0.03])
    parser.add_argument("--teach", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    file = kit.RESULTS / "static_student.json"
    results = json.loads(file.read_text())["results"] if file.exists() else {}
    for task, _, teacher in (each.partition("=") for each in given.tasks):
        results[task] = task_results(given.home, task, teacher, given)
        config = {name: value for name, value in vars(given).items() if name not in ("home", "tasks")}
        results[task]["options"] = config
        kit.write("static_student", {"results": "by task, with the options of its call"}, results)


if __name__ == "__main__":
    main()
