"""`demiglace clean` on bad input, against evaluation sets, and around its run directory."""

import gzip
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import zstandard

import demiglace
from demiglace.cleaning import sources
from demiglace.config.command_options import CleanConfig
from demiglace.errors import ConfigError, DataError, RunError, UserError

SENTENCE = "The old captain of the quiet river mended a broken bridge before winter came to the garden."
OTHER = "A famous teacher carried some painted letters to the narrow market under the distant window today."


def rules(home: Path, text: str = "rules: [repair]") -> str:
    (home / "rules.yaml").write_text(text)
    return str(home / "rules.yaml")


def json_lines(*texts: str, key: str = "text") -> bytes:
    return "".join(json.dumps({key: text}) + "\n" for text in texts).encode()


def call(home: Path, name: str, content: bytes, **options: object) -> dict:
    """The options of a cheap run over one file."""
    (home / name).write_bytes(content)
    return {"sources": [str(home / name)], "output": home / "o", "rules": rules(home), "workers": 1, **options}


def ledger(run: Path) -> list[tuple[str, str, str]]:
    rows = [row for f in sorted((run / "ledger").iterdir()) for row in pq.read_table(f).to_pylist()]
    return [(row["rule"], row["action"], row["reason"]) for row in rows]


def texts(run: Path) -> list[str]:
    return [text for f in sorted((run / "shards").iterdir()) for text in pq.read_table(f)["text"].to_pylist()]


WET = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: 5\r\n\r\nWhole\r\n\r\n"
LINES = json_lines(*(f"{SENTENCE} {i}" for i in range(9000)))


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("x.txt", b"", "empty"),
        ("x.jsonl", json_lines(""), "empty"),
        ("x.jsonl", json_lines(SENTENCE, key="body"), "no text under 'text'"),
        ("x.jsonl", b"[" * 5000, "no JSON"),
        ("x.jsonl", json_lines("y" * 20_000), "too long"),
        ("x.txt", b"y" * 20_000, "too long"),
        ("x.txt", b"Nul\0 bytes", ("repair", "changed")),
    ],
)
def test_bad_input_is_in_the_ledger(tmp_path: Path, name: str, content: bytes, shown: str | tuple) -> None:
    run = demiglace.clean(**call(tmp_path, name, content), max_document_mb=0.01)
    (row,) = ledger(run)
    assert (row == ("read", "dropped", shown)) if isinstance(shown, str) else (row[:2] == shown)


def test_bytes_that_are_not_utf_8_are_read_as_windows_1252_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = demiglace.clean(**call(tmp_path, "x.txt", "Grüße\n".encode() + "Grüße\n".encode("cp1252")))
    assert texts(run) == ["Grüße\nGrüße\n"] and ledger(run) == []
    assert "1 documents: not UTF-8, read as Windows-1252" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl.zst", zstandard.compress(LINES)[:-9], "cut off after"),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)[:-9], "cut off after"),
        ("x.wet", WET + WET[:20], "cut off inside"),
        ("x.wet", b"no archive", "not a WARC file"),
        ("x.txt.gz", gzip.compress(bytes(50_000_000), mtime=0), "decompresses to more than"),
        ("x.txt.zst", zstandard.compress(bytes(150_000_000)), "decompresses to more than"),
        ("x.txt.zst", zstandard.compress(zstandard.compress(LINES)), "compressed by Zstandard once more"),
        ("x.txt.zst.gz", gzip.compress(zstandard.compress(LINES), mtime=0), "compressed by Zstandard once more"),
        ("x.parquet", b"PAR1", "as Parquet"),
    ],
)
def test_bad_input_is_refused_or_kept_up_to_the_damage(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    options = call(tmp_path, name, content, unit="line")
    with pytest.raises(UserError, match=message):
        demiglace.clean(**options)
    assert not (tmp_path / "o" / "manifest.json").exists()
    kept = demiglace.clean(**options | {"output": tmp_path / "kept"}, keep_damaged=True)
    assert ("read", "dropped", "damaged from here on") in ledger(kept)
    with pytest.raises(RunError, match="keep_damaged: True there, False now"):
        demiglace.clean(**options | {"output": tmp_path / "kept"})


def test_what_was_not_read_is_said_with_what_may_help(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    demiglace.clean(**call(tmp_path, "x.jsonl", b"3\n4\n" + json_lines("y" * 2000), max_document_mb=0.001))
    said = capsys.readouterr().err
    assert "0 of 0 documents are left" in said
    assert (
        "3 documents were not read (no text under 'text': 2, see --text-key; too long: 1, see --max-document-mb, or"
        in said
    )


def test_an_output_inside_of_its_source(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    options = call(tmp_path / "in", "x.txt", SENTENCE.encode())
    options |= {"sources": [str(tmp_path / "in")], "output": tmp_path / "in" / "out"}
    assert texts(demiglace.clean(**options)) == [SENTENCE]
    (tmp_path / "in" / "out" / "work").mkdir()  # of a run that was killed behind its last step
    demiglace.clean(**options)
    assert "up to date" in capsys.readouterr().err
    assert not (tmp_path / "in" / "out" / "work").exists()


@pytest.mark.parametrize("source", ["o/shards", "o", "link/shards", "in/../o"])
def test_a_source_that_is_also_the_output(tmp_path: Path, source: str) -> None:
    for folder in ("in", "o/shards"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "o")
    (tmp_path / "o" / "shards" / "x.txt").write_text(SENTENCE)
    with pytest.raises(ConfigError, match="is in the output directory"):
        demiglace.clean(sources=[str(tmp_path / source)], output=tmp_path / "o")
    assert not (tmp_path / "o" / "run.json").exists()


def test_addresses_are_known_by_their_sizes(tmp_path: Path) -> None:
    options = call(tmp_path, "x.jsonl", json_lines(SENTENCE)) | {"sources": [f"file://{tmp_path}/*.jsonl"]}
    run = demiglace.clean(**options)
    assert texts(run) == [SENTENCE]
    assert list(json.loads((run / "manifest.json").read_text())["inputs"].values()) == ["an address, 104 bytes"]
    (tmp_path / "x.jsonl").write_bytes(json_lines(OTHER, OTHER))
    with pytest.raises(RunError, match="104 bytes"):
        demiglace.clean(**options)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "fingerprint", refuse)  # a mode would not stop root
    with pytest.raises(DataError, match=r"x\.txt cannot be read: Permission denied\. Check"):
        demiglace.clean(**call(tmp_path, "x.txt", b"text"))
    assert not (tmp_path / "o").exists()


def test_ray_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = importlib.import_module("demiglace.commands.clean")
    monkeypatch.setattr(stage, "find_spec", lambda name: None if name == "ray" else name)
    with pytest.raises(ConfigError, match=r"pip install 'daft>.* 'ray>"):
        demiglace.clean(**call(tmp_path, "x.txt", b"text", engine="ray"))


def test_the_workers_of_a_cluster_are_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(cluster_resources=lambda: {"CPU": 96.0}))
    assert sources._cores(CleanConfig(("x",), engine="ray")) == 96


@pytest.fixture
def against(tmp_path: Path) -> dict:
    """A run over two documents, one of which is in a file of tests."""
    (tmp_path / "test.jsonl").write_bytes(json_lines(f"It said: {SENTENCE} So it was.", "short"))
    return call(tmp_path, "x.jsonl", json_lines(SENTENCE, OTHER), decontaminate_against=[str(tmp_path / "test.jsonl")])


def test_decontamination_says_how_many_texts_are_long_enough(against: dict, capsys: pytest.CaptureFixture) -> None:
    assert texts(demiglace.clean(**against)) == [OTHER]
    said = capsys.readouterr().err
    assert "1 of 2 reference texts have at least 13 words" in said
    assert "Warning" not in said


def test_decontamination_with_nothing_long_enough(against: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "test.jsonl").write_bytes(json_lines("short", "texts") + b"{}\n")
    assert len(texts(demiglace.clean(**against))) == 2
    said = capsys.readouterr().err
    assert "0 of 2 reference texts have at least 13 words" in said
    assert "Warning: nothing will be dropped" in said
    assert "1 texts were skipped (no text under 'text': 1)" in said


def test_decontamination_against_what_gives_no_text(against: dict, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(json_lines(SENTENCE, key="sentence"))
    with pytest.raises(DataError, match=r"no text was found \(no text under 'text': 1\); check --text-key"):
        demiglace.clean(**against)
    assert not (tmp_path / "o").exists()


def test_a_changed_reference_is_another_run(against: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    demiglace.clean(**against)
    demiglace.clean(**against)
    assert "up to date" in capsys.readouterr().err
    (tmp_path / "test.jsonl").write_bytes(json_lines(OTHER))
    with pytest.raises(RunError, match=r"inputs\.against .*test\.jsonl"):
        demiglace.clean(**against)


def test_decontamination_against_a_task(against: dict, tmp_path: Path) -> None:
    (tmp_path / "data" / "mnli").mkdir(parents=True)
    for split, text in (("train", OTHER), ("validation_matched", "one"), ("validation_mismatched", SENTENCE)):
        row = {"sentence1": "a premise", "sentence2": text, "label": 0}
        (tmp_path / "data" / "mnli" / f"{split}.jsonl").write_text(json.dumps(row))
    run = demiglace.clean(**against | {"decontaminate_against": ["mnli"], "data_dir": tmp_path / "data"})
    assert texts(run) == [OTHER]
    assert ledger(run) == [("decontamination", "dropped", "runs of words shared")]


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("where", ["flag", "file"])
def test_a_name_that_is_no_reference(tmp_path: Path, where: str, explain: bool) -> None:
    options = call(tmp_path, "x.txt", b"text", explain=explain)
    if where == "flag":
        options["decontaminate_against"] = ["sst"]
    else:
        options["rules"] = rules(tmp_path, "rules: [{rule: decontamination, against: [sst]}]")
    with pytest.raises(ConfigError, match="unknown task 'sst'; did you mean 'sst2'"):
        demiglace.clean(**options)
    assert not (tmp_path / "o").exists()
