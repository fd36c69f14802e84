"""The default of --max-length, and what is cut of rows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, MambaConfig, MPNetConfig

from demiglace.data.lengths import default_max_length, full_lengths, report_cut
from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import tokenize
from demiglace.models import max_length
from demiglace.models.from_config import random_model
from demiglace.models.max_length import most_tokens, most_tokens_of_config, trained_max_length
from demiglace.models.shape import ModelShape, max_positions
from demiglace.models.truncate import truncate_config
from demiglace.notices import collected, collecting
from factories import ARCHITECTURES, MAX_LENGTH, save_tiny, tiny_config, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def rows_of(*words: int) -> Split:
    texts = [" ".join(["word"] * count) for count in words]
    return Split("train", texts, None, np.zeros(len(texts), np.int64), [("rows.csv", i) for i in range(len(texts))])


def tokens_of(split: Split) -> list[int]:
    return [len(TOKENIZER(text)["input_ids"]) for text in split.texts]


def test_the_default_is_the_99th_percentile_rounded_up_and_bounded_by_the_model() -> None:
    split = rows_of(*[40] * 99, 1000)
    needed = tokens_of(split)[0]
    assert full_lengths(split, TOKENIZER).tolist() == tokens_of(split)
    length, line = default_max_length(split, TOKENIZER, None)
    assert length == -(-needed // 32) * 32
    assert line == f"max-length: {length} tokens; 99% of the training rows have at most {needed}."
    assert default_max_length(rows_of(*[40] * 98, 1000, 1000), TOKENIZER, None)[0] > 1000
    bounded, line = default_max_length(split, TOKENIZER, needed - 3)
    assert bounded == needed - 3
    assert line.endswith(f"at most {needed}, and the model takes {needed - 3}.")


def test_cut_rows_and_tokens_are_counted(capsys: pytest.CaptureFixture) -> None:
    split, short = rows_of(5, 50, 60), rows_of(3)
    splits, limit = {"train": split, "test": short}, 30
    examples = {name: tokenize(s, TOKENIZER, limit) for name, s in splits.items()}
    full = tokens_of(split)
    with collecting():
        cut = report_cut(splits, examples, TOKENIZER, limit)
        assert cut == {"train": {"rows": 2, "tokens": full[1] + full[2] - 60, "of_tokens": sum(full)}}
        assert [(n["kind"], n["rows"], n["tokens"]) for n in collected()] == [("max-length", 2, cut["train"]["tokens"])]
        assert report_cut({"test": short}, examples, TOKENIZER, limit) == {}
    assert "warning: rows longer than --max-length 30 are cut: 2 of 3 train rows (" in capsys.readouterr().err


def test_rows_of_exactly_the_limit_are_not_cut() -> None:
    split = rows_of(5, 8)
    limit = max(tokens_of(split))
    assert report_cut({"train": split}, {"train": tokenize(split, TOKENIZER, limit)}, TOKENIZER, limit) == {}
    assert tokenize(split, TOKENIZER, None).lengths.tolist() == tokens_of(split)


def test_the_second_text_of_a_pair_counts() -> None:
    split = replace(rows_of(5), pairs=["word " * 30])
    assert full_lengths(split, TOKENIZER)[0] == len(TOKENIZER(split.texts[0], split.pairs[0])["input_ids"])


def test_the_limit_of_models_and_what_a_run_was_trained_with(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "run" / "model")
    assert most_tokens(str(model)) == MAX_LENGTH
    assert trained_max_length(str(model)) is None
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"max_length": 96, "config": {"max_length": None}}))
    for path in (tmp_path / "run", model):
        assert trained_max_length(str(path)) == 96
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"config": {"max_length": 128}}))  # of version 0.1
    assert trained_max_length(str(model)) == 128
    assert trained_max_length("nowhere/model") is None


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_config_gives_the_limit_of_its_model(arch: str) -> None:
    assert most_tokens_of_config(tiny_config(arch)) == ModelShape.of(tiny_model(arch, num_layers=1)).max_positions


@pytest.mark.parametrize("kind", max_length._FROM_ZERO + max_length._AFTER_PADDING)
def test_the_table_of_types_agrees_with_models_of_these_types(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AutoConfig.for_model(kind)
    expected = max_positions(random_model(truncate_config(config, (0,)), torch.device("meta")))
    monkeypatch.setattr(max_length, "random_model", None)  # the table answers without it
    assert most_tokens_of_config(config) == expected


def test_a_config_of_another_type_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32, "num_hidden_layers": 1}
    config, built = MPNetConfig(**sizes, max_position_embeddings=72), []
    monkeypatch.setattr(max_length, "random_model", lambda *args: built.append(args) or random_model(*args))
    # the position of the first token is that after the padding token, 1
    assert [most_tokens_of_config(config) for _ in range(2)] == [70, 70]
    assert len(built) == 1
    assert most_tokens_of_config(MambaConfig()) is None
