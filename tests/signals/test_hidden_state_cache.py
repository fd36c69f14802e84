"""The hidden-state cache: its content, resuming an interrupted capture, and errors."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_kit import assert_equal_arrays, cut_off_at
from transformers import PreTrainedModel

from demiglace.data.batching import collate
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import CacheError
from demiglace.models.shape import ModelShape
from demiglace.signals import hidden_state_cache, shard_store
from demiglace.signals.hidden_state_cache import CacheKey, SignalCache, covering_cache, fill_cache
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, hidden_request
from demiglace.signals.shard_store import prepare_cache
from factories import tiny_model
from training_kit import random_examples

REQUEST = SignalRequest(logits=True) | hidden_request("mean", [1, 2]) | hidden_request("first", [3])
ROWS = 40


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_state_cache, "SHARD_ROWS", 16)


@pytest.fixture
def teacher() -> PreTrainedModel:
    return tiny_model("bert", num_layers=3)


@pytest.fixture
def examples() -> TokenizedSplit:
    return random_examples(ROWS)


def key_of(teacher: PreTrainedModel, examples: TokenizedSplit, dtype: str = "float32") -> CacheKey:
    return CacheKey.of("teacher", ModelShape.of(teacher), examples, REQUEST, dtype, "fp32")


def filled(directory: Path, teacher: PreTrainedModel, examples: TokenizedSplit, dtype: str = "float32") -> CacheKey:
    key = key_of(teacher, examples, dtype)
    prepare_cache(directory, key)
    fill_cache(directory, key, teacher, examples)
    return key


def test_returns_the_teachers_signals_in_any_batch(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit
) -> None:
    key = filled(tmp_path / "c", teacher, examples)
    batch = collate(examples, np.array([39, 0, 17, 16, 3]))
    cached, online = SignalCache(tmp_path / "c", key).fetch(batch), OnlineTeacher(teacher, REQUEST, "fp32").fetch(batch)
    torch.testing.assert_close(cached.logits, online.logits, rtol=1e-4, atol=1e-5)
    for pooling, layers in (("mean", [1, 2]), ("first", [3])):
        torch.testing.assert_close(cached.hidden(pooling, layers), online.hidden(pooling, layers), rtol=1e-4, atol=1e-5)


def test_a_cache_with_more_signals_serves_a_request_of_fewer(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit
) -> None:
    key = key_of(teacher, examples)
    fewer = replace(key, poolings=("mean",))
    prepare_cache(tmp_path / key.name, key)
    assert covering_cache(tmp_path, fewer) is None  # it is not complete
    fill_cache(tmp_path / key.name, key, teacher, examples)
    assert covering_cache(tmp_path, fewer) == tmp_path / key.name
    batch = collate(examples, np.array([39, 0, 17]))
    found, all_of_them = (SignalCache(tmp_path / key.name, k).fetch(batch) for k in (fewer, key))
    torch.testing.assert_close(found.logits, all_of_them.logits, rtol=0, atol=0)
    assert {pooling for pooling, _ in found.states} == {"mean"}
    others = (
        key,
        replace(fewer, teacher="another"),
        replace(fewer, dtype="float16"),
        replace(fewer, poolings=("max",)),
    )
    assert [covering_cache(tmp_path, other) for other in others] == [None] * 4


def test_size_on_disk_equals_the_keys(tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit) -> None:
    key = filled(tmp_path / "c", teacher, examples, "float16")
    assert key.bytes == ROWS * (3 + 2 * 4 * 32) * 2
    on_disk = sum(f.stat().st_size for f in (tmp_path / "c").glob("*.npy"))
    assert key.bytes <= on_disk <= key.bytes + 3 * 256  # a header for each file


def test_resumes_after_an_interruption(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filled(tmp_path / "whole", teacher, examples)
    key = key_of(teacher, examples)
    prepare_cache(tmp_path / "cut", key)
    with cut_off_at(monkeypatch, 1):
        fill_cache(tmp_path / "cut", key, teacher, examples)
    with pytest.raises(CacheError, match="shard 1 of the signal cache is missing"):
        SignalCache(tmp_path / "cut", key)
    first = (tmp_path / "cut" / "shard-00000.json").stat().st_mtime_ns
    fill_cache(tmp_path / "cut", key, teacher, examples)
    assert (tmp_path / "cut" / "shard-00000.json").stat().st_mtime_ns == first  # not captured again
    assert_equal_arrays(tmp_path / "whole", tmp_path / "cut")
    assert whole == key


def test_several_processes_share_the_work(tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit) -> None:
    filled(tmp_path / "one", teacher, examples)
    key = key_of(teacher, examples)
    prepare_cache(tmp_path / "two", key)
    fill_cache(tmp_path / "two", key, teacher, examples, rank=1, ranks=2)
    with pytest.raises(CacheError, match="missing"):
        SignalCache(tmp_path / "two", key)
    fill_cache(tmp_path / "two", key, teacher, examples, rank=0, ranks=2)
    SignalCache(tmp_path / "two", key)
    assert_equal_arrays(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_corrupt_shard_is_an_error(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit, damage: str
) -> None:
    key = filled(tmp_path / "c", teacher, examples)
    file = tmp_path / "c" / "hidden-mean.npy"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    file.write_bytes(content if damage == "flip" else content[:-100])
    if damage == "gone":
        file.unlink()
    with pytest.raises(CacheError, match=r"hidden-mean.*remove .* and repeat the command"):
        SignalCache(tmp_path / "c", key)


@pytest.mark.parametrize(
    "other", [{"teacher": "another"}, {"tokens": "others"}, {"dtype": "float16"}, {"precision": "bf16"}]
)
def test_another_captures_directory_is_refused(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit, other: dict
) -> None:
    key = filled(tmp_path / "c", teacher, examples)
    changed = replace(key, **other)
    assert changed.name != key.name
    with pytest.raises(CacheError, match=f"another capture.*{next(iter(other))}"):
        prepare_cache(tmp_path / "c", changed)


def test_disk_budget_is_checked_first(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(CacheError, match=r"GiB free; .*--cache off"):
        prepare_cache(tmp_path / "c", key_of(teacher, examples))
    assert not (tmp_path / "c").exists()


def test_numbers_too_large_for_fp16_are_refused(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit
) -> None:
    with torch.no_grad():
        teacher.classifier.bias[0] = 1e6
    key = key_of(teacher, examples, "float16")
    prepare_cache(tmp_path / "c", key)
    with pytest.raises(CacheError, match=r"do not fit float16.*--cache-dtype float32"):
        fill_cache(tmp_path / "c", key, teacher, examples)


def test_full_disk_is_a_clear_error(
    tmp_path: Path, teacher: PreTrainedModel, examples: TokenizedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(teacher, examples)
    prepare_cache(tmp_path / "c", key)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_store.os, "fsync", full)
    with pytest.raises(CacheError, match="No space left on device"):
        fill_cache(tmp_path / "c", key, teacher, examples)
    assert not list((tmp_path / "c").glob("shard-*.json"))
