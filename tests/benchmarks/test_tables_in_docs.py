"""The tables of the results page, which a script writes from the committed summaries."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def script(load):
    return load("tables_in_docs.py")


def test_the_page_has_the_tables_of_the_committed_results(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- table: ") == page.count("<!-- end -->") > 5
    assert script.with_tables(page, script.RESULTS) == page


def cell(method: str, task: str, seconds: float, **sets: Any) -> dict[str, Any]:
    found = {"student": "half", "method": method, "task": task, "axes": {}, "sets": sets}
    return found | {"train_seconds": {"mean": seconds}}


@pytest.fixture
def home(tmp_path) -> Path:
    def part(mean: float) -> dict[str, Any]:
        return {"accuracy": {"mean": mean, "sd": 0.01}}

    hans = {"metric": "accuracy", "groups": {"lexical_overlap": part(0.5), "constituent": part(0.4)}}
    cells = [cell("vanilla-kd", "rte", 10), cell("vanilla-kd", "mnli", 20, hans=hans)]
    cells += [cell("pkd", "rte", 5), cell("pkd", "mnli", 30, hans=hans), cell("none", "rte", 4)]
    test = {"difference": -0.012, "ci": [-0.02, 0.003], "p_corrected": 0.04321}
    inside = {"mean": 0.6, "sd": 0.02}
    averages = [
        {"student": "half", "method": m, "axes": {}, "tasks": ["rte", "mnli"], "in_domain": inside, "against": against}
        for m, against in (("vanilla-kd", {}), ("pkd", {"in_domain": {"vanilla-kd": test}}))
    ]
    averages.append({"student": "half", "method": "none", "axes": {}, "tasks": ["rte"], "in_domain": inside})
    trained = {"groups": {name: {"metrics": {"accuracy": 0.7}} for name in hans["groups"]}}
    summary = {"cells": cells, "averages": averages, "controls": ["none", "vanilla-kd"]}
    summary["teachers"] = {"mnli": {"sets": {"hans": trained}}}
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return tmp_path


def test_times_are_compared_task_by_task(script, home):
    lines = script.table(home / "grid", "times").splitlines()
    assert lines[0] == "| method | rte | mnli | against vanilla-kd | against pkd |"
    assert lines[2:] == [
        "| vanilla-kd | 10 s | 20 s | 1.00 | 1.33 |",
        "| pkd | 5 s | 30 s | 1.00 | 1.00 |",
        "| none | 4 s | – | 0.40 | 0.80 |",
    ]


def test_differences_stand_beside_their_intervals(script, home):
    lines = script.table(home / "grid", "differences").splitlines()
    assert lines[0] == "| method | average | against none | against vanilla-kd |"
    assert len(lines) == 4 and lines[3] == "| pkd | 60.0 ± 2.0 | – | −1.2 (−2.0 to +0.3), p 0.043 |"


def test_exploratory_differences_are_marked(script):
    test = {"difference": 0.01, "ci": [-0.01, 0.03], "p": 0.2, "p_corrected": None, "family": "exploratory"}
    assert script._difference(test) == "+1.0 (−1.0 to +3.0), p 0.2 uncorrected"
    assert script._difference(test | {"ci": None, "p": None}) == "+1.0"


def test_groups_stand_below_the_teacher_s(script, home):
    lines = script.table(home / "grid", "groups hans").splitlines()
    assert lines[0] == "| method | lexical overlap | constituent |"
    assert lines[2:] == [
        "| teacher | 70.0 | 70.0 |",
        *(f"| {m} | 50.0 ± 1.0 | 40.0 ± 1.0 |" for m in ("vanilla-kd", "pkd")),
    ]


def test_only_what_stands_between_the_marks_is_written(script, home):
    page = "a\n<!-- table: grid times -->\nold\n<!-- end -->\nb\n"
    made = script.with_tables(page, home)
    assert made.startswith("a\n<!-- table: grid times -->\n\n| method |") and made.endswith("\n\n<!-- end -->\nb\n")
    assert script.with_tables(made, home) == made
    with pytest.raises(KeyError):
        script.with_tables("<!-- table: grid none of these -->\n<!-- end -->\n", home)
