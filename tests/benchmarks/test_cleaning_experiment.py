"""The script of the experiment on cleaned text, from raw text to results, on tiny data."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard

from text_kit import sentences

ROOM = Path(__file__).parent.parent.parent / "benchmarks" / "cleaning"


@pytest.fixture
def experiment(load, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOM)
    return load("cleaning/models.py", "cleaning_models")


def test_noise_is_planted_as_stated(experiment) -> None:
    documents = [f"{' '.join(sentences(3, seed=i))}\nIt's line two of {i}" for i in range(2000)]
    made = list(experiment.planted(documents))
    kinds = [kind for _, each in made for kind in each]
    for kind, share in experiment.NOISE.items():
        assert kinds.count(kind) / 2000 == pytest.approx(share, abs=0.03), kind
    assert made == list(experiment.planted(documents)) and made != list(experiment.planted(documents, seed=1))
    texts = [text for text, _ in made]
    assert any("<div" in t for t in texts) and any("â€™" in t for t in texts)
    copies = sum(texts.count(text) > 1 for text, kinds in made if kinds == ("copies",))
    assert copies == kinds.count("copies")


def test_every_model_is_made_and_compared(experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, int, int]] = []

    def train(home: Path, start: Path, name: str, corpus: Path, seed: int, tokens: int) -> dict:
        called.append((name, seed, tokens))
        gain = {"raw": 0.0, "paper": 0.1, "web": 0.2}[name.split(",")[0]]
        held = {"books/test": {"bits_per_byte": 2 - gain + 0.001 * seed * gain, "perplexity": 9.0}}
        facts = {"text": name, "seed": seed, "tokens": tokens, "seconds": 10.0}
        return facts | {"held_back": held, "tasks": {"sst2": 80 + (seed if name == "web" else -seed)}}

    monkeypatch.setattr(experiment, "train", train)
    monkeypatch.setattr(experiment, "write_raw", lambda home: {})
    monkeypatch.setattr(experiment, "cleaned", lambda home, rules: {"paper": 1.0, "web": 3.0}[rules])
    monkeypatch.setattr(experiment, "measure", lambda *a: {"held_back": {}, "tasks": {}})
    monkeypatch.setattr(experiment.demiglace, "truncate", lambda **given: tmp_path, raising=False)
    written: dict = {}
    monkeypatch.setattr(experiment, "write", lambda name, facts: written.update(json.loads(json.dumps(facts))))
    monkeypatch.setattr(sys, "argv", ["models.py", "--output", str(tmp_path)])
    experiment.main()
    tokens = experiment.TOKENS
    assert called[:3] == [("raw", 0, tokens), ("paper", 0, tokens), ("web", 0, tokens)] and len(called) == 15
    rate = tokens / 10
    assert called[9] == ("raw, equal time", 0, round(tokens + 3 * rate))
    assert called[12] == ("paper, equal time", 0, round(tokens + 2 * rate))
    found = written["compared"]["web"]["books/test, bits per byte"]
    assert found["difference"] == pytest.approx(-0.2, abs=1e-3) and found["p"] < 0.05
    assert found["interval"][0] < found["difference"] < found["interval"][1] < 0
    assert written["compared"]["web"]["sst2"]["p"] > 0.05
    assert np.isclose(written["compared"]["raw, equal time"]["sst2"]["difference"], 0)
    assert list(written["compared at equal time"]) == ["web", "paper, equal time"]
    at_equal_tokens, at_equal_time = (written[k]["web"]["sst2"] for k in ("compared", "compared at equal time"))
    assert at_equal_time["interval"] == at_equal_tokens["interval"]
    assert at_equal_time["p"] < at_equal_tokens["p"]  # fewer comparisons to correct for


def test_what_the_raw_text_holds_is_not_measured(experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [" ".join(f"word{i * 100 + j}" for j in range(40)) for i in range(4)]
    for split, texts in (("validation", pages[:2]), ("test", pages[2:])):
        write_packed(tmp_path / "data" / "docs_plain" / f"{split}.jsonl.zst", texts)
    write_packed(tmp_path / "home" / "raw.jsonl.zst", [f"before {pages[1]} behind", " ".join(pages[2].split()[:12])])
    monkeypatch.setattr(experiment, "data_folder", lambda: tmp_path / "data")
    left = experiment.unseen(tmp_path / "home")
    texts = [text for file in (left / "shards").iterdir() for text in pq.read_table(file)["text"].to_pylist()]
    assert sorted(texts) == sorted([pages[0], *pages[2:]])


def write_packed(file: Path, texts: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    file.write_bytes(zstandard.compress(lines.encode()))
