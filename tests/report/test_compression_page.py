"""The page of a compression: what it says about the teacher's part in the result."""

from typing import Any

from demiglace.report.compression.page import _notes


def file(model: str, role: str, accuracy: float) -> dict[str, Any]:
    cost = {"bytes": 1_000_000, "latency_ms": 1.0}
    scores = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy}}
    return {"model": model, "role": role, "precision": "int8", "method": "vanilla-kd", "cost": cost} | scores


def notes(chosen: str, baseline: str) -> str:
    files = [file("teacher", "teacher", 0.9), file(chosen, "student", 0.8), file(baseline, "baseline", 0.75)]
    manifest = {"chosen": files[1], "teacher": files[0], "model_files": files, "metric": "accuracy", "drop": 10.0}
    manifest |= {"rows": {"validation": 100, "test": 100}, "pytorch": None, "vocabulary": None}
    return " ".join(_notes(manifest))


def test_the_gain_by_the_teacher_is_that_of_the_same_student() -> None:
    assert "The teacher adds +5.0 points: the same student" in notes("3 layers", "3 layers, no teacher")
    assert "The teacher adds" not in notes("3 layers", "3 layers, hidden 256, no teacher")
    assert "The teacher adds" not in notes("3 layers", "3 layers, trimmed vocabulary, no teacher")
