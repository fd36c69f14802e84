"""Complete runs of `demiglace clean`."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

import demiglace
from demiglace.cleaning import tasks
from demiglace.errors import ConfigError, DataError, RunError, UserError
from paper_program import kept

NOUNS = ("river", "garden", "letter", "window", "morning", "teacher", "bridge", "market", "winter", "captain", "story")
KINDS = (
    "old",
    "quiet",
    "green",
    "broken",
    "distant",
    "famous",
    "empty",
    "heavy",
    "narrow",
    "painted",
    "gentle",
    "cold",
)
VERBS = ("found", "carried", "remembered", "painted", "followed", "answered", "bought", "mended", "crossed", "opened")
LINKS = ("and", "of", "with", "that had", "by", "to have", "near", "under", "behind", "without", "before")


def sentence(draw: random.Random) -> str:
    words = ["The", draw.choice(KINDS), draw.choice(NOUNS), draw.choice(VERBS)]
    for _ in range(draw.randint(2, 4)):
        words += [draw.choice(("a", "the", "some")), draw.choice(KINDS), draw.choice(NOUNS), draw.choice(LINKS)]
    return f"{' '.join(words)} {draw.choice(KINDS)} {draw.choice(NOUNS)}s."


def page(i: int) -> str:
    draw = random.Random(i)
    lines = [" ".join(sentence(draw) for _ in range(4)) for _ in range(6)]
    return "\n".join(["Home | News | About", *lines, f"Write to me{i}@mail.example or not at all, as you like it."])


def corpus(directory: Path, count: int = 24) -> list[Path]:
    directory.mkdir(exist_ok=True)
    pages = [page(i) for i in range(count)]
    pages[3] = "Das ist ein deutscher Text, der nicht bleiben soll. " * 12
    pages[5] = pages[1]
    pages[6] = pages[2].replace("The ", "A ", 1)
    pages[7] = "\n".join(["the word and the word of the word"] * 40)
    rows = [{"text": text, "url": f"http://site{i % 2}.example/{i}"} for i, text in enumerate(pages)]
    rows[9] = {"body": "no text"}
    files = []
    for k in range(2):
        file = directory / f"part{k}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[k::2]), "utf-8")
        files.append(file)
    return files


def shards(run: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted((run / "shards").iterdir())}


def texts(run: Path) -> list[str]:
    return [t for f in sorted((run / "shards").iterdir()) for t in pq.read_table(f)["text"].to_pylist()]


def ledger(run: Path) -> list[dict]:
    return [row for f in sorted((run / "ledger").iterdir()) for row in pq.read_table(f).to_pylist()]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("web")
    corpus(home / "in")
    return demiglace.clean(sources=[str(home / "in")], output=home / "out", workers=1)


def test_what_is_dropped_is_in_the_ledger_with_its_reason(web: Path) -> None:
    rows = ledger(web)
    dropped = {
        (Path(r["source"]).name, r["number"]): (r["rule"], r["reason"]) for r in rows if r["action"] == "dropped"
    }
    assert dropped["part1.jsonl", 1] == ("language", "probability of en")
    assert dropped["part1.jsonl", 4] == ("read", "no text under 'text'")
    assert dropped["part1.jsonl", 3] == ("gopher-repetition", "repeated lines")
    assert dropped["part1.jsonl", 2][0] == "exact-duplicates"
    assert dropped["part0.jsonl", 3][0] == "near-duplicates"
    assert len(texts(web)) + len(dropped) == 24
    lines = {r["reason"] for r in rows if r["action"] == "removed a line"}
    assert lines == {"in many documents of its site"}
    assert all("@mail" not in t and "email@example.com" in t and "Home |" not in t for t in texts(web))
    (language,) = (r for r in rows if r["rule"] == "language")
    assert (language["threshold"], language["value"] < 0.1) == (0.65, True)


def test_the_manifest_counts_what_went_in_and_out(web: Path) -> None:
    manifest = json.loads((web / "manifest.json").read_text())
    assert manifest["totals"]["documents"] == [23, len(texts(web))]
    assert manifest["totals"]["characters"][1] == sum(map(len, texts(web)))
    chain = [t["documents"] for name, t in manifest["rules"].items() if name != "read"]
    assert all(a[1] == b[0] for a, b in pairwise(chain))
    assert not (web / "work").exists()


def test_the_page_shows_rules_examples_and_clusters(web: Path) -> None:
    content = (web / "cleaning.html").read_text("utf-8")
    for piece in ("gopher-quality", "probability of en", "Dropped, drawn at random", "Near-duplicates side by side"):
        assert piece in content
    rules = json.loads((web / "manifest.json").read_text())["rules"]
    for unit in ("documents", "characters", "words"):
        assert all(f"<td>{n:,}</td>" in content for name in rules if name != "read" for n in rules[name][unit])
    assert "<script" not in content


def test_the_same_again_is_up_to_date(web: Path, capsys: pytest.CaptureFixture) -> None:
    before = (web / "manifest.json").stat().st_mtime_ns
    demiglace.clean(sources=[str(web.parent / "in")], output=web, workers=2)
    assert "up to date" in capsys.readouterr().err
    assert (web / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="rules"):
        demiglace.clean(sources=[str(web.parent / "in")], output=web, rules="paper")


def test_neither_order_nor_workers_nor_parts_change_what_is_left(
    web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(web.parent / "in" / f"part{k}.jsonl") for k in (1, 0)]
    two = demiglace.clean(sources=files, output=tmp_path / "two", workers=2)
    assert shards(two) == shards(web)
    assert ledger(two) == ledger(web)
    monkeypatch.setattr(tasks, "PART", 3000)
    small = demiglace.clean(sources=files, output=tmp_path / "small", workers=1)
    assert len(shards(small)) > len(shards(web))
    assert texts(small) == texts(web)


def plainly(documents: list[str]) -> list[str]:
    """Return the documents after the published program; documents without text are dropped."""
    lines = [text.split("\n") for text in documents]
    keep = iter(kept(line for document in lines for line in document))
    left = ("\n".join(line for line in document if next(keep)) for document in lines)
    return [text for text in left if text.strip()]


def test_the_papers_rules_line_for_line(tmp_path: Path, data_dir: Path) -> None:
    rows = []
    with (data_dir / "docs_raw" / "test.jsonl.zst").open("rb") as packed:
        for line in zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines():
            rows.append(json.loads(line)["text"])
    run = demiglace.clean(
        sources=[str(data_dir / "docs_raw" / "test.jsonl.zst")], output=tmp_path / "out", rules="paper", workers=1
    )
    assert texts(run) == plainly(rows)


def test_rules_of_a_users_own(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "rules:\n- {rule: gopher-quality, min_words: 3, min_stop_words: 0, min_alphabetic_words: 0}\n- mask\n"
    )
    (tmp_path / "x.txt").write_text("one two three\nshort\nwrite to a@b.org please\n")
    run = demiglace.clean(
        sources=[str(tmp_path / "x.txt")],
        output=tmp_path / "out",
        rules=str(tmp_path / "rules.yaml"),
        unit="line",
        format="jsonl",
        workers=1,
    )
    (shard,) = (run / "shards").iterdir()
    rows = [json.loads(line) for line in zstandard.decompress(shard.read_bytes()).splitlines()]
    assert [(r["text"], r["number"]) for r in rows] == [("one two three", 0), ("write to email@example.com please", 2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rules: [gopher]", "unknown rule 'gopher'; did you mean 'gopher-quality'"),
        ("rules: [{rule: language, min_probabilty: 1}]", "did you mean 'min_probability'"),
        ("rules: [{rule: language, min_probability: 2}]", "min.probability"),
        ("rules: [{languages: [en]}]", "expected a rule's name"),
        ("rule: [mask]", "expected one key, rules"),
        ("rules: []", "expected one key, rules"),
        ("rules: [mask, repair, {rule: mask, ip: x}]", "the rule mask was given 2 times"),
    ],
)
def test_rules_that_do_not_exist(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rules.yaml").write_text(content)
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(ConfigError, match=message):
        demiglace.clean(sources=[str(tmp_path / "x.txt")], output=tmp_path / "o", rules=str(tmp_path / "rules.yaml"))
    assert not (tmp_path / "o").exists()


def test_bad_calls(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    source = [str(tmp_path / "x.txt")]
    with pytest.raises(DataError, match="does not exist"):
        demiglace.clean(sources=[str(tmp_path / "nothing")], output=tmp_path / "o")
    with pytest.raises(ConfigError, match="is in the output directory"):
        demiglace.clean(sources=source, output=tmp_path)
    with pytest.raises(ConfigError, match="unknown rule set 'webb'"):
        demiglace.clean(sources=source, output=tmp_path / "o", rules="webb")
    with pytest.raises(ConfigError, match="unknown task 'sst'"):
        demiglace.clean(sources=source, output=tmp_path / "o", decontaminate_against=["sst"])
    with pytest.raises(ConfigError, match="no output directory"):
        demiglace.clean(sources=source)


def test_damaged_files_are_refused_or_used_up_to_the_damage(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(90_000)).encode()
    (tmp_path / "x.jsonl.zst").write_bytes(zstandard.compress(lines)[:-9])
    call = {"sources": [str(tmp_path / "x.jsonl.zst")], "output": tmp_path / "o", "rules": "paper", "workers": 1}
    with pytest.raises(UserError, match=r"cut off after .* decompressed bytes.*--keep-damaged"):
        demiglace.clean(**call)
    assert not (tmp_path / "o" / "manifest.json").exists()
    run = demiglace.clean(**call | {"output": tmp_path / "kept"}, keep_damaged=True)
    assert [r["reason"] for r in ledger(run) if r["rule"] == "read"] == ["damaged from here on"]
    assert len(texts(run)) > 0


def test_decontamination_against_a_file(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(page(2).split("\n")[2])
    corpus(tmp_path / "in", 12)
    run = demiglace.clean(
        sources=[str(tmp_path / "in")],
        output=tmp_path / "o",
        decontaminate_against=[str(tmp_path / "test.txt")],
        workers=1,
    )
    dropped = [(Path(r["source"]).name, r["number"]) for r in ledger(run) if r["rule"] == "decontamination"]
    assert dropped == [("part0.jsonl", 1)]


def test_explain(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "x.txt").write_text(page(1))
    assert demiglace.clean(sources=[str(tmp_path / "x.txt")], explain=True) is None
    said = capsys.readouterr().out
    assert "probability of en" in said
    assert "at least 0.65" in said
    assert "needs a full run" in said


_SMALL = 4000  # characters of a part, so that there is something to interrupt


def in_child(call: dict) -> subprocess.Popen:
    script = (
        "import json, sys, demiglace\n"
        "from demiglace.cleaning import tasks\n"
        f"tasks.PART = {_SMALL}\n"
        "demiglace.clean(**json.loads(sys.argv[1]))\n"
    )
    return subprocess.Popen([sys.executable, "-c", script, json.dumps(call)], start_new_session=True)


@pytest.fixture
def many(tmp_path: Path) -> Iterator[dict]:
    corpus(tmp_path / "in", 24)
    for k in range(2, 40):
        (tmp_path / "in" / f"part{k}.txt").write_text(page(100 + k))
    yield {"sources": [str(tmp_path / "in")], "output": str(tmp_path / "out"), "workers": 1}


def test_a_killed_run_goes_on_to_the_same_result(many: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PART", _SMALL)
    whole = demiglace.clean(**many | {"output": str(tmp_path / "whole")})
    out = tmp_path / "out"
    for least in (5, 60):
        child = in_child(many)
        deadline = time.monotonic() + 50
        while len(list(out.glob("work/*/*.json"))) < least and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert not (out / "manifest.json").exists()
    finished = sorted((out / "shards").glob("*"))
    if finished:  # a finished shard that is damaged meanwhile is named, and nothing is complete
        content = finished[0].read_bytes()
        finished[0].write_bytes(b"")
        with pytest.raises(RunError, match=f"{finished[0].name} has 0 bytes instead of"):
            demiglace.clean(**many)
        assert not (out / "manifest.json").exists()
        finished[0].write_bytes(content)
    (out / "ledger").mkdir(exist_ok=True)
    (out / "ledger" / "0-00000.parquet.1.part").write_bytes(b"PAR1")  # where the kill meets a file half written
    demiglace.clean(**many)
    assert len(shards(whole)) > 20
    assert shards(out) == shards(whole)
    assert not list(out.rglob("*.part"))
    assert ledger(out) == ledger(whole)
    assert (out / "cleaning.html").read_text("utf-8") == (whole / "cleaning.html").read_text("utf-8")


def test_ray_gives_the_same_bytes(web: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules: [gopher-repetition, near-duplicates, mask]\n"
    )  # few rules, since Ray starts again for each task
    script = (
        "import sys, ray, demiglace\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "source, output, rules = sys.argv[1:]\n"
        "demiglace.clean(sources=[source], output=output, rules=rules, engine='ray', workers=2)\n"
    )
    source = str(web.parent / "in")
    call = [sys.executable, "-c", script, source, str(tmp_path / "ray"), str(rules)]
    subprocess.run(call, check=True, capture_output=True)
    local = demiglace.clean(sources=[source], output=tmp_path / "local", rules=str(rules), workers=1)
    assert shards(tmp_path / "ray") == shards(local)
    assert ledger(tmp_path / "ray") == ledger(local)
    assert any(row["rule"] == "near-duplicates" for row in ledger(local))


def test_five_times_the_text_that_fits_into_memory(tmp_path: Path) -> None:
    """A run that may take 16 MB more than a process that has cleaned something already, over 80 MB of text."""
    room, size = 16_000_000, 80_000_000
    script = (
        "import resource, sys, demiglace\n"
        "from pathlib import Path\n"
        "from demiglace.cleaning import pipeline, tasks\n"
        "tasks.PART = pipeline.BATCH = 200_000\n"
        "small, large, rules, room = sys.argv[1:]\n"
        "demiglace.clean(sources=[small], output=small + '.out', rules=rules, workers=1)\n"
        "rest = 1024 * int(Path('/proc/self/status').read_text().split('VmData:')[1].split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (rest + int(room),) * 2)\n"
        "demiglace.clean(sources=[large], output=large + '.out', rules=rules, workers=1)\n"
    )
    pages = [page(i) for i in range(200)]
    files = [tmp_path / "small.jsonl", tmp_path / "large.jsonl"]
    for file, wanted in zip(files, (size // 100, size), strict=True):
        with file.open("w") as stream:
            written = number = 0
            while written < wanted:
                text = f"{pages[number % len(pages)]} Number {number}."
                written, number = written + len(text), number + 1
                stream.write(json.dumps({"text": text}) + "\n")
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [gopher-quality, exact-duplicates, mask]\n")
    call = [sys.executable, "-c", script, *map(str, files), str(rules), str(room)]
    subprocess.run(call, check=True, capture_output=True, timeout=300)
    totals = json.loads((tmp_path / "large.jsonl.out" / "manifest.json").read_text())["totals"]
    assert totals["documents"] == [number, number]
    assert totals["characters"][0] > 5 * room
