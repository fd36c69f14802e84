"""Calibration text: rows from many files in turn, complete documents, no token twice."""

import json

import numpy as np
import pytest

from demiglace.config.data import ReadConfig
from demiglace.data.text import calibration_sample
from demiglace.data.text.calibration_sample import calibration_rows
from demiglace.errors import DataError
from factories import tiny_tokenizer

WHOLE = ReadConfig()


def tokens_of(rows):
    """The rows without padding, as lists."""
    return [rows.ids[a:b].tolist() for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)]


def test_a_document_is_cut_into_rows_and_nothing_is_lost(tmp_path):
    text, tokenizer = " ".join(f"the film {i}" for i in range(50)), tiny_tokenizer()
    (tmp_path / "a.txt").write_text(text)
    rows = tokens_of(calibration_rows([str(tmp_path / "a.txt")], WHOLE, tokenizer, 10_000, 20))
    assert [len(r) for r in rows[:-1]] == [20] * (len(rows) - 1)
    assert all((r[0], r[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) for r in rows)
    assert [i for r in rows for i in r[1:-1]] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_files_take_turns_until_there_is_enough(tmp_path):
    tokenizer = tiny_tokenizer(segments=True)
    for name, word in (("a", "red"), ("b", "blue"), ("c", "green")):
        (tmp_path / f"{name}.txt").write_text(f"{word} " * 100)
    rows = calibration_rows([str(tmp_path)], WHOLE, tokenizer, 40, 10)
    words = [tokenizer.convert_ids_to_tokens(r[1]) for r in tokens_of(rows)]
    assert words == ["red", "blue", "green", "red"]
    assert rows.lengths.sum() == 40
    assert (rows.type_ids == 0).all() and not rows.labelled.any()


def test_seeds_draw_different_rows_and_one_row_is_always_left(tmp_path):
    tokenizer, file = tiny_tokenizer(), tmp_path / "a.txt"
    file.write_text(" ".join(f"the film {i}" for i in range(50)))

    def drawn(seed):
        return tokens_of(calibration_rows([str(file)], WHOLE, tokenizer, 10_000, 20, seed))

    every = drawn(0)
    assert drawn(1) == drawn(1) != drawn(2)
    for rows in (drawn(1), drawn(2)):
        assert len(rows) == (len(every) + 1) // 2 and all(row in every for row in rows)
    file.write_text("a film")
    assert drawn(1) == drawn(0)


def test_short_files_leave_the_others_their_turns(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"body": t}) for t in ("a film", "the card")))
    (tmp_path / "b.txt").write_text("red\nblue\ngreen\n")
    reading = ReadConfig(text_key="body", unit="line")
    rows = calibration_rows([str(tmp_path / n) for n in ("b.txt", "a.jsonl")], reading, tiny_tokenizer(), 999, 16)
    shown = [tiny_tokenizer().decode(r, skip_special_tokens=True) for r in tokens_of(rows)]
    assert shown == ["a film", "red", "the card", "blue", "green"]


def test_long_documents_are_tokenized_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_sample, "_PIECE", 64)
    (tmp_path / "a.txt").write_text("red film " * 1000)
    calls, tokenizer = [], tiny_tokenizer()

    def counted(texts, **options):
        calls.append(len(texts[0]))
        return tokenizer(texts, **options)

    counted.model_input_names, counted.pad_token_id, counted.padding_side = ["input_ids"], 0, "right"
    rows = calibration_rows([str(tmp_path / "a.txt")], WHOLE, counted, 50, 256)
    assert calls == [64] * len(calls) and len(calls) < 10
    assert 50 <= rows.lengths.sum() < 80
    assert np.all(rows.lengths > 0)


def test_what_holds_no_text_is_refused_with_the_reason(tmp_path):
    (tmp_path / "long.txt").write_text("a film " * 200)
    with pytest.raises(DataError, match=r"--calibration .*long.txt has no text \(too long: 1\)"):
        calibration_rows([str(tmp_path / "long.txt")], ReadConfig(max_document_mb=1e-4), tiny_tokenizer(), 9, 9)
