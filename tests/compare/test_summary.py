"""The summary of a comparison from its records, and its tables."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demiglace.compare.summary import summarise
from demiglace.compare.tables import latex, markdown, result_tables, write_tables
from demiglace.evaluation.significance import mcnemar, seed_test

SEEDS = (0, 1, 2, 3, 4)
RIGHT = {"none": 0.70, "vanilla-kd": 0.72, "rail & co": 0.85}  # share of rows that a method gets right


def record(home: Path, task: str, method: str, seed: int, **changed: Any) -> dict[str, Any]:
    """A record as `compare.records` makes them, with the predictions that it stands for on disk."""
    generator = np.random.default_rng([seed, len(task), len(method)])
    path = f"{task}/half/{method}/seed-{seed}.evaluation"
    sets = {}
    for name, rows in ((task, 400), (f"adv_{task}", 100)):
        labels = np.random.default_rng(9).integers(0, 2, rows)
        said = np.where(generator.random(rows) < RIGHT.get(method, 0.9), labels, 1 - labels)
        (home / path).mkdir(parents=True, exist_ok=True)
        np.save(home / path / f"{name}.labels.npy", labels)
        np.save(home / path / f"{name}.predictions.npy", said)
        accuracy = float((said == labels).mean())
        sets[name] = {
            "metrics": {"accuracy": accuracy},
            "rows": rows,
            "agreement": 0.9,
            "ece": 0.1,
            "worst_class_f1": 0.6,
        }
    return {
        "task": task,
        "student": "half",
        "method": method,
        "method_name": method if method in ("none", "vanilla-kd") else "rail-kd-l",
        "seed": seed,
        "axes": {},
        "role": "student",
        "run": f"{task}/half/{method}/seed-{seed}",
        "evaluation": path,
        "export": None,
        "status": "done",
        "error": None,
        "in_domain": task,
        "metric": "accuracy",
        "sets": sets,
        "parameters": 10,
        "layers": 3,
        "bytes": 40,
        "rows": {},
        "seconds": {"capture": 1.0, "train": 2.0 + seed, "evaluate": 0.0},
        "latency_ms": None,
    } | changed


def records(home: Path) -> list[dict[str, Any]]:
    students = [record(home, task, m, s) for task in ("sst2", "rte") for m in RIGHT for s in SEEDS]
    teachers = [record(home, task, "teacher", 0, role="teacher", student=None) for task in ("sst2", "rte")]
    return teachers + students


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    return summarise(records(tmp_path), tmp_path)


def cell(summary: dict[str, Any], task: str, method: str) -> dict[str, Any]:
    return next(c for c in summary["cells"] if (c["task"], c["method"]) == (task, method))


def test_means_and_deviations(summary: dict[str, Any], tmp_path: Path) -> None:
    found = cell(summary, "sst2", "none")["sets"]["sst2"]["metrics"]["accuracy"]
    values = [
        r["sets"]["sst2"]["metrics"]["accuracy"]
        for r in records(tmp_path)
        if (r["task"], r["method"]) == ("sst2", "none")
    ]
    assert found["values"] == values
    assert (found["mean"], found["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert cell(summary, "sst2", "none")["train_seconds"]["mean"] == 4.0


def test_differences_from_both_controls(summary: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = (
        cell(summary, "rte", m)["sets"]["rte"]["metrics"]["accuracy"]["values"] for m in ("rail & co", "none")
    )
    found = cell(summary, "rte", "rail & co")["sets"]["rte"]["against"]
    assert set(found) == {"none", "vanilla-kd"}
    assert found["none"]["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found["none"]["ci"][0] < found["none"]["difference"] < found["none"]["ci"][1]
    assert found["none"]["p"] == pytest.approx(seed_test(ours, theirs))
    assert found["none"]["verdict"] == "better"
    files = [np.load(tmp_path / f"rte/half/{m}/seed-0.evaluation/rte.predictions.npy") for m in ("rail & co", "none")]
    labels = np.load(tmp_path / "rte/half/none/seed-0.evaluation/rte.labels.npy")
    assert found["none"]["mcnemar"][0] == pytest.approx(mcnemar(labels, *files))
    assert cell(summary, "rte", "none")["sets"]["rte"]["against"].keys() == {"vanilla-kd"}


def test_p_is_corrected_for_the_comparisons_of_a_set(summary: dict[str, Any]) -> None:
    tests = [
        c["sets"]["sst2"]["against"]["none"] for c in summary["cells"] if c["task"] == "sst2" and c["method"] != "none"
    ]
    low, high = sorted(tests, key=lambda t: t["p"])
    assert low["p_corrected"] == pytest.approx(min(1, 2 * low["p"]))
    assert high["p_corrected"] == pytest.approx(max(high["p"], low["p_corrected"]))


def test_equal_methods_are_not_told_apart(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in ("none", "vanilla-kd") for s in SEEDS]
    again = [record(tmp_path, "rte", "none", s) | {"method": "twin", "method_name": "pkd"} for s in SEEDS]
    found = cell(summarise(rows + again, tmp_path), "rte", "twin")["sets"]["rte"]["against"]["none"]
    assert (found["difference"], found["ci"], found["p_corrected"]) == (0, [0, 0], 1)
    assert found["verdict"] == "no significant difference"


def test_two_seeds_are_too_few(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in (0, 1)]
    found = cell(summarise(rows, tmp_path), "rte", "rail & co")["sets"]["rte"]["against"]["none"]
    assert found["verdict"] == "too few seeds to tell"


def test_missing_runs_are_named_and_not_averaged_over(tmp_path: Path) -> None:
    rows = records(tmp_path)
    gone = next(r for r in rows if (r["task"], r["method"], r["seed"]) == ("sst2", "rail & co", 3))
    gone.update(status="failed", error="the loss is nan", sets={}, evaluation=None, in_domain=None, metric=None)
    found = summarise(rows, tmp_path)
    assert [(m["run"], m["error"]) for m in found["missing"]] == [("sst2/half/rail & co/seed-3", "the loss is nan")]
    assert cell(found, "sst2", "rail & co")["missing"] == [3]
    assert cell(found, "sst2", "rail & co")["sets"]["sst2"]["against"]["none"]["seeds"] == [0, 1, 2, 4]
    average = next(a for a in found["averages"] if a["method"] == "rail & co")
    assert average["seeds"] == [0, 1, 2, 4]


def test_nothing_done_gives_an_empty_summary(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", "none", 0) | {"status": "missing", "sets": {}}]
    found = summarise(rows, tmp_path)
    assert found["cells"] == [] and len(found["missing"]) == 1
    assert result_tables(found) == []


def test_averages_over_tasks(summary: dict[str, Any]) -> None:
    average = next(a for a in summary["averages"] if a["method"] == "none")
    means = [cell(summary, task, "none")["sets"][task]["metrics"]["accuracy"]["mean"] for task in ("sst2", "rte")]
    assert average["in_domain"]["mean"] == pytest.approx(np.mean(means))
    assert average["tasks"] == ["sst2", "rte"]
    assert average["out_of_domain"]["mean"] != average["in_domain"]["mean"]


def test_axes_have_their_own_control(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) | {"axes": {"lr": lr}} for m in RIGHT for s in SEEDS for lr in (0.1, 0.2)]
    found = summarise(rows, tmp_path)
    assert len(found["cells"]) == 6
    assert all("none" in c["sets"]["rte"]["against"] for c in found["cells"] if c["method"] != "none")


def test_files_of_tables(summary: dict[str, Any], tmp_path: Path) -> None:
    files = {f.name: f.read_text() for f in write_tables(summary, tmp_path / "tables")}
    assert json.loads(files["summary.json"]) == summary
    rows = list(csv.DictReader(io.StringIO(files["results.csv"])))
    assert len(rows) == 2 * 2 * (
        1 + 1 + 2
    )  # tasks, sets, and the controls that none, vanilla-kd and rail stand against
    assert {r["verdict"] for r in rows if r["method"] == "rail & co" and r["against"] == "none"} == {"better"}
    text = files["tables.md"]
    best = cell(summary, "sst2", "rail & co")["sets"]["sst2"]["metrics"]["accuracy"]
    assert f"**{100 * best['mean']:.1f} ± {100 * best['sd']:.1f} ↑**" in text
    assert "none (control)" in text and "half: out of domain" in text
    assert r"rail \& co" in files["tables.tex"] and "NaN" not in files["summary.json"]


def test_hostile_names_stay_in_their_cells(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        r["method"] = r["method"].replace("rail & co", "a|b\n\\end{table}_%")
    tables = result_tables(summarise(rows, tmp_path))
    assert all(line.count("|") - line.count("\\|") in (0, 4) for line in markdown(tables[0]).splitlines()[2:6])
    assert r"a|b" in latex(tables[0]) and r"\textbackslash{}end\{table\}\_\%" in latex(tables[0])
