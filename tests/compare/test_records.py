"""Records, which are read from manifests: the rows that selected the epoch, and exports."""

from pathlib import Path
from typing import Any

import pytest

from demiglace.compare.grid import parse_grid
from demiglace.compare.job_graph import build_job_graph
from demiglace.compare.records import records
from demiglace.runs.files import write_json

RUN = "mood/half/none/seed-0"


def write_manifest(home: Path, key: str, **content: Any) -> None:
    """A manifest as far as records read it."""
    (home / key).mkdir(parents=True)
    write_json(home / key / "manifest.json", content)


def record_of(content: dict, home: Path, role: str = "student") -> dict[str, Any]:
    """The record of the first student run, or of the teacher."""
    found = records(build_job_graph(parse_grid(content), home), {}, {})
    return next(r for r in found if r["role"] == role)


CHOSEN = [
    ({"data": "sst2"}, ("train", "validation"), True),  # as CoLA, RTE, QNLI, QQP and MNLI
    ({"data": "sst2", "holdout_from_train": True}, ("train", "validation"), False),
    ({"data": "mrpc"}, ("train", "validation", "test"), False),
    ({"data": "a.csv", "test": "c.csv"}, ("train", "validation", "test"), False),
    ({"data": "a.csv", "validation": "b.csv"}, ("train", "validation"), True),
    ({"data": "a.csv", "validation": "b.csv", "test": "c.csv"}, ("train", "validation", "test"), False),
    # in a folder with test rows, a validation file that was named is the reported set
    ({"data": "folder", "validation": "b.csv"}, ("train", "validation", "test"), True),
]


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(("task", "splits", "chosen"), CHOSEN)
def test_whether_the_reported_rows_chose_the_epoch(role, task, splits, chosen, content, tmp_path):
    config = {"validation": None, "test": None, "holdout_from_train": False} | task
    key = RUN if role == "student" else "mood/teacher"
    write_manifest(tmp_path, key, config=config, rows=dict.fromkeys(splits, 9))
    assert record_of(content | {"tasks": {"mood": task}}, tmp_path, role)["epoch_chosen_on_reported_rows"] is chosen


def test_a_ready_teacher_of_other_rows_has_not_seen_those_that_are_reported(content, tmp_path):
    for name, data in {"same": "sst2", "other": "imdb"}.items():
        config = {"data": data, "validation": None, "test": None, "holdout_from_train": False}
        write_manifest(tmp_path, name, config=config, rows={"train": 9, "validation": 9})
    found = {}
    for name in ("same", "other", "bare"):
        grid = content | {"tasks": {"sst2": {}}, "teachers": {"sst2": str(tmp_path / name)}}
        found[name] = record_of(grid, tmp_path / "runs", "teacher")["epoch_chosen_on_reported_rows"]
    assert found == {"same": True, "other": False, "bare": False}


def test_a_ready_teacher_that_is_not_measured_is_there(content, tmp_path):
    write_manifest(tmp_path, "ready", parameters=7)
    grid = content | {"teachers": {"mood": str(tmp_path / "ready")}, "evaluate": {"teacher": False}}
    found = record_of(grid, tmp_path / "runs", "teacher")
    assert (found["status"], found["parameters"]) == ("done", 7)


def artefact(role: str, precision: str, size: int, p50: float, agreement: float) -> dict[str, Any]:
    head = {"name": "shown", "format": "onnx" if role == "export" else "pytorch", "precision": precision, "role": role}
    return head | {
        "bytes": size,
        "latency_ms": {"1": {"p50": p50}},
        "label_agreement": agreement,
        "metrics": {"accuracy": agreement},
    }


def test_the_latency_is_that_of_the_model_whose_scores_are_told(content, tmp_path):
    made = [artefact("teacher", "fp32", 9, 9.0, 1.0), artefact("original", "fp32", 8, 8.0, 1.0)]
    made += [artefact("export", "fp32", 8, 4.0, 1.0), artefact("export", "int8", 2, 1.0, 0.97)]
    write_manifest(tmp_path, f"{RUN}.export", artefacts=made)
    found = record_of(content | {"export": {"quantize": "int8"}}, tmp_path)
    assert found["latency_ms"] == {"1": {"p50": 4.0}}
    kept = ("format", "precision", "bytes", "agreement", "metrics")
    assert [{name: a[name] for name in kept} for a in found["artefacts"]] == [
        {"format": "onnx", "precision": "fp32", "bytes": 8, "agreement": 1.0, "metrics": {"accuracy": 1.0}},
        {"format": "onnx", "precision": "int8", "bytes": 2, "agreement": 0.97, "metrics": {"accuracy": 0.97}},
    ]
    assert [a["latency_ms"]["1"]["p50"] for a in found["artefacts"]] == [4.0, 1.0]


def test_without_an_export_nothing_was_exported(content, tmp_path):
    found = record_of(content, tmp_path)
    assert found["artefacts"] == [] and found["latency_ms"] is None


def test_a_run_elsewhere_of_the_same_name_is_not_read(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in (RUN, f"{RUN}.evaluation", "mood/teacher"):
        write_manifest(Path(), key, parameters=7, sets={"mood": {"metrics": {"accuracy": 1.0}}})
    for role in ("student", "teacher"):
        found = record_of(content, tmp_path / "runs", role)
        assert found["parameters"] is None and found["sets"] == {}
    assert record_of(content | {"teachers": {"mood": "mood/teacher"}}, tmp_path / "runs", "teacher")["parameters"] == 7


def test_what_a_search_found_stands_beside_its_runs(content, tmp_path):
    grid = parse_grid(content | {"search": {"trials": 2, "ranges": {"lr": [1e-4, 2e-4]}}})
    graph = build_job_graph(grid, tmp_path, searching=True)
    write_manifest(tmp_path, RUN, finished="2026-01-10T08:00:00+00:00", machine={"cores": 2}, versions={"torch": "2"})
    for search in (s.key for s in graph.jobs if s.stage == "search"):
        (tmp_path / search).mkdir(parents=True)
        write_json(tmp_path / search / "best.json", {"options": {"lr": 2e-4}, "trials": 2})
    found = next(r for r in records(graph, {}, {}) if r["run"] == RUN)
    assert found["searched"] == {"lr": 2e-4}
    assert (found["finished"][:10], found["machine"], found["versions"]) == ("2026-01-10", {"cores": 2}, {"torch": "2"})
    assert record_of(content, tmp_path)["searched"] == {}
