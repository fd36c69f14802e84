"""The tables of a comparison beside the main one: measures, costs, tests."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from comparison_kit import change, one_task, write_comparison

from demiglace.report.comparison import labels
from demiglace.report.comparison.charts import cost_charts
from demiglace.report.comparison.detail_tables import by_task_table, cost_table, measure_table
from demiglace.report.comparison.detail_tables import test_tables as tables_of_tests
from demiglace.report.comparison.tables import main_table, missing_table, run_table
from demiglace.report.format import probability
from demiglace.report.tables import Table
from demiglace.results.load import read_comparison
from demiglace.results.schema import Missing


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("compare") / "c", seeds=4)


def rows_of(table: Table) -> dict[str, dict[str, str]]:
    """First cell of a row -> column -> text."""
    titles = [c.title for c in table.columns]
    return {row[0].text: dict(zip(titles, (cell.text for cell in row), strict=True)) for row in table.rows}


def test_measures_beyond_the_score_and_second_metrics(home: Path) -> None:
    found = read_comparison(home, "t")
    table = measure_table(found)
    assert table is not None
    rows = rows_of(table)
    assert rows["rail-kd-l"].keys() - {"Method"} == {
        "Agreement with teacher", "Calibration error (ECE)", "Worst-class F1", "mrpc F1",
    }  # fmt: skip
    assert (rows["none"]["Agreement with teacher"], rows["teacher"]["Agreement with teacher"]) == ("90.0", "–")
    assert (rows["none"]["Calibration error (ECE)"], rows["teacher"]["Worst-class F1"]) == ("10.0", "60.0")
    assert re.fullmatch(r"\d\d\.\d ± \d\.\d", rows["rail-kd-l"]["mrpc F1"])
    assert float(rows["teacher"]["mrpc F1"]) > float(rows["none"]["mrpc F1"].split()[0])
    by_task = by_task_table(found)
    assert by_task is not None and len(by_task.rows) == 2 * 4


def test_lower_calibration_errors_are_better(tmp_path: Path) -> None:
    home = one_task(tmp_path)
    change(home, "cells", lambda c: c["sets"]["sst2"]["ece"].update(mean=0.05 if c["method"] == "none" else 0.3))
    table = measure_table(read_comparison(home, "t"))
    assert table is not None
    at = [c.title for c in table.columns].index("Calibration error (ECE)")
    assert [row[0].text for row in table.rows if row[at].best] == ["none"]


def test_costs_name_what_they_are_of(home: Path) -> None:
    rows = rows_of(cost_table(read_comparison(home, "t")))
    wanted = {
        "Parameters": "23.8\u00a0M", "File size": "95.2\u00a0MB", "Teacher capture": "6.00\u00a0s",
        "Training, one seed": "43.0\u00a0s", "Latency, fp32 export": "6.58\u00a0ms", "Latency, int8": "3.29\u00a0ms",
        "File size, int8": "23.8\u00a0MB", "Same label, int8": "97.3\u00a0%",
    }  # fmt: skip
    assert rows["vanilla-kd"] == {"Method": "vanilla-kd", **wanted}
    assert rows["none"]["Teacher capture"] == "0\u00a0s"
    assert (rows["teacher"]["Latency, fp32 export"], rows["teacher"]["Latency, int8"]) == (
        "14.5\u00a0ms",
        "7.25\u00a0ms",
    )


def test_every_test_is_there_with_all_its_p(home: Path) -> None:
    found = read_comparison(home, "t")
    tables = dict(tables_of_tests(found))
    assert [len(t.rows) for t in tables.values()] == [2 * 4, 4, 2 * 4, 4]
    titles = [c.title for c in tables["the tasks’ rows"].columns]
    row = next(
        dict(zip(titles, (c.text for c in row), strict=True))
        for row in tables["the tasks’ rows"].rows
        if [c.text for c in row[:3]] == ["rail-kd-l", "sst2", "none"]
    )
    own = json.loads((home / "summary.json").read_text())["cells"]
    shown = next(c for c in own if (c["task"], c["method"]) == ("sst2", "rail-kd-l"))["sets"]["sst2"]["against"]["none"]
    assert row["Difference"] == f"+{100 * shown['difference']:.1f}" and row["Verdict"] == "better, exploratory"
    assert row["95\u00a0% interval"] == f"{100 * shown['ci'][0]:.1f} to {100 * shown['ci'][1]:.1f}"
    assert (row["p"], row["Corrected p"]) == (probability(shown["p"]), probability(shown["p_corrected"]))
    assert row["McNemar’s p by seed"] == " ".join(map(probability, shown["mcnemar"])) and len(shown["mcnemar"]) == 4


def test_averages_tell_the_teachers_and_on_how_few_seeds_they_rest(tmp_path: Path) -> None:
    gone = {"mrpc/half/pkd/seed-3": ("failed", "no memory")}
    home = write_comparison(tmp_path / "c", seeds=4, right={"none": 0.7, "pkd": 0.8}, missing=gone)
    found = read_comparison(home, "t")
    table = main_table(found)
    rows = rows_of(table)
    titles = [c.title for c in table.columns]
    teachers = [t.scores["hans"]["accuracy"] for t in found.teachers.values()]
    assert rows["teacher"]["Out of domain, average"] == f"{50 * sum(teachers):.1f}"
    notes = {row[0].text: row[titles.index("Average")].note for row in table.rows}
    assert "3 of 4 seeds" in notes["pkd"] and "seeds" not in notes["none"]


def test_every_student_and_method_has_a_look_of_its_own(tmp_path: Path) -> None:
    right = {"none": 0.7} | {f"m{i}": 0.7 for i in range(11)}
    home = one_task(tmp_path, students=("half", "third"), right=right, seeds=1, rows=20, steps=2)
    looks = labels.series_styles(read_comparison(home, "t"))
    assert len(looks) == 24 and len(set(looks.values())) == 24


def test_probabilities_are_never_written_as_nothing() -> None:
    assert [probability(p) for p in (None, 0.0, 0.0004, 0.0126, 1.0)] == ["–", "<0.001", "<0.001", "0.013", "1.000"]


def test_the_clock_s_noise_puts_no_method_ahead(home: Path) -> None:
    found = read_comparison(home, "t")
    noise = dict(zip(found.keys, (4.0, 5.0, 9.0), strict=True))
    cells = [replace(c, latency=noise[c.key]) for c in found.cells]
    noisy = replace(found, cells=tuple(cells))
    assert {noisy.latency_of_graph(key) for key in noisy.keys} == {5.0}
    partly = replace(found, cells=tuple(replace(c, latency=None if c.task == "mrpc" else 4.0) for c in found.cells))
    assert partly.latency_of_graph(found.keys[0]) is None


def test_exports_that_failed_are_named(home: Path) -> None:
    found = read_comparison(home, "t")
    assert found.unexported == ()
    failed = replace(found, unexported=(Missing("sst2/half/pkd/seed-0.export", "failed", "the files differ"),))
    assert [c.text for c in missing_table(failed).rows[0]] == [
        *("sst2/half/pkd/seed-0.export", "failed", "the files differ")
    ]


def test_every_run_leads_to_its_measurements(home: Path, tmp_path: Path) -> None:
    found = read_comparison(home, "t")
    table = run_table(found, tmp_path)
    links = [row[-1].link for row in table.rows]
    assert table.columns[-1].title == "Measured in" and all(link.endswith(".evaluation/") for link in links)
    assert all((tmp_path / link).is_dir() for link in links) and len(set(links)) == len(links)


def test_an_int8_export_is_shown_where_its_own_score_was_measured(tmp_path: Path) -> None:
    home = one_task(tmp_path)
    titles = [c.title for c in cost_table(read_comparison(home, "t")).columns]
    assert "Accuracy, int8" not in titles and not any(
        s.small for s in cost_charts(read_comparison(home, "t"))[0].series
    )

    def score(cell: dict) -> None:
        for artefact in cell["artefacts"]:
            artefact["metrics"] = {"accuracy": 0.61 if artefact["precision"] == "int8" else 0.7}

    change(home, "cells", score)
    found = read_comparison(home, "t")
    assert rows_of(cost_table(found))["none"]["Accuracy, int8"] == "60.2"  # the mean less 9
    latency, size = cost_charts(found)
    tips = [p.title for s in latency.series if s.small for p in s.points]
    assert "none, int8: 60.2, 3.29\u00a0ms" in tips and len(tips) == 3
    assert all("exports in lower precision, at the mean plus" in c.note for c in (latency, size))


def test_the_baseline_is_never_below_another_mark(home: Path) -> None:
    for drawn in cost_charts(read_comparison(home, "t")):
        assert drawn.series[-1].style == "baseline" and drawn.series[-1].radius > drawn.series[-2].radius
        assert len(drawn.bands) == 1 and "around no teacher" in drawn.note
