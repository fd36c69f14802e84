"""Corpora as token files: complete, with end-of-text tokens, resumed after an interrupt, refused if damaged."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from tokenizers import normalizers
from tokenizers.processors import TemplateProcessing

from demiglace.config.data import ReadConfig
from demiglace.data.text import token_shards as rooms
from demiglace.data.text.blocks import Blocks, Masking, all_blocks
from demiglace.data.text.readers import GUESSED, drops, report_left_out
from demiglace.data.text.sources import corpus_files
from demiglace.data.text.token_shards import Corpus, end_of_text, load_corpus
from demiglace.errors import CacheError, DataError, ModelError
from demiglace.notices import collected, collecting
from demiglace.runs import files as runs_files
from text_kit import END, byte_tokenizer, sentences, write_jsonl

TOKENIZER = byte_tokenizer()


def loaded(home: Path, *files: Path, **reading: object) -> Corpus:
    return load_corpus(home / "tokens", corpus_files([str(f) for f in files]), TOKENIZER, ReadConfig(**reading))


def test_all_documents_and_an_end_behind_each(tmp_path: Path) -> None:
    texts = [*sentences(20), "naïve café €", f"it spells {TOKENIZER.eos_token} out"]
    corpus = loaded(
        tmp_path, write_jsonl(tmp_path / "a.jsonl", texts[:9]), write_jsonl(tmp_path / "b.jsonl", texts[9:])
    )
    tokens = corpus.read(0, len(corpus))
    ends = np.flatnonzero(tokens == TOKENIZER.eos_token_id)
    pieces = np.split(tokens, ends + 1)[:-1]
    assert [TOKENIZER.decode(p[:-1]) for p in pieces] == texts
    assert (corpus.documents, corpus.words) == (len(texts), sum(len(t.split()) for t in texts))
    assert corpus.bytes == sum(len(t.encode()) for t in texts)
    assert corpus.locate(0)[0].endswith("a.jsonl") and corpus.locate(len(corpus) - 1)[0].endswith("b.jsonl")
    assert corpus.locate(int(ends[8]) + 1) == (str(tmp_path / "b.jsonl"), 0)


def test_the_backend_at_once_gives_the_ids_that_transformers_gives(tmp_path: Path) -> None:
    tokenizer, texts = byte_tokenizer(), ["", " ", f"a {END} b", f"{END}{END}", "naïve café €😀", *sentences(30)]
    plain = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    tokenizer(texts, truncation=True, max_length=3, padding=True)  # which leaves both switched on in the backend
    assert list(rooms._encode(tokenizer, texts)) == plain

    class Overridden(type(tokenizer)):
        def _encode_plus(self, text: list[str], **options: object) -> dict:  # such as those of CodeLlama
            return {"input_ids": [[7] for _ in text]}

    tokenizer.__class__ = Overridden
    assert list(rooms._encode(tokenizer, texts)) == [[7]] * len(texts)


def test_any_stretch_can_be_read_across_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", sentences(60))
    whole = loaded(tmp_path / "one", file)
    monkeypatch.setattr(rooms, "SHARD_TOKENS", 50)
    monkeypatch.setattr(rooms, "_BATCH", 60)
    cut = loaded(tmp_path / "many", file)
    assert len(cut.parts) > 5 and len(whole.parts) == 1
    for start, stop in ((0, 1), (0, len(cut)), (40, 260), (len(cut) - 1, len(cut))):
        np.testing.assert_array_equal(cut.read(start, stop), whole.parts[0][start:stop])
    assert [cut.locate(t) for t in (0, 120, 300)] == [whole.locate(t) for t in (0, 120, 300)]


def test_what_was_cut_off_goes_on_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*sentences(60), "a\0b"])
    monkeypatch.setattr(rooms, "SHARD_TOKENS", 80)
    monkeypatch.setattr(rooms, "_BATCH", 60)
    whole = loaded(tmp_path / "whole", file)
    write, calls = rooms._write, 0

    def broken(*args: object, **more: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        write(*args, **more)

    monkeypatch.setattr(rooms, "_write", broken)
    with pytest.raises(KeyboardInterrupt):
        loaded(tmp_path / "cut", file)
    monkeypatch.setattr(rooms, "_write", write)
    first = sorted(tmp_path.glob("cut/tokens/*/*.npy"))
    before = [f.stat().st_mtime_ns for f in first]
    resumed = loaded(tmp_path / "cut", file)
    assert len(first) == 3 and [f.stat().st_mtime_ns for f in first] == before
    np.testing.assert_array_equal(resumed.read(0, len(resumed)), whole.read(0, len(whole)))
    assert (resumed.documents, resumed.bytes, resumed.left_out) == (whole.documents, whole.bytes, {"binary": 1})


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ["good text", "bin\0ary", "   ", "x" * 3000])
    with file.open("a") as handle:
        handle.write('{"text": 3}\n{broken\n')
    corpus = loaded(tmp_path, file, max_document_mb=0.002)
    assert corpus.documents == 1
    assert dict(corpus.left_out) == {"binary": 1, "empty": 1, "too long": 1, "no text under 'text'": 1, "no JSON": 1}


def test_the_same_text_is_tokenized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", sentences(5))
    first = loaded(tmp_path, file)
    monkeypatch.setattr(rooms, "_tokenize_file", lambda *_: pytest.fail("tokenized again"))
    assert loaded(tmp_path, file).fingerprint == first.fingerprint
    monkeypatch.undo()
    write_jsonl(file, sentences(6))
    assert loaded(tmp_path, file).fingerprint != first.fingerprint


def test_more_files_than_a_process_can_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write_jsonl(tmp_path / "text" / f"{i:03d}.jsonl", [f"text {i}"]) for i in range(150)]
    listings, listed = [], rooms._receipts
    monkeypatch.setattr(rooms, "_receipts", lambda directory: listings.append(directory) or listed(directory))
    monkeypatch.setattr(runs_files.os, "fsync", lambda handle: None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, limits[1]))
    try:
        corpus = loaded(tmp_path, *files)
        text = TOKENIZER.decode(corpus.read(0, len(corpus)), skip_special_tokens=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert text == "".join(f"text {i}" for i in range(150))
    assert len(listings) == 2
    assert not corpus.parts[0].flags.writeable


def test_token_ids_take_as_few_bytes_as_they_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", sentences(5))
    assert loaded(tmp_path, file).parts[0].dtype == np.uint16
    monkeypatch.setattr(type(TOKENIZER), "__len__", lambda _: 70_000)
    assert loaded(tmp_path / "large", file).parts[0].dtype == np.uint32


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damaged_token_files_are_refused(tmp_path: Path, how: str) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", sentences(9))
    loaded(tmp_path, file)
    (tokens,) = tmp_path.glob("tokens/*/*.npy")
    content = bytearray(tokens.read_bytes())
    content[-1] ^= 1
    tokens.unlink() if how == "gone" else tokens.write_bytes(content if how == "flipped" else content[:-20])
    with pytest.raises(CacheError, match=r"(corrupt|cannot be read).*remove .* tokenized again"):
        loaded(tmp_path, file)


@pytest.mark.parametrize("how", ["gone", "torn", "keyless"])
def test_shards_are_checked_as_a_set(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", sentences(60))
    monkeypatch.setattr(rooms, "SHARD_TOKENS", 80)
    monkeypatch.setattr(rooms, "_BATCH", 60)
    assert len(loaded(tmp_path, file).parts) > 3
    (receipt,) = tmp_path.glob("tokens/*/00000-00001.json")
    said = json.loads(receipt.read_text())
    del said["crc32"]
    receipt.unlink() if how == "gone" else receipt.write_text('{"las' if how == "torn" else json.dumps(said))
    with pytest.raises(CacheError, match=r"receipt .*00001.json is missing or damaged; remove .*tokenized again"):
        loaded(tmp_path, file)


def test_what_decides_no_token_parts_no_token_files(tmp_path: Path) -> None:
    file, other = write_jsonl(tmp_path / "a.jsonl", sentences(5)), byte_tokenizer()
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B", special_tokens=[(END, other.eos_token_id)]
    )
    other.backend_tokenizer.enable_padding(length=9)
    first, same = (load_corpus(tmp_path / "tokens", [str(file)], t, ReadConfig()) for t in (TOKENIZER, other))
    assert first.fingerprint == same.fingerprint
    np.testing.assert_array_equal(first.read(0, len(first)), same.read(0, len(same)))
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert load_corpus(tmp_path / "tokens", [str(file)], other, ReadConfig()).fingerprint != first.fingerprint


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        loaded(tmp_path, tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("  \n")
    with pytest.raises(DataError, match=r"no document to read \(empty 1\)"):
        loaded(tmp_path, tmp_path / "empty.txt")
    (tmp_path / "huge.txt").write_text("x" * 2_000_000)
    with pytest.raises(DataError, match=r"\(too long 1\).*--max-document-mb"):
        loaded(tmp_path, tmp_path / "huge.txt", max_document_mb=1.0)
    (tmp_path / "junk.txt").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(DataError, match=r"\(binary 1\)"):
        loaded(tmp_path, tmp_path / "junk.txt")


def test_mixed_encodings_become_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    (tmp_path / "b.txt").write_text("café", "utf-16")
    (tmp_path / "c.txt").write_text("café", "utf-8-sig")
    corpus = loaded(tmp_path, tmp_path)
    assert TOKENIZER.decode(corpus.read(0, len(corpus)), skip_special_tokens=True) == "café" * 3
    assert (corpus.documents, dict(corpus.left_out), drops(corpus.left_out)) == (3, {GUESSED: 1}, {})
    with collecting():
        report_left_out({**corpus.left_out, "empty": 2})
        report_left_out({"empty": 2})
        assert [(n["kind"], n["documents"]) for n in collected()] == [("encoding", 1)]
    said = capsys.readouterr().err
    assert "left out: empty 2" in said
    assert "1 documents are not UTF-8, and were read as Windows-1252" in said


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no end-of-text token.*tokenizer train"):
        end_of_text(byte_tokenizer(end=False))


def test_a_run_of_clean_means_its_shards(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "run" / "shards" / "0.jsonl", ["kept"])
    write_jsonl(tmp_path / "run" / "ledger" / "0.jsonl", ["dropped"])
    assert corpus_files([str(tmp_path / "run")]) == [str(tmp_path / "run" / "shards" / "0.jsonl")]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return loaded(tmp_path, write_jsonl(tmp_path / "a.jsonl", sentences(40)))


def test_blocks_predict_every_token_but_the_first_once(corpus: Corpus) -> None:
    blocks = all_blocks(corpus, 16)
    batch = blocks.batch(np.arange(len(blocks)), "cpu", 1.0, 0)
    tokens = corpus.read(0, len(blocks) * 16 + 1)
    np.testing.assert_array_equal(batch.input_ids.flatten(), tokens[:-1])
    np.testing.assert_array_equal(batch.labels.flatten(), tokens[1:])
    assert len(corpus) - len(tokens) < 16 and batch.positions is None and batch.attention_mask.all()
    assert set(blocks.lengths) == {16} and blocks.labelled.all()
    assert blocks.lines[2] == (f"{corpus.files[0]}:token", 33) and len(list(blocks.lines)) == len(blocks)


def test_masked_blocks_hide_a_fixed_share_anew_each_epoch(corpus: Corpus) -> None:
    masking = Masking(0.25, mask_id=999, vocabulary=(500, 600), seed=3)
    blocks, rows = all_blocks(corpus, 16, masking), np.array([4, 1, 7])
    whole = all_blocks(corpus, 16).batch(rows, "cpu", 1.0, 0).input_ids
    batch, again, later = (blocks.batch(rows, "cpu", 1.0, epoch) for epoch in (0, 0, 1))
    assert batch.positions is not None and batch.positions.shape == batch.labels.shape == (3, blocks.num_targets) == (
        3,
        4,
    )
    np.testing.assert_array_equal(batch.labels, whole.gather(1, batch.positions))
    rest = batch.input_ids.scatter(1, batch.positions, batch.labels)
    np.testing.assert_array_equal(rest, whole)
    np.testing.assert_array_equal(batch.input_ids, again.input_ids)
    assert not np.array_equal(batch.positions, later.positions)
    alone = blocks.batch(rows[1:2], "cpu", 1.0, 0)
    np.testing.assert_array_equal(alone.input_ids[0], batch.input_ids[1])


def test_masked_tokens_meet_three_fates(corpus: Corpus) -> None:
    blocks = all_blocks(corpus, 64, Masking(0.5, mask_id=999, vocabulary=(500, 600), seed=0))
    kept = masked = other = 0
    for epoch in range(20):
        batch = blocks.batch(np.arange(len(blocks)), "cpu", 1.0, epoch)
        assert batch.positions is not None
        found = batch.input_ids.gather(1, batch.positions)
        kept += int((found == batch.labels).sum())
        masked += int((found == 999).sum())
        other += int(((found >= 500) & (found < 600)).sum())
    total = kept + masked + other
    assert total == 20 * len(blocks) * 32
    assert masked / total == pytest.approx(0.8, abs=0.02) and other / total == pytest.approx(0.1, abs=0.02)


def test_too_little_text_for_a_block(corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"fewer than one block of 100000 .* smaller --block-size"):
        all_blocks(corpus, 100_000)
    assert len(all_blocks(corpus, len(corpus) - 1)) == 1


def test_receipts_tell_what_was_read(tmp_path: Path) -> None:
    corpus = loaded(tmp_path, write_jsonl(tmp_path / "a.jsonl", sentences(4)))
    (receipt,) = (f for f in tmp_path.glob("tokens/*/*.json") if f.name != "corpus.json")
    said = json.loads(receipt.read_text())
    assert said["tokens"] == len(corpus) and said["documents"] == said["read"] == 4 and said["last"]


def test_blocks_of_a_choice(corpus: Corpus) -> None:
    some = Blocks(corpus, 16, np.array([5, 2]))
    np.testing.assert_array_equal(some.batch(np.array([1]), "cpu", 1.0, 0).input_ids[0], corpus.read(32, 48))
