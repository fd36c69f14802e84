"""Digests of runs before and after a refactoring: what differs is found and named, what differs by run alone is not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

MANIFEST = {
    "config": {"lr": 0.1, "layers": 2},
    "metrics": {"accuracy": 0.5},
    "seconds": {"train": 1.5},
    "finished": "2026-11-30T23:51:47+00:00",
}


@pytest.fixture
def digests(load):
    return load("reference_digests.py")


@pytest.fixture
def script(load, digests):
    return load("reference_runs.py")


def made(
    digests, home: Path, weight: float = 1.0, table: str = "| Model | Training |\n| a | 1 s |\n", **manifest
) -> Path:
    """A directory as `make` leaves it, of a run with these results."""
    run = home / "work" / "run"
    (run / "cache" / "abc").mkdir(parents=True)
    save_file({"a": torch.ones(2), "b": torch.full((2, 2), weight)}, run / "model.safetensors")
    (run / "manifest.json").write_text(json.dumps(MANIFEST | {"place": str(run / "x")} | manifest))
    (run / "log.jsonl").write_text('{"loss": 0.25, "seconds": 1}\n')
    (run / "tables.md").write_text(table)
    (run / "cache" / "abc" / "logits.npy").write_bytes(b"1")
    (run / "logits.npy").write_bytes(b"2")
    digests.write_digests(home, digests.digest_tree(home / "work"))
    return home


def compare(script, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["reference_runs.py", "compare", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    return stopped.value.code


def test_times_dates_and_places_are_no_difference(script, digests, monkeypatch, tmp_path: Path) -> None:
    one = made(digests, tmp_path / "one")
    later = {"seconds": {"train": 2.5}, "finished": "2026-12-01T00:00:00+00:00"}
    other = made(digests, tmp_path / "other", table="| Model | Training |\n| a | 2 s |\n", **later)
    assert compare(script, monkeypatch, one, other) == 0


def test_a_changed_tensor_is_found_and_named(script, digests, monkeypatch, capsys, tmp_path: Path) -> None:
    sides = made(digests, tmp_path / "one"), made(digests, tmp_path / "other", weight=1.0001)
    assert compare(script, monkeypatch, *sides) == 1
    said = capsys.readouterr().out
    assert said.startswith("differs  weights  run/model.safetensors: b (") and said.count("\n") == 1
    assert compare(script, monkeypatch, *sides, "--only", "json,tables") == 0


def test_differing_keys_of_json_are_named(script, digests, monkeypatch, capsys, tmp_path: Path) -> None:
    changed = made(digests, tmp_path / "other", config={"lr": 0.1, "kept_layers": 2}, metrics={"accuracy": 0.5000001})
    assert compare(script, monkeypatch, made(digests, tmp_path / "one"), changed) == 1
    said = capsys.readouterr().out
    assert "run/manifest.json: config.layers (2 -> nothing); metrics.accuracy (0.5 -> 0.5000001); " in said
    assert "config.kept_layers (nothing -> 2)" in said and "lr" not in said


def test_what_only_has_another_name_is_no_difference(script, digests, monkeypatch, tmp_path: Path) -> None:
    renamed = made(digests, tmp_path / "other", config={"lr": 0.1, "kept_layers": 2})
    sides = made(digests, tmp_path / "one"), renamed
    assert compare(script, monkeypatch, *sides) == 1
    assert compare(script, monkeypatch, *sides, "--renamed", "layers=kept_layers") == 0


def test_a_line_of_a_table_is_named(script, digests, monkeypatch, capsys, tmp_path: Path) -> None:
    other = made(digests, tmp_path / "other", table="| Model | Training |\n| b | 1 s |\n")
    assert compare(script, monkeypatch, made(digests, tmp_path / "one"), other) == 1
    assert "run/tables.md: line 2 (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".md", "| Model | Training |\n| --- | --- |\n| a1 | 7 s |\n"),
        (".tex", "Model & Training \\\\\n\\midrule\na1 & 7 s \\\\\n"),
        (".csv", "model,train_seconds\na1,7\n"),
        (".csv", "row,column,value\n1,Model,a1\n1,Training,7\n"),
    ],
)
def test_columns_of_times_are_replaced(digests, suffix: str, text: str) -> None:
    lines = "\n".join(digests.normalised_lines(text, suffix, Path("work")))
    assert "7" not in lines and "a1" in lines


def test_missing_new_and_moved_files(digests, tmp_path: Path) -> None:
    sides = [made(digests, tmp_path / name) for name in ("one", "other")]
    run = sides[1] / "work" / "run"
    (run / "log.jsonl").unlink()
    (run / "new.csv").write_text("a\n")
    (run / "cache" / "abc").rename(run / "cache" / "def")
    found = digests.differences(*(digests.digest_tree(side / "work") for side in sides))
    assert found == [
        "moved    shards  run/cache/abc/logits.npy -> run/cache/def/logits.npy",
        "missing  json  run/log.jsonl",
        "new      tables  run/new.csv",
    ]
    assert [digests.digest_tree(run)[name]["kind"] for name in ("logits.npy", "cache/def/logits.npy")] == [
        "predictions",
        "shards",
    ]


def test_unknown_kinds_and_directories_are_refused(script, monkeypatch, tmp_path: Path) -> None:
    assert "no kind" in compare(script, monkeypatch, tmp_path, tmp_path, "--only", "models")
    assert "make" in compare(script, monkeypatch, tmp_path, tmp_path)
