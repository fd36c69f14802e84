"""The estimated number of tokens of a corpus, against a full count."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from demiglace.config.data import ReadConfig
from demiglace.costs import corpus_size
from demiglace.costs.corpus_size import estimate_tokens
from demiglace.data.text.token_shards import load_corpus
from demiglace.errors import DataError
from text_kit import byte_tokenizer

WORDS = np.array(["cat", "dog", "sat", "ran", "under", "the", "mat", "overwhelmingly", "sofa", "and", "then"])


def documents(count: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, int(draw.integers(5, 80)))) for _ in range(count)]


def write(home: Path, name: str, texts: list[str]) -> str:
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts).encode()
    file = home / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts}), file, row_group_size=100)
    elif name.endswith(".gz"):
        file.write_bytes(gzip.compress(lines))
    elif name.endswith(".zst"):
        file.write_bytes(zstandard.compress(lines))
    else:
        file.write_bytes(lines if name.endswith("jsonl") else "\n\n".join(texts).encode())
    return str(file)


def counted(files: list[str], home: Path, reading: ReadConfig) -> int:
    return len(load_corpus(home, files, byte_tokenizer(), reading))


@pytest.mark.parametrize("unit", ["document", "paragraph"])
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt"])
def test_a_part_tells_the_whole(kind: str, unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reading = write(tmp_path, f"one.{kind}", documents(3000)), ReadConfig(unit=unit)
    whole = counted([file], tmp_path / "tokens", reading)
    assert estimate_tokens([file], byte_tokenizer(), reading) == (whole, True)
    monkeypatch.setattr(corpus_size, "SAMPLE", Path(file).stat().st_size // 5)
    tokens, is_counted = estimate_tokens([file], byte_tokenizer(), reading)
    assert not is_counted
    assert tokens == pytest.approx(whole, rel=0.1)  # Zstandard gives blocks of 128 KB, and the cut one not


def test_some_files_tell_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path, f"{i:02}.jsonl", documents(100 + 10 * i, seed=i)) for i in range(20)]
    whole = counted(files, tmp_path / "tokens", ReadConfig())
    monkeypatch.setattr(corpus_size, "SAMPLE", 60_000)
    read: list[int] = []
    monkeypatch.setattr(
        corpus_size, "count_tokens", lambda _, texts: read.append(len(texts)) or sum(len(t) + 1 for t in texts)
    )
    tokens, _ = estimate_tokens(files, byte_tokenizer(), ReadConfig())
    assert tokens == pytest.approx(whole, rel=0.1)
    assert len(read) == 8 and sum(read) < 1500  # of 3,900


def test_a_document_longer_than_the_part_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "one.jsonl.zst", [" ".join(documents(500))])
    monkeypatch.setattr(corpus_size, "SAMPLE", 100)
    whole = counted([file], tmp_path / "tokens", ReadConfig())
    assert estimate_tokens([file], byte_tokenizer(), ReadConfig())[0] == whole


def test_no_document_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "one.jsonl", ["a", "b"])
    with pytest.raises(DataError, match="no document to read"):
        estimate_tokens([file], byte_tokenizer(), ReadConfig(text_key="words"))
