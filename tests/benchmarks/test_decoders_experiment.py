"""The script that reproduces Li et al. 2021, from raw text to results, on tiny data."""

import json
import math
import sys
from pathlib import Path

import pytest
import zstandard

from demiglace.runs.directory import read_manifest
from text_kit import sentences

TEXT = "books/test"
STUDENTS = ("alternate-plain", "block-influence-plain", "random-plain", "distilgpt2")
SEEDED = ("alternate-plain", "distilgpt2")
AGAIN = [f"{name}-seed-1" for name in SEEDED]


@pytest.fixture
def experiment(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = load("decoders.py")
    for i, corpus in enumerate((*module.CORPORA, "wikitext2", "lambada")):
        for j, split in enumerate(("train", "validation", "test")):
            packed(tmp_path / "data" / corpus / f"{split}.jsonl.zst", sentences(12, seed=3 * i + j))
    tiny = {
        "DATA": tmp_path / "data",
        "RESULTS": tmp_path / "results.json",
        "WIDTH": 64,
        "LAYERS": 4,
        "VOCABULARY": 262,
    }
    tiny |= {"TEACHER_TOKENS": 600, "STUDENT_TOKENS": 300}
    tiny |= {"STUDENTS": tuple(s for s in module.STUDENTS if s.name in STUDENTS)}
    tiny |= {"SEEDED": SEEDED, "SEEDS": (1,)}
    tiny |= {"TRAINING": module.TRAINING | {"block_size": 16, "batch_size": 8, "validation_blocks": 4}}
    for name, value in tiny.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["decoders.py", "--output", str(tmp_path / "runs")])
    return module


def packed(file: Path, texts: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    file.write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))


def test_every_model_is_made_and_measured(experiment, tmp_path: Path) -> None:
    experiment.main()
    found = json.loads((tmp_path / "results.json").read_text())
    rows = found["models"]
    assert [r["name"] for r in rows] == ["teacher", *STUDENTS, "alternate-plain-equal-time", *AGAIN]
    for row in rows:
        assert row["zero_shot"]["wikitext2/test"]["bits_per_byte"] > 0
        assert row["name"] in AGAIN or row["fine_tuned"]["wikitext2/test"]["perplexity"] > 1
        assert row["zero_shot"]["lambada/test"].keys() == {"perplexity", "accuracy", "perplexity_95"}
        low, high = row["zero_shot"]["books/test"]["perplexity_95"]
        assert low < row["zero_shot"]["books/test"]["perplexity"] < high
    distilled = read_manifest(tmp_path / "runs" / "students" / "distilgpt2")["config"]
    assert (distilled["method"], distilled["freeze"], distilled["max_grad_norm"]) == ("distil", ["wpe"], 5.0)
    assert rows[-1]["tokens"] > 0
    for pair in found["compared"]:
        one, other = (next(r for r in rows if r["name"] == pair[side]) for side in ("model", "against"))
        ratio = one["zero_shot"][TEXT]["perplexity"] / other["zero_shot"][TEXT]["perplexity"]
        difference, low, high = pair[TEXT]
        assert low <= difference <= high and difference == pytest.approx(math.log(ratio), abs=1e-3)
    assert {"model": "alternate-plain", "against": "distilgpt2"}.items() <= found["compared"][-2].items()
    tables = (tmp_path / "results.md").read_text("utf-8")
    assert f"| {rows[-1]['name']} | {rows[-1]['tokens']:,} |" in tables
    assert f"{found['compared'][0][TEXT][0]:+.3f} (" in tables
    runs = [read_manifest(tmp_path / "runs" / "students" / name)["config"]["seed"] for name in (*SEEDED, *AGAIN)]
    assert runs == [0, 0, 1, 1]
    over = next(row for row in found["over seeds"] if row["text"] == TEXT)
    first = next(pair for pair in found["compared"] if (pair["model"], pair["against"]) == SEEDED)
    assert over["seeds"][0] == first[TEXT][0] and over["mean"] == pytest.approx(sum(over["seeds"]) / 2, abs=1e-4)
    assert over["interval"][0] <= over["mean"] <= over["interval"][1] and 0 < over["p"] <= 1
    assert f"{over['mean']:+.3f} (" in tables.splitlines()[-1]


def test_one_student_can_be_made_alone(experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "random-plain"])
    experiment.main()
    assert [run.name for run in (tmp_path / "runs" / "students").iterdir()] == ["random-plain"]
    assert [run.name for run in (tmp_path / "runs" / "scores").iterdir()] == ["random-plain"]
