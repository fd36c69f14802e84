"""The records of a cleaning run: the ledger, near misses, the number of files."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import demiglace
from demiglace.cleaning import run as cleaning
from demiglace.cleaning import tasks as steps
from demiglace.cleaning.pipeline import Batch, Ledger, run_rules
from demiglace.cleaning.rules.base import Rule
from demiglace.cleaning.rules.c4 import C4
from demiglace.cleaning.rules.gopher_quality import GopherQuality
from demiglace.cleaning.text_arrays import Texts
from demiglace.runs.files import partial_files

GOOD = "One more good line.\n" * 5
LONG = " ".join(f"w{i}" for i in range(80))


def cleaned(home: Path, rules: str, rows: list[dict], **more: object) -> Path:
    home.mkdir(exist_ok=True)
    (home / "rules.yaml").write_text(f"rules: [{rules}]\n")
    (home / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = {"sources": [str(home / "x.jsonl")], "output": home / "out", "rules": str(home / "rules.yaml"), "workers": 1}
    return demiglace.clean(**call | more)


def ledger(run: Path) -> list[dict]:
    return [row for f in sorted((run / "ledger").iterdir()) for row in pq.read_table(f).to_pylist()]


def shown(rows: list[dict], *names: str) -> list[tuple]:
    return [tuple(row[n] for n in names) for row in rows]


def test_what_is_dropped_as_a_copy_says_what_stayed(tmp_path: Path) -> None:
    texts = ["alone", LONG, LONG, LONG + " w80", "alone"]
    rows = ledger(cleaned(tmp_path, "exact-duplicates, near-duplicates", [{"text": t} for t in texts]))
    found = shown(rows, "rule", "number", "value", "threshold", "first_number")
    expected = [("exact-duplicates", 2, 1, 0, 1), ("exact-duplicates", 4, 1, 0, 0), ("near-duplicates", 3, 1, 0, 1)]
    assert sorted(found) == expected
    assert {row["first_source"] for row in rows} == {str(tmp_path / "x.jsonl")}


def test_sources_are_named_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = cleaned(tmp_path, "exact-duplicates", [{"text": "alone"}, {"text": "alone"}], sources=["x.jsonl"])
    tables = [*(run / "shards").iterdir(), *(run / "ledger").iterdir()]
    rows = [row for table in tables for row in pq.read_table(table).to_pylist()]
    assert len(rows) == 2 and {row["source"] for row in rows} == {"x.jsonl"}
    assert str(tmp_path) not in (run / "cleaning.html").read_text("utf-8")


def test_lines_have_a_value_and_a_bound(tmp_path: Path) -> None:
    rows = [{"text": f"menu\nstory {i}\n<b>", "url": "http://a.example/"} for i in range(6)]
    found = ledger(cleaned(tmp_path, "html-lines, boilerplate, unique-lines", [*rows, {"text": "story 0\nend"}]))
    found = shown(found, "rule", "number", "line", "value", "threshold", "first_number")
    assert [f for f in found if f[0] == "html-lines"] == [("html-lines", i, 2, 1, 0, None) for i in range(6)]
    assert [f for f in found if f[0] == "boilerplate"] == [("boilerplate", i, 0, 6, 5, None) for i in range(6)]
    assert [f for f in found if f[0] == "unique-lines"] == [("unique-lines", 6, 0, 1, 0, 0)]


def test_c4_says_by_what_a_line_went_and_what_else_it_changed(tmp_path: Path) -> None:
    text = GOOD + f"It was so.[12]\nHome\nToo few.\nA {'x' * 1001} word."
    rows = ledger(cleaned(tmp_path, "c4", [{"text": text}, {"text": GOOD + "Home"}]))
    found = sorted(shown(rows, "number", "action", "reason", "value", "threshold"), key=str)
    assert found == [
        (0, "changed", "lines changed", 1, None),
        (0, "removed a line", "no end mark", 0, 1),
        (0, "removed a line", "too few words", 2, 3),
        (0, "removed a line", "too long word", 1001, 1000),
        (1, "removed a line", "no end mark", 0, 1),
    ]


def test_every_kind_of_change_has_a_row(tmp_path: Path) -> None:
    rows = ledger(cleaned(tmp_path, "mask", [{"text": "a@b.org at 8.8.8.8 and 8.8.4.4"}]))
    assert shown(rows, "reason", "value") == [("e-mail addresses", 1), ("IP addresses", 2)]


def one_by_one(rule: Rule, texts: list[str]) -> Ledger:
    books = Ledger()
    for i, text in enumerate(texts):
        batch = Batch(Texts([text]), np.array([i], np.uint64), [""], np.ones(1, bool), np.ones(1, np.int64))
        run_rules(batch, [rule], books)
    return books


def test_what_was_only_just_kept_does_not_depend_on_the_batch() -> None:
    rule = GopherQuality(min_words=3, min_stop_words=0, min_alphabetic_words=0, max_hashes_per_word=0)
    kept = one_by_one(rule, ["one two", "one two three", "one two three four"]).of(rule.name).kept
    assert (kept[0]["document"], kept[0]["measure"], kept[0]["value"]) == (1, "words", 3)
    assert {e["document"] for e in kept} == {1, 2}


def test_nothing_is_only_just_kept_by_a_rule_that_says_yes_or_no() -> None:
    kept = one_by_one(C4(min_sentences=2), [GOOD]).of("c4").kept
    assert [e["measure"] for e in kept] == ["sentences"]


def test_small_files_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i:02d}.txt").write_text(f"text number {i} " * (1000 if i == 5 else 1))
    monkeypatch.setattr(steps, "PART", 45)  # three of 14 or 15 bytes, but for the long one
    files = [str(p) for p in sorted((tmp_path / "in").iterdir(), reverse=True)]
    run = cleaned(tmp_path, "mask", [], sources=files)
    tables = [pq.read_table(f).to_pylist() for f in sorted((run / "shards").iterdir())]
    assert [[Path(row["source"]).stem for row in rows] for rows in tables] == [
        ["00", "01", "02"],
        ["03", "04"],
        ["05"],
        ["06", "07", "08"],
        ["09", "10", "11"],
    ]
    assert [row["text"].split()[2] for rows in tables for row in rows] == [str(i) for i in range(12)]
    assert {row["number"] for rows in tables for row in rows} == {0}


def test_no_task_grows_with_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, do = [], cleaning.run_tasks
    monkeypatch.setattr(cleaning, "run_tasks", lambda home, tasks, n: given.extend(tasks) or do(home, tasks, n))
    monkeypatch.setattr(steps, "PART", 10)
    run = cleaned(tmp_path, "exact-duplicates", [{"text": f"text number {i}"} for i in range(50)])
    assert len(list((run / "shards").iterdir())) == 50
    assert max(len(json.dumps(task)) for task in given) < 80


def test_the_manifest_names_the_libraries_that_decide(tmp_path: Path) -> None:
    run = cleaned(tmp_path, "mask", [{"text": "text"}])
    versions = json.loads((run / "manifest.json").read_text())["versions"]
    assert {"daft", "ftfy", "py3langid", "pyarrow"} <= versions.keys()


def test_all_drafts_are_found(tmp_path: Path) -> None:
    places = ["cleaning.html.1.part", "work/plan.json.1.part", "work/0/00000.json.1.part"]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert sorted(partial_files(tmp_path)) == sorted(tmp_path / place for place in places)


def test_line_ends_of_windows_change_no_verdict_and_are_counted(tmp_path: Path) -> None:
    words = ["morning", "evening", "river", "garden", "window", "market", "letter", "winter", "summer", "bridge"]
    text = "\n".join(f"{word} and the {words[i - 3]} that {words[i - 5]} was of it." for i, word in enumerate(words))
    rows = [{"text": text}, {"text": text.replace("\n", "\r\n")}, {"text": "too\r\nshort\r\n" * 9}]
    run = cleaned(tmp_path, "fineweb-quality, exact-duplicates", rows)
    assert sorted(shown(ledger(run), "rule", "number")) == [("exact-duplicates", 1), ("fineweb-quality", 2)]
    (shard,) = (run / "shards").iterdir()
    assert pq.read_table(shard)["text"].to_pylist() == [text]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["notices"] == [
        {
            "kind": "reading",
            "message": "2 documents: line ends of Windows or old Macintosh, read as \\n.",
            "documents": 2,
        }
    ]
    assert manifest["rules"]["read"]["notes"] == {steps.LINE_ENDS: 2}


def test_documents_in_another_encoding_are_counted(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("Grüße aus dem Süden.".encode("cp1252"))
    (tmp_path / "new.txt").write_text("Grüße aus dem Süden.", encoding="utf-8")
    run = cleaned(tmp_path, "mask", [], sources=[str(tmp_path / "old.txt"), str(tmp_path / "new.txt")])
    (notice,) = json.loads((run / "manifest.json").read_text())["notices"]
    assert (notice["documents"], notice["message"]) == (1, "1 documents: not UTF-8, read as Windows-1252.")
