"""Differences between two students of a comparison, from its summary."""

import pytest


@pytest.fixture
def script(load):
    return load("between_students.py")


def cell(task: str, student: str, method: str, values: list[float]) -> dict:
    sets = {task: {"metrics": {"accuracy": {"values": values}, "f1": {"values": [0.0] * len(values)}}}}
    return {"task": task, "student": student, "method": method, "in_domain": task, "sets": sets}


def test_students_are_paired_by_task_method_and_seed(script):
    cells = [
        cell("sst2", "a", "none", [0.70, 0.72, 0.74]),
        cell("sst2", "b", "none", [0.60, 0.61, 0.62]),
        cell("rte", "a", "none", [0.5, 0.6, 0.4]),
        cell("rte", "b", "none", [0.6, 0.5, 0.4]),
        cell("sst2", "a", "pkd", [0.9, 0.9, 0.9]),  # the other student has no such runs
    ]
    averages = [{"student": s, "method": "none", "in_domain": {"values": v}} for s, v in
                (("a", [0.6, 0.66, 0.57]), ("b", [0.6, 0.555, 0.51]))]  # fmt: skip
    rows = script.differences({"cells": cells, "averages": averages}, "a", "b")
    assert [(r["task"], r["method"]) for r in rows] == [("sst2", "none"), ("rte", "none"), ("average", "none")]
    sst2, rte, _ = rows
    assert sst2["mean"] == pytest.approx(0.11) and rte["mean"] == pytest.approx(0.0)
    # sd 0.01, and t of two degrees of freedom is 4.303 at 95 %
    assert sst2["interval"] == pytest.approx([0.11 - 4.303 * 0.01 / 3**0.5, 0.11 + 4.303 * 0.01 / 3**0.5], abs=1e-4)
    assert sst2["p"] == pytest.approx(2 * 0.00274, abs=1e-4) and rte["p"] == pytest.approx(1.0)
    assert script.table(rows).splitlines()[2].startswith("| none | +11.0 (+8.5 to +13.5), p 0.0055 | +0.0 (")
