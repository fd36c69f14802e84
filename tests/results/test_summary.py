"""The summary of a comparison from its records, and its tables."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demiglace.evaluation.significance import PairedDifference, holm_correction, mcnemar, paired_t_test
from demiglace.report.comparison.result_tables import result_tables
from demiglace.report.comparison.table_files import long_csv, primary_csv, write_tables
from demiglace.report.tables import Cell, Table
from demiglace.report.text_tables import latex, latex_of, markdown
from demiglace.results.contrasts import Contrast
from demiglace.results.summary import summarize

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
    return summarize(records(tmp_path), tmp_path)


def titles_of(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def texts_of(row: tuple[Cell, ...]) -> list[str]:
    return [cell.text.replace("\u00a0", " ") for cell in row]


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


def test_differences_from_both_baselines(summary: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = (
        cell(summary, "rte", m)["sets"]["rte"]["metrics"]["accuracy"]["values"] for m in ("rail & co", "none")
    )
    found = cell(summary, "rte", "rail & co")["sets"]["rte"]["against"]
    assert set(found) == {"none", "vanilla-kd"}
    assert found["none"]["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found["none"]["ci"][0] < found["none"]["difference"] < found["none"]["ci"][1]
    estimate = PairedDifference(*(found["none"][k] for k in ("difference", "se", "df")))
    assert found["none"]["p"] == pytest.approx(estimate.p()) and found["none"]["ci"] == pytest.approx(
        estimate.interval()
    )
    assert found["none"]["se"] >= np.std(np.subtract(ours, theirs), ddof=1) / len(SEEDS) ** 0.5
    assert (found["none"]["verdict"], found["none"]["family"]) == ("better", "exploratory")
    files = [np.load(tmp_path / f"rte/half/{m}/seed-0.evaluation/rte.predictions.npy") for m in ("rail & co", "none")]
    labels = np.load(tmp_path / "rte/half/none/seed-0.evaluation/rte.labels.npy")
    assert found["none"]["mcnemar"][0] == pytest.approx(mcnemar(labels, *files))
    assert cell(summary, "rte", "none")["sets"]["rte"]["against"].keys() == {"vanilla-kd"}


def against(summary: dict[str, Any], task: str, method: str, name: str, baseline: str = "none") -> dict[str, Any]:
    return cell(summary, task, method)["sets"][name]["against"][baseline]


def test_only_primary_tests_are_corrected(tmp_path: Path) -> None:
    contrasts = (
        Contrast("rail & co", "vanilla-kd", None, False, 2.0),
        Contrast("vanilla-kd", "none", None, True, 3.0),
        Contrast("rail & co", "none", ("rte",), True, None),
    )
    found = summarize(records(tmp_path), tmp_path, contrasts)
    entries = found["primary"]
    assert [(e["method"], e["baseline"], e["tasks"], e["average"]) for e in entries] == [
        ("rail & co", "vanilla-kd", ["sst2"], False),
        ("rail & co", "vanilla-kd", ["rte"], False),
        ("vanilla-kd", "none", ["sst2", "rte"], True),
        ("rail & co", "none", ["rte"], True),
    ]
    tests = [e["test"] for e in entries]
    assert [t["p_corrected"] for t in tests] == pytest.approx(holm_correction([t["p"] for t in tests]))
    assert all(t["family"] == "primary" and t["mde_alpha"] == 0.05 / 4 for t in tests)
    estimate = PairedDifference(*(tests[2][k] for k in ("difference", "se", "df")))
    assert tests[2]["mde"] == pytest.approx(estimate.detectable(0.05 / 4))
    assert against(found, "rte", "rail & co", "rte", "vanilla-kd")["p_corrected"] == tests[1]["p_corrected"]
    average = next(a for a in found["averages"] if a["method"] == "vanilla-kd")
    assert average["against"]["in_domain"]["none"]["p_corrected"] == tests[2]["p_corrected"]
    single = against(found, "rte", "rail & co", "rte")  # the average over one task has the same numbers
    assert tests[3]["difference"] == pytest.approx(single["difference"]) and tests[3]["se"] == pytest.approx(
        single["se"]
    )
    assert (single["family"], single["p_corrected"], single["mde_alpha"]) == ("exploratory", None, 0.05)
    margins = [e["test"]["equivalence"] for e in entries]
    assert [m and m["margin"] for m in margins] == [0.02, 0.02, 0.03, None]
    assert [m["p_corrected"] for m in margins[:3]] == pytest.approx(holm_correction([m["p"] for m in margins[:3]]))
    assert margins[0]["verdict"] == "not shown to be equivalent"


def test_equivalence_counts_contrasts_whose_runs_are_missing(tmp_path: Path) -> None:
    """Or a comparison that is half done would call methods equivalent, and take it back later."""
    there, absent = (Contrast(method, "none", None, True, 3.0) for method in ("vanilla-kd", "rail & co"))
    rows = [r | {"status": "missing", "sets": {}} if r["method"] == "rail & co" else r for r in records(tmp_path)]
    alone, both = (
        summarize(rows, tmp_path, contrasts)["primary"][0]["test"]["equivalence"]
        for contrasts in ((there,), (there, absent))
    )
    assert both["p_corrected"] == pytest.approx(min(1.0, 2 * alone["p"]))


def test_a_primary_contrast_may_have_any_baseline(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in (*RIGHT, "pkd") for s in SEEDS]
    found = summarize(rows, tmp_path, [Contrast("rail & co", "pkd", None, False, None)])
    assert found["primary"][0]["test"]["difference"] == pytest.approx(
        cell(found, "rte", "rail & co")["sets"]["rte"]["metrics"]["accuracy"]["mean"]
        - cell(found, "rte", "pkd")["sets"]["rte"]["metrics"]["accuracy"]["mean"]
    )
    assert against(found, "rte", "rail & co", "rte", "pkd")["family"] == "primary"
    assert against(found, "rte", "rail & co", "adv_rte", "pkd")["family"] == "exploratory"
    assert cell(found, "rte", "vanilla-kd")["sets"]["rte"]["against"].keys() == {"none"}


def test_a_declared_contrast_without_runs_is_counted_and_named(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    gone = [r | {"status": "missing", "sets": {}} if r["method"] == "vanilla-kd" else r for r in rows]
    contrasts = [Contrast("rail & co", c, None, False, None) for c in ("none", "vanilla-kd")]
    first, second = summarize(gone, tmp_path, contrasts)["primary"]
    assert second["test"] is None and first["test"]["p_corrected"] == pytest.approx(2 * first["test"]["p"])
    table = result_tables(summarize(gone, tmp_path, contrasts))[0]
    assert [row[6].text for row in table.rows] == ["better", "not tested: runs are missing"]
    write_tables(summarize(gone, tmp_path, contrasts), tmp_path / "tables")
    lines = list(csv.DictReader((tmp_path / "tables" / "primary.csv").open()))
    assert [(x["baseline"], x["verdict"]) for x in lines] == [
        *(("none", "better"), ("vanilla-kd", "not tested: runs are missing"))
    ]


def test_students_without_both_methods_have_no_contrast(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    rows += [record(tmp_path, "rte", "none", s) | {"student": "third"} for s in SEEDS]
    found = summarize(rows, tmp_path, [Contrast("rail & co", "none", None, True, None)])
    assert [e["student"] for e in found["primary"]] == ["half"]


def test_every_axis_value_is_a_contrast(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", "rail & co", s) | {"axes": {"lr": lr}} for s in SEEDS for lr in (0.1, 0.2)]
    rows += [record(tmp_path, "rte", "none", s) for s in SEEDS]
    found = summarize(rows, tmp_path, [Contrast("rail & co", "none", None, False, None)])
    assert [e["axes"] for e in found["primary"]] == [{"lr": 0.1}, {"lr": 0.2}]
    assert all(e["test"]["mde_alpha"] == 0.025 for e in found["primary"])


def test_a_lower_error_is_better(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        r["sets"]["rte"]["metrics"] = {"mse": 0.1 + r["seed"] / 1000 + (r["method"] == "none") / 10}
    found = summarize(rows, tmp_path, [Contrast("rail & co", "none", None, False, 0.2)])
    test = found["primary"][0]["test"]
    assert test["difference"] == pytest.approx(-0.1) and test["verdict"] == "better"
    assert test["equivalence"]["margin"] == 0.2  # an error has no points of 100


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        (None, "It is not known whether"),
        ({"changed_after_first_run": True}, "were declared or changed after the first run (2026-11-30 in the protocol"),
        ({}, "were declared before the first run (2026-11-30 in the protocol p.md (SHA-256 000000000000…))."),
        ({"file": None, "sha256": None}, "were declared before the first run (2026-11-30 in the grid)."),
    ],
)
def test_the_tables_state_when_contrasts_were_declared(tmp_path: Path, protocol: Any, sentence: str) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    usual = {
        "file": "a/p.md",
        "sha256": "0" * 64,
        "declared_at": "2026-11-30T08:00:00",
        "changed_after_first_run": False,
    }
    declared = None if protocol is None else usual | protocol
    found = summarize(rows, tmp_path, [Contrast("rail & co", "none", None, False, None)], declared)
    assert all(sentence in t.caption for t in result_tables(found)[:2])
    assert "No contrast was declared as primary" in result_tables(summarize(rows, tmp_path))[0].caption


def test_tables_speak_of_replicates(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s, unit="replicate") for m in RIGHT for s in SEEDS]
    found = summarize(rows, tmp_path, [Contrast("rail & co", "none", None, False, None)])
    captions = " ".join(t.caption for t in result_tables(found))
    assert found["unit"] == "replicate" and "over 5 replicates" in captions and "seed" not in captions


def test_averages_are_compared_with_the_baselines(summary: dict[str, Any], tmp_path: Path) -> None:
    of = {a["method"]: a for a in summary["averages"]}
    ours, theirs = (of[m]["in_domain"]["values"] for m in ("rail & co", "none"))
    found = of["rail & co"]["against"]["in_domain"]["none"]
    assert found["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found["p"] < 0.01 and paired_t_test(ours, theirs) < 0.01 and found["verdict"] == "better"
    assert found["ci"][0] < found["difference"] < found["ci"][1]
    assert found["se"] >= np.std(np.subtract(ours, theirs), ddof=1) / len(SEEDS) ** 0.5
    assert of["none"]["against"]["in_domain"].keys() == {"vanilla-kd"}
    lost = [r for r in records(tmp_path) if (r["task"], r["method"]) != ("rte", "none")]
    assert "none" not in next(a for a in summarize(lost, tmp_path)["averages"] if a["method"] == "rail & co")[
        "against"
    ].get("in_domain", {})


def test_the_baseline_is_the_method_of_that_label(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    short = [record(tmp_path, "rte", "none-short", s, method_name="none") for s in SEEDS]
    found = summarize(short + rows, tmp_path)
    ours, theirs = (cell(found, "rte", m)["sets"]["rte"]["metrics"]["accuracy"]["mean"] for m in ("rail & co", "none"))
    assert against(found, "rte", "rail & co", "rte")["difference"] == pytest.approx(ours - theirs)
    assert [c["method"] for c in found["cells"] if c["baseline"]] == ["none", "vanilla-kd"]
    assert "none" in cell(found, "rte", "none-short")["sets"]["rte"]["against"]
    alone = summarize(short + [r for r in rows if r["method"] != "none"], tmp_path)
    assert "none" in cell(alone, "rte", "rail & co")["sets"]["rte"]["against"]  # nothing else is without a teacher


def test_two_validation_sets_of_a_task_are_no_other_domain(tmp_path: Path) -> None:
    rows = [record(tmp_path, "mnli", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        r["sets"] = {"mnli": r["sets"]["mnli"], "mnli:validation_mismatched": r["sets"]["mnli"]}
        home = tmp_path / r["evaluation"]
        for kind in ("labels", "predictions"):
            np.save(home / f"mnli-validation_mismatched.{kind}.npy", np.load(home / f"mnli.{kind}.npy"))
    found = summarize(rows, tmp_path)
    assert all(a["out_of_domain"] is None for a in found["averages"])
    assert [t.title for t in result_tables(found)] == ["half: in domain", "half: cost"]


def test_an_axis_may_be_a_list(tmp_path: Path) -> None:
    values = (["wpe"], [])
    rows = [record(tmp_path, "rte", m, s, axes={"freeze": v}) for m in RIGHT for s in SEEDS for v in values]
    found = summarize(rows, tmp_path)
    assert [c["axes"]["freeze"] for c in found["cells"] if c["method"] == "none"] == [["wpe"], []]
    assert all(a["in_domain"] for a in found["averages"])


def test_equal_methods_are_not_told_apart(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in ("none", "vanilla-kd") for s in SEEDS]
    again = [record(tmp_path, "rte", "none", s) | {"method": "twin", "method_name": "pkd"} for s in SEEDS]
    found = cell(summarize(rows + again, tmp_path), "rte", "twin")["sets"]["rte"]["against"]["none"]
    assert (found["difference"], found["ci"], found["p"]) == (0, [0, 0], 1)
    assert found["verdict"] == "no significant difference"


def test_two_seeds_are_too_few(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in (0, 1)]
    found = cell(summarize(rows, tmp_path), "rte", "rail & co")["sets"]["rte"]["against"]["none"]
    assert found["verdict"] == "too few seeds to tell"


def test_missing_runs_are_named_and_not_averaged_over(tmp_path: Path) -> None:
    rows = records(tmp_path)
    gone = next(r for r in rows if (r["task"], r["method"], r["seed"]) == ("sst2", "rail & co", 3))
    gone.update(status="failed", error="the loss is nan", sets={}, evaluation=None, in_domain=None, metric=None)
    found = summarize(rows, tmp_path)
    assert [(m["run"], m["error"]) for m in found["missing"]] == [("sst2/half/rail & co/seed-3", "the loss is nan")]
    assert cell(found, "sst2", "rail & co")["missing"] == [3]
    assert cell(found, "sst2", "rail & co")["sets"]["sst2"]["against"]["none"]["seeds"] == [0, 1, 2, 4]
    average = next(a for a in found["averages"] if a["method"] == "rail & co")
    assert average["seeds"] == [0, 1, 2, 4]


def test_nothing_done_gives_an_empty_summary(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", "none", 0) | {"status": "missing", "sets": {}}]
    found = summarize(rows, tmp_path)
    assert found["cells"] == [] and len(found["missing"]) == 1
    assert result_tables(found) == []


def test_averages_over_tasks(summary: dict[str, Any]) -> None:
    average = next(a for a in summary["averages"] if a["method"] == "none")
    means = [cell(summary, task, "none")["sets"][task]["metrics"]["accuracy"]["mean"] for task in ("sst2", "rte")]
    assert average["in_domain"]["mean"] == pytest.approx(np.mean(means))
    assert average["tasks"] == ["sst2", "rte"]
    assert average["out_of_domain"]["mean"] != average["in_domain"]["mean"]


def test_axes_have_their_own_baseline(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) | {"axes": {"lr": lr}} for m in RIGHT for s in SEEDS for lr in (0.1, 0.2)]
    found = summarize(rows, tmp_path)
    assert len(found["cells"]) == 6
    assert all("none" in c["sets"]["rte"]["against"] for c in found["cells"] if c["method"] != "none")


def test_files_of_tables(summary: dict[str, Any], tmp_path: Path) -> None:
    files = {f.name: f.read_text() for f in write_tables(summary, tmp_path / "tables")}
    assert json.loads(files["summary.json"]) == summary
    rows = list(csv.DictReader(io.StringIO(files["results.csv"])))
    students = [r for r in rows if r["method"] in RIGHT and r["set"] != "average"]
    assert len(students) == 2 * 2 * (1 + 1 + 2)  # tasks, sets, and the baselines that each method stands against
    assert {r["verdict"] for r in students if r["method"] == "rail & co" and r["against"] == "none"} == {"better"}
    first = students[0]
    assert list(map(float, first["values"].split())) == pytest.approx(
        cell(summary, "sst2", "none")["sets"]["sst2"]["metrics"]["accuracy"]["values"]
    )
    assert len(first["mcnemar"].split()) == len(SEEDS) and first["layers"] == "3" and first["axes"] == ""
    assert len([r for r in rows if r["method"] == "teacher"]) == 2 * 2
    averages = [r for r in rows if r["set"] == "average" and r["method"] == "rail & co"]
    assert next((r["in_domain"], r["against"], r["verdict"]) for r in averages) == ("True", "none", "better")
    text = files["tables.md"]
    best = cell(summary, "sst2", "rail & co")["sets"]["sst2"]["metrics"]["accuracy"]
    assert f"**{100 * best['mean']:.1f} ± {100 * best['sd']:.1f} (↑)**" in text
    assert "none (baseline)" in text and "half: out of domain" in text
    assert r"rail \& co" in files["tables.tex"] and "NaN" not in files["summary.json"]


def test_a_table_shows_every_metric_of_a_task_and_what_it_cost(tmp_path: Path) -> None:
    rows = [record(tmp_path, "mrpc", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        r["sets"]["mrpc"]["metrics"]["f1"] = 0.5 + r["seed"] / 100
        r["sets"]["mrpc"]["groups"] = {"short": {"metrics": {"accuracy": 0.25}}}
        r["latency_ms"] = {"1": {"p50": 1.25}}
    summary = summarize(rows, tmp_path)
    inside, outside, cost = result_tables(summary)
    assert titles_of(inside) == ["method", "mrpc (accuracy, 400 rows)", "mrpc (F1, 400 rows)", "average"]
    assert inside.rows[1][2].text == "52.0 ± 1.6" and len(outside.columns) == 3
    assert titles_of(cost) == [
        *("method", "mrpc: training", "teacher's capture"),
        *("parameters", "file size", "latency"),
    ]
    assert texts_of(cost.rows[0]) == ["none (baseline)", "4.00 s", "1.00 s", "10.0", "40.0 B", "1.25 ms"]
    lines = list(csv.DictReader(io.StringIO(long_csv(summary))))
    assert [r["mean"] for r in lines if r["group"] == "short" and r["method"] == "none"] == ["0.25"]
    assert {r["against"] for r in lines if r["metric"] == "f1"} == {""}


def test_costs_are_means_over_the_tasks(tmp_path: Path) -> None:
    rows = records(tmp_path)
    for r in rows:
        wide = r["task"] == "rte"
        r.update(parameters=20 if wide else 10, bytes=2e6 if wide else 1e6, latency_ms={"1": {"p50": 4 if wide else 1}})
    cost = result_tables(summarize(rows, tmp_path))[-1]
    assert texts_of(cost.rows[0])[-3:] == ["15.0", "1.50 MB", "2.50 ms"]


def test_means_that_read_the_same_are_both_the_best(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        r["sets"]["rte"]["metrics"]["accuracy"] = {"none": 0.70001, "vanilla-kd": 0.7}.get(r["method"], 0.6)
    assert [row[1].best for row in result_tables(summarize(rows, tmp_path))[0].rows] == [False, True, True, False]


def test_a_caption_tells_only_of_tests_that_were_made(tmp_path: Path) -> None:
    alone = [record(tmp_path, "rte", "rail & co", 0)]
    caption = result_tables(summarize(alone, tmp_path))[0].caption
    assert caption.startswith("One seed; best mean in bold. Nothing was tested")
    renamed = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    for r in renamed:
        r["method"] = "plain" if r["method"] == "none" else r["method"]
    table = result_tables(summarize(renamed, tmp_path))[0]
    assert "better and worse than `plain` (p < 0.05)" in table.caption and "p \\textless{} 0.05" in latex(table)


def test_an_average_over_fewer_tasks_is_not_shown(tmp_path: Path) -> None:
    rows = [r for r in records(tmp_path) if (r["task"], r["method"]) != ("rte", "rail & co")]
    table = result_tables(summarize(rows, tmp_path))[0]
    last = {row[0].text: row[-1] for row in table.rows}
    assert last["rail & co"].text == "–" and last["vanilla-kd (baseline)"].best


def test_the_teachers_have_an_average_where_all_of_them_were_measured(tmp_path: Path) -> None:
    rows = records(tmp_path)
    teachers = [r for r in rows if r["role"] == "teacher"]
    teachers[0]["sets"]["sst2"]["metrics"] = {"accuracy": 0.9, "f1": 0.7}
    teachers[1]["sets"]["rte"]["metrics"] = {"accuracy": 0.6}
    inside, outside, _ = result_tables(summarize(rows, tmp_path))
    assert inside.rows[0][0].text == "teacher" and inside.rows[0][-1].text == "70.0"
    assert outside.rows[0][-1].text not in ("70.0", "–")
    assert result_tables(summarize(rows[1:], tmp_path))[0].rows[0][-1].text == "–"


def test_hostile_names_stay_in_their_cells(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        r["method"] = r["method"].replace("rail & co", "a|b\n\\end{table}_%")
        r["in_domain"], sets = "<i>a|b", r["sets"]
        r["sets"] = {"<i>a|b": sets["rte"]}
        for file in (tmp_path / r["evaluation"]).glob("rte.*"):
            file.with_name(file.name.replace("rte", "i-a-b")).write_bytes(file.read_bytes())
    tables = result_tables(summarize(rows, tmp_path))
    assert all(line.count("|") - line.count("\\|") in (0, 4) for line in markdown(tables[0]).splitlines()[2:6])
    assert "<i>" not in markdown(tables[0])
    assert r"a\textbar{}b" in latex(tables[0]) and r"\textbackslash{}end\{table\}\_\%" in latex(tables[0])


def test_a_search_s_finds_have_a_table(tmp_path: Path) -> None:
    rows = records(tmp_path)
    assert not any("search" in t.title for t in result_tables(summarize(rows, tmp_path)))
    for r in rows:
        if r["role"] == "student":
            r["searched"] = {"lr": 0.00013, "epochs": 3} | ({"method_options.T": 2} if r["method"] != "none" else {})
    table = result_tables(summarize(rows, tmp_path))[-1]
    head = ("sst2: lr", "sst2: epochs", "sst2: T", "rte: lr", "rte: epochs", "rte: T")
    assert table.title == "half: options found by search" and {*titles_of(table)} == {"method", *head}
    found = {row[0].text: dict(zip(titles_of(table), texts_of(row), strict=True)) for row in table.rows}
    assert found["rail & co"]["rte: T"] == "2" and found["none (baseline)"]["rte: T"] == "–"
    assert found["none (baseline)"]["sst2: lr"] == "0.00013" and found["none (baseline)"]["sst2: epochs"] == "3"


def test_tables_tell_when_and_on_what_they_were_made(tmp_path: Path) -> None:
    rows = records(tmp_path)
    machine = {"processor": "A & B", "cores": 2, "system": "Linux"}
    for i, r in enumerate(rows):
        r |= {"finished": f"2026-01-{10 + i // 9}T08:00:00+00:00", "machine": machine, "versions": {"torch": "2"}}
        r |= {"precision": "bf16" if r["role"] == "student" else "fp32"}
    write_tables(summarize(rows, tmp_path), tmp_path / "tables")
    last = (tmp_path / "tables" / "tables.md").read_text(encoding="utf-8").splitlines()[-1]
    assert last == "Trained 2026-01-10 to 2026-01-13 on A & B with 2 cores (Linux), fp32 and bf16, with torch 2."
    write_tables(summarize(records(tmp_path), tmp_path), tmp_path / "older")
    assert "Trained" not in (tmp_path / "older" / "tables.md").read_text(encoding="utf-8")


def test_an_average_names_the_runs_that_it_is_over(summary: dict[str, Any]) -> None:
    lines = csv.DictReader(io.StringIO(long_csv(summary)))
    line = next(x for x in lines if x["set"] == "average" and x["method"] == "none")
    assert line["run"].split() == [f"{task}/half/none/seed-{seed}" for task in ("sst2", "rte") for seed in SEEDS]
    assert line["task"] == "sst2 rte"


def test_an_average_out_of_domain_is_of_the_tasks_that_have_such_sets(tmp_path: Path) -> None:
    rows = records(tmp_path)
    for r in rows:
        if r["task"] == "sst2":
            del r["sets"]["adv_sst2"]
    lines = [x for x in csv.DictReader(io.StringIO(long_csv(summarize(rows, tmp_path)))) if x["set"] == "average"]
    assert {(x["in_domain"], x["task"]) for x in lines} == {("True", "sst2 rte"), ("False", "rte")}
    outside = next(x for x in lines if (x["in_domain"], x["method"]) == ("False", "none"))
    assert outside["run"].split() == [f"rte/half/none/seed-{seed}" for seed in SEEDS]


def test_all_that_an_average_is_over_is_shown(tmp_path: Path) -> None:
    rows = records(tmp_path)
    for r in rows:
        r["sets"]["adv_rte" if r["task"] == "rte" else "adv_sst2"]["metrics"]["f1"] = 0.3
    outside = result_tables(summarize(rows, tmp_path))[1]
    assert [c.split(" (")[0] + c.split("(")[1].split(",")[0] for c in titles_of(outside)[1:-1]] == [
        *("adv_sst2accuracy", "adv_sst2F1", "adv_rteaccuracy", "adv_rteF1")
    ]
    assert "of the mean of a set's metrics" in outside.caption


def test_a_summary_of_version_0_1_gives_the_same_tables(tmp_path: Path) -> None:
    contrasts = (Contrast("rail & co", "none", None, False, 2.0),)
    summary = summarize(records(tmp_path), tmp_path, contrasts)
    old = {("controls" if k == "baselines" else k): v for k, v in summary.items()}
    for part in ("cells", "primary"):
        old[part] = [{("control" if k == "baseline" else k): v for k, v in entry.items()} for entry in summary[part]]
    assert "baseline" not in old["cells"][0] and "baseline" not in old["primary"][0]
    assert result_tables(old) == result_tables(summary)
    assert long_csv(old) == long_csv(summary) and primary_csv(old) == primary_csv(summary)


def test_sets_given_as_files_have_the_names_of_their_tasks(tmp_path: Path) -> None:
    rows = records(tmp_path)
    for r in rows:
        own, other = f"data/{r['task']}/test.csv", f"data/{r['task']}/longer.csv"
        found = dict(zip((own, other), r["sets"].values(), strict=True))
        for name, old in zip(found, r["sets"], strict=True):
            for file in (tmp_path / r["evaluation"]).glob(f"{old}.*"):
                file.with_name(file.name.replace(old, name.replace("/", "-"), 1)).write_bytes(file.read_bytes())
        r |= {"sets": found, "in_domain": own}
    inside, outside, _ = result_tables(summarize(rows, tmp_path))
    assert titles_of(inside)[1:3] == ["sst2 (accuracy, 400 rows)", "rte (accuracy, 400 rows)"]
    assert titles_of(outside)[1:3] == [
        "longer.csv of sst2 (accuracy, 100 rows)",
        "longer.csv of rte (accuracy, 100 rows)",
    ]
    labels = re.findall(r"label{(.*)}", latex_of([inside, replace(inside, title="Half, in-domain"), inside]))
    assert labels == ["tab:half-in-domain", "tab:half-in-domain-2", "tab:half-in-domain-3"]
    assert r"\label{tab:half-in-domain}" in latex(inside) and r"\label{tab:half-out-of-domain}" in latex(outside)


def test_axes_are_named_alike_everywhere(tmp_path: Path) -> None:
    rows = [
        record(tmp_path, "rte", m, s, axes={"method_options.sampling": "step", "lr": 1e-4})
        for m in RIGHT
        for s in SEEDS
    ]
    summary = summarize(rows, tmp_path)
    names = [row[0].text for row in result_tables(summary)[0].rows]
    assert "rail & co, sampling step, lr 0.0001" in names
    assert {r["axes"] for r in csv.DictReader(io.StringIO(long_csv(summary)))} == {"sampling step, lr 0.0001"}
    caption = result_tables(summary)[0].caption
    assert "better and worse than `none` (p < 0.05)" in caption


def test_a_lower_error_is_the_best(tmp_path: Path) -> None:
    rows = [record(tmp_path, "rte", m, s) for m in RIGHT for s in SEEDS]
    for r in rows:
        value = {"none": 0.1, "vanilla-kd": 0.3}.get(r["method"], 0.2)
        r["sets"] = {"rte": r["sets"]["rte"] | {"metrics": {"accuracy": 0.5, "mse": value}}}
    table = result_tables(summarize(rows, tmp_path))[0]
    column = titles_of(table).index("rte (mean squared error, 400 rows)")
    assert [row[column].text for row in table.rows if row[column].best] == ["0.100 ± 0.000"]
