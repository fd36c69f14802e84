"""The sparse-logit cache: its samples and content, resuming an interrupted capture, and errors."""

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
from demiglace.data.text.blocks import Blocks, all_blocks
from demiglace.data.text.token_shards import Corpus
from demiglace.errors import CacheError, ModelError
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms import token_level
from demiglace.methods.terms.logits import LogitDistillation
from demiglace.methods.terms.token_level import token_terms
from demiglace.models.language_model import HeadInput
from demiglace.models.shape import ModelShape
from demiglace.signals import shard_store, sparse_logit_cache
from demiglace.signals.logit_sampling import sample_tokens, stratified_uniforms, top_k_tokens
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, SparseLogits, hidden_request
from demiglace.signals.shard_store import prepare_cache
from demiglace.signals.sparse_logit_cache import SparseLogitCacheKey, SparseLogitConfig, TokenCache, fill_token_cache
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from text_kit import tiny_lm

SIZE, ROWS, VOCABULARY, TEMPERATURE = 8, 10, 13, 2.0
REQUEST = SignalRequest(logits=True)
SAMPLED, TOP = SparseLogitConfig("sampled", 3, TEMPERATURE), SparseLogitConfig("top-k", 3, TEMPERATURE)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_logit_cache, "SHARD_TOKENS", 4 * SIZE)


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    return sharpened(tiny_lm("gpt2", VOCABULARY))


def sharpened(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with probable and improbable tokens."""
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(4)
    return model


def blocks_of(vocabulary: int = VOCABULARY, rows: int = ROWS) -> Blocks:
    ids = np.random.default_rng(0).integers(0, vocabulary, rows * SIZE + 1)
    return all_blocks(Corpus((ids,), ("text",), 1, 1, 1, {}, "a corpus"), SIZE)


def key_of(
    teacher: PreTrainedModel,
    blocks: Blocks,
    sparse_logits: SparseLogitConfig = SAMPLED,
    request: SignalRequest = REQUEST,
) -> SparseLogitCacheKey:
    return SparseLogitCacheKey.of("teacher", ModelShape.of(teacher), blocks, sparse_logits, request, "float32", "fp32")


def filled(
    directory: Path,
    teacher: PreTrainedModel,
    blocks: Blocks,
    sparse_logits: SparseLogitConfig = SAMPLED,
    request: SignalRequest = REQUEST,
) -> SparseLogitCacheKey:
    key = key_of(teacher, blocks, sparse_logits, request)
    prepare_cache(directory, key)
    fill_token_cache(directory, key, teacher, blocks)
    return key


def cached_logits(directory: Path, key: SparseLogitCacheKey, blocks: Blocks, rows: list[int]) -> SparseLogits:
    signals = TokenCache(directory, key).fetch(collate(blocks, np.array(rows)))
    assert isinstance(signals.head, SparseLogits)
    return signals.head


def head_of(model: PreTrainedModel, blocks: Blocks, rows: list[int]) -> HeadInput:
    """Return the input of the model's head for these rows, [N, d]."""
    head = OnlineTeacher(model, REQUEST, "fp32").fetch(collate(blocks, np.array(rows))).head
    assert isinstance(head, HeadInput)
    return head.at(None)


def probabilities(model: PreTrainedModel, blocks: Blocks, rows: list[int]) -> torch.Tensor:
    head = head_of(model, blocks, rows)
    return torch.softmax((head.hidden @ head.weight.T).double() / TEMPERATURE, -1).view(len(rows), SIZE, -1)


# what is drawn


def test_tokens_are_sampled_with_their_probabilities() -> None:
    logits, places, count = torch.tensor([3.0, -1.0, 0.5, -1e4, 2.0, -6.0]), 40_000, 3
    numbers = torch.from_numpy(stratified_uniforms(0, 0, places, count))
    ids, entropy = sample_tokens(logits.expand(places, -1), numbers, TEMPERATURE)
    p = torch.softmax(logits.double() / TEMPERATURE, -1)
    shares = torch.nn.functional.one_hot(ids, len(p)).double().mean(1)  # of each place [places, V]
    error = shares.std(0) / places**0.5
    assert ((shares.mean(0) - p).abs() <= 5 * error).all() and (error[[0, 1, 2, 4, 5]] > 0).all()
    assert not (ids == 3).any()  # it cannot occur
    assert (shares.var(0) < (p * (1 - p) / count + 1e-12)).all()  # less than of independent draws
    assert float(entropy[7]) == pytest.approx(float(torch.special.entr(p).sum()))


def test_extreme_uniforms_sample_possible_tokens() -> None:
    logits = torch.tensor([[-1e4, 0.0, 1.0]])
    ids, _ = sample_tokens(logits, torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64), 1.0)
    assert ids.tolist() == [[1, 2]]


def test_uniforms_depend_only_on_seed_block_and_position() -> None:
    numbers = stratified_uniforms(1, 5, 20, 4)
    assert (numbers[:7] == stratified_uniforms(1, 5, 7, 4)).all()
    assert (
        not (numbers == stratified_uniforms(2, 5, 20, 4)).any()
        and not (numbers == stratified_uniforms(1, 6, 20, 4)).any()
    )
    assert (np.floor(numbers * 4) == np.arange(4)).all()


def test_top_k_probabilities_are_renormalized() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0]])
    ids, p, entropy = top_k_tokens(logits, 2, TEMPERATURE)
    assert ids.tolist() == [[1, 3]]
    whole = torch.softmax(logits / TEMPERATURE, -1)[0, [1, 3]]
    torch.testing.assert_close(p[0], whole / whole.sum())
    torch.testing.assert_close(entropy, torch.special.entr(p).sum(-1))


def loss_and_gradients(
    student: HeadInput, teacher: HeadInput | SparseLogits
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return τ²·KL over all tokens, and its gradients for the student's hidden states and head."""
    hidden, weight = (t.detach().requires_grad_() for t in (student.hidden, student.weight))
    count = len(hidden)
    term = LogitDistillation(TEMPERATURE).build(None, None, LANGUAGE_MODELLING)
    labels, shares = torch.zeros(count, dtype=torch.int64), torch.full((count,), 1 / count)
    now = TrainingProgress(0, 0, 0)
    loss, _ = token_terms([term], [1.0], HeadInput(hidden, weight, None), teacher, labels, shares, now)
    return loss.detach(), torch.autograd.grad(loss, (hidden, weight))


def test_mean_over_caches_is_the_divergence_for_samples_but_not_top_k(tmp_path: Path, teacher: PreTrainedModel) -> None:
    blocks, rows, caches = blocks_of(rows=4), [0, 1, 2, 3], 60
    student, whole = (
        head_of(sharpened(tiny_lm("gpt2", VOCABULARY, seed=1)), blocks, rows),
        head_of(teacher, blocks, rows),
    )

    def flat(teaching: HeadInput | SparseLogits) -> torch.Tensor:
        loss, gradients = loss_and_gradients(student, teaching)
        return torch.cat([loss.reshape(1), *(g.flatten() for g in gradients)]).double()

    def cached(sparse_logits: SparseLogitConfig) -> torch.Tensor:
        directory = tmp_path / f"{sparse_logits.kind}-{sparse_logits.seed}"
        key = filled(directory, teacher, blocks, sparse_logits)
        return flat(cached_logits(directory, key, blocks, rows).at(None))

    expected = flat(whole)
    found = torch.stack([cached(replace(SAMPLED, seed=seed)) for seed in range(caches)])
    error = found.std(0) / caches**0.5
    far = (found.mean(0) - expected).abs() / (error + 1e-7)
    assert far.max() < 5 and far.square().mean() < 1.5  # as many standard errors as chance makes it
    biased = cached(TOP)
    assert (biased - expected).norm() > 5 * (found.mean(0) - expected).norm()


@pytest.mark.parametrize("sparse_logits", [SAMPLED, TOP], ids=["sampled", "top-k"])
def test_chunks_equal_one_pass(
    tmp_path: Path, teacher: PreTrainedModel, sparse_logits: SparseLogitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, rows = blocks_of(), list(range(ROWS))
    key = filled(tmp_path / "c", teacher, blocks, sparse_logits)
    student = head_of(tiny_lm("gpt2", VOCABULARY, seed=1), blocks, rows)
    targets = cached_logits(tmp_path / "c", key, blocks, rows).at(None)
    whole = loss_and_gradients(student, targets)
    monkeypatch.setattr(token_level, "chunk_size", lambda *_: 7)
    torch.testing.assert_close(loss_and_gradients(student, targets), whole)
    hidden, weight = (t.detach().requires_grad_() for t in (student.hidden, student.weight))
    q = torch.log_softmax(hidden @ weight.T / TEMPERATURE, -1)
    rows_of_tokens = torch.arange(len(q))[:, None]
    plain = -((q[rows_of_tokens, targets.ids] * targets.weights).sum(-1) + targets.entropy).mean() * TEMPERATURE**2
    torch.testing.assert_close(whole, (plain.detach(), torch.autograd.grad(plain, (hidden, weight))))


# what the disk holds


@pytest.mark.parametrize("sparse_logits", [SAMPLED, TOP], ids=["sampled", "top-k"])
def test_returns_the_captured_tokens_in_any_batch(
    tmp_path: Path, teacher: PreTrainedModel, sparse_logits: SparseLogitConfig
) -> None:
    blocks, rows = blocks_of(), [9, 0, 4, 3]
    request = REQUEST | hidden_request("mean", [1])
    key = filled(tmp_path / "c", teacher, blocks, sparse_logits, request)
    batch = collate(blocks, np.array(rows))
    signals, online = TokenCache(tmp_path / "c", key).fetch(batch), OnlineTeacher(teacher, request, "fp32").fetch(batch)
    torch.testing.assert_close(signals.hidden("mean", [1]), online.hidden("mean", [1]), rtol=1e-4, atol=1e-5)
    found, p = cached_logits(tmp_path / "c", key, blocks, rows), probabilities(teacher, blocks, rows)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(4, SIZE))
    if sparse_logits.kind == "top-k":
        assert (found.ids == p.topk(3).indices).all()
        p = p.topk(3).values / p.topk(3).values.sum(-1, keepdim=True)
        torch.testing.assert_close(found.weights.double(), p, rtol=2e-3, atol=1e-4)
    else:
        sums = torch.cat([torch.zeros(4, SIZE, 1), p.cumsum(-1)], -1)
        numbers = torch.from_numpy(np.stack([stratified_uniforms(0, row, SIZE, 3) for row in rows]))
        below, above = sums.gather(-1, found.ids), sums.gather(-1, found.ids + 1)
        assert ((below <= numbers + 1e-6) & (numbers <= above + 1e-6)).all()
    torch.testing.assert_close(found.entropy.double(), torch.special.entr(p).sum(-1), rtol=2e-3, atol=1e-3)


def test_bf16_cache_equals_the_online_teacher(tmp_path: Path, teacher: PreTrainedModel) -> None:
    blocks = blocks_of(rows=2)
    key = replace(key_of(teacher, blocks, TOP), precision="bf16")
    prepare_cache(tmp_path / "c", key)
    fill_token_cache(tmp_path / "c", key, teacher, blocks)
    online = OnlineTeacher(teacher, REQUEST, "bf16").fetch(collate(blocks, np.array([0, 1]))).head
    assert isinstance(online, HeadInput)
    with torch.autocast("cpu", torch.bfloat16):
        logits = (online.hidden @ online.weight.T).float()
    found = cached_logits(tmp_path / "c", key, blocks, [0, 1])
    torch.testing.assert_close(found.weights, torch.softmax(logits.topk(3).values / 2, -1), rtol=2e-3, atol=1e-4)


def test_size_on_disk_is_small_and_equals_the_keys(tmp_path: Path, teacher: PreTrainedModel) -> None:
    key = filled(tmp_path / "c", teacher, blocks_of())
    on_disk = sum(f.stat().st_size for f in (tmp_path / "c").glob("*.npy"))
    assert on_disk == ROWS * SIZE * (3 * 2 + 2) + 2 * 128  # a header for each file
    assert key.arrays.keys() == {"ids", "entropy"}


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    shape = replace(ModelShape.of(tiny_lm("gpt2", VOCABULARY)), vocab_size=65_536)
    given = blocks_of(), SAMPLED, REQUEST, "float32", "fp32"
    assert SparseLogitCacheKey.of("teacher", shape, *given).arrays["ids"][1] == "uint16"
    assert SparseLogitCacheKey.of("teacher", replace(shape, vocab_size=65_537), *given).arrays["ids"][1] == "uint32"
    large, blocks = tiny_lm("gpt2", 70_000), blocks_of(70_000)
    key = filled(tmp_path / "c", large, blocks, replace(SAMPLED, count=12))
    ids = cached_logits(tmp_path / "c", key, blocks, list(range(ROWS))).ids
    assert int(ids.max()) > 65_535 and int(ids.min()) >= 0
    numbers = torch.from_numpy(np.concatenate([stratified_uniforms(0, row, SIZE, 12) for row in range(ROWS)]))
    head = head_of(large, blocks, list(range(ROWS)))
    again, _ = sample_tokens(head.hidden @ head.weight.T, numbers, TEMPERATURE)
    assert (again == ids.flatten(0, 1)).float().mean() > 0.99  # but for rounding


def test_samples_do_not_depend_on_batches_chunks_processes_or_blocks(
    tmp_path: Path, teacher: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, rows = blocks_of(), list(range(ROWS))
    key = filled(tmp_path / "one", teacher, blocks)
    one = cached_logits(tmp_path / "one", key, blocks, rows)
    prepare_cache(tmp_path / "two", key)
    fill_token_cache(tmp_path / "two", key, teacher, blocks, rank=1, ranks=2)
    with pytest.raises(CacheError, match="shard 0 of the signal cache is missing"):
        TokenCache(tmp_path / "two", key)
    fill_token_cache(tmp_path / "two", key, teacher, blocks, rank=0, ranks=2)
    assert_equal_arrays(tmp_path / "one", tmp_path / "two")
    monkeypatch.setattr(sparse_logit_cache, "forward_tokens", lambda device: 1)
    monkeypatch.setitem(sparse_logit_cache._CHUNK_NUMBERS, "cpu", 1)
    few = replace(blocks, numbers=blocks.numbers[[1, 5, 8]])
    assert torch.equal(cached_logits(tmp_path / "one", key, blocks, [1, 5, 8]).ids, one.ids[[1, 5, 8]])
    for name, chosen, expected in (("alone", blocks, one.ids), ("few", few, one.ids[[1, 5, 8]])):
        other = filled(tmp_path / name, teacher, chosen)
        assert torch.equal(cached_logits(tmp_path / name, other, chosen, list(range(len(chosen)))).ids, expected)


# how it goes on, and what it refuses


def test_resumes_after_an_interruption(
    tmp_path: Path, teacher: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of()
    key = filled(tmp_path / "whole", teacher, blocks)
    prepare_cache(tmp_path / "cut", key)
    with cut_off_at(monkeypatch, 1):
        fill_token_cache(tmp_path / "cut", key, teacher, blocks)
    with pytest.raises(CacheError, match="shard 1 of the signal cache is missing"):
        TokenCache(tmp_path / "cut", key)
    first = (tmp_path / "cut" / "shard-00000.json").stat().st_mtime_ns
    fill_token_cache(tmp_path / "cut", key, teacher, blocks)
    assert (tmp_path / "cut" / "shard-00000.json").stat().st_mtime_ns == first  # not captured again
    assert len(list((tmp_path / "cut").glob("shard-*.json"))) == 3
    assert_equal_arrays(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other numbers"])
def test_a_damaged_cache_is_an_error(tmp_path: Path, teacher: PreTrainedModel, damage: str) -> None:
    key = filled(tmp_path / "c", teacher, blocks_of())
    file = tmp_path / "c" / "ids.npy"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    file.write_bytes(content[:-5] if damage == "cut" else content)
    if damage == "gone":
        file.unlink()
    if damage == "other numbers":  # the same bits
        np.save(file, np.load(file).view(np.int16))
    with pytest.raises(CacheError, match=r"ids.*remove .* and repeat the command"):
        TokenCache(tmp_path / "c", key)


def test_another_captures_directory_is_refused(tmp_path: Path, teacher: PreTrainedModel) -> None:
    blocks = blocks_of()
    key = filled(tmp_path / "c", teacher, blocks)
    others = [{"teacher": "another"}, {"precision": "bf16"}, {"poolings": ("mean",)}, {"blocks": "others"}]
    configs = [{"temperature": 1.0}, {"seed": 1}, {"count": 4}, {"kind": "top-k"}]
    others += [{"sparse_logits": replace(SAMPLED, **changed)} for changed in configs]
    for other in others:
        changed = replace(key, **other)
        assert changed.name != key.name
        with pytest.raises(CacheError, match=f"another capture.*{next(iter(other))}"):
            prepare_cache(tmp_path / "c", changed)
    for chosen in (
        replace(blocks, numbers=blocks.numbers[::-1]),
        replace(blocks, corpus=replace(blocks.corpus, fingerprint="another")),
        all_blocks(blocks.corpus, SIZE - 1),
    ):
        assert key_of(teacher, chosen).name != key.name


def test_disk_is_checked_first(tmp_path: Path, teacher: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 500, 500))
    with pytest.raises(CacheError, match=r"GiB free; .*--cache-tokens none to run the teacher"):
        prepare_cache(tmp_path / "c", key_of(teacher, blocks_of()))
    assert not (tmp_path / "c").exists()


def test_a_full_disk_is_a_clear_error(
    tmp_path: Path, teacher: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of()
    key = key_of(teacher, blocks)
    prepare_cache(tmp_path / "c", key)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_store.os, "fsync", full)
    with pytest.raises(CacheError, match="No space left on device"):
        fill_token_cache(tmp_path / "c", key, teacher, blocks)
    assert not list((tmp_path / "c").glob("shard-*.json"))


@pytest.mark.parametrize("sparse_logits", [SAMPLED, TOP], ids=["sampled", "top-k"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_teacher_is_refused(tmp_path: Path, sparse_logits: SparseLogitConfig, bad: float) -> None:
    broken = tiny_lm("gpt2", VOCABULARY)
    with torch.no_grad():
        broken.transformer.ln_f.bias[0] = bad
    with pytest.raises(ModelError, match="not finite numbers"):
        filled(tmp_path / "c", broken, blocks_of(), sparse_logits)
    assert not list((tmp_path / "c").glob("shard-*.json"))
