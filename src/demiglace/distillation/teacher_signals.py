"""The source of the teacher's signals: computed online, or cached; runs that share a cache wait for each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path

from accelerate import PartialState
from filelock import BaseFileLock, FileLock
from transformers import PreTrainedModel

from demiglace.config.command_options import DistillConfig
from demiglace.console import say
from demiglace.data.text.blocks import Blocks
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import CacheError, ConfigError
from demiglace.labels import Match
from demiglace.methods.base import Method
from demiglace.methods.terms.token_level import sparse_temperature
from demiglace.models.shape import ModelShape
from demiglace.runs.directory import Run
from demiglace.runs.processes import processes
from demiglace.signals.hidden_state_cache import CacheKey, SignalCache, covering_cache, fill_cache
from demiglace.signals.online import OnlineTeacher, RetokenizedSource, SignalSource
from demiglace.signals.request import SignalRequest
from demiglace.signals.shard_store import CacheSpec, capture_seconds, prepare_cache
from demiglace.signals.sparse_logit_cache import SparseLogitCacheKey, SparseLogitConfig, TokenCache, fill_token_cache
from demiglace.training.run import TrainingRun


def cache_root(config: DistillConfig, run: Run) -> Path:
    """Return the directory that holds a run's caches."""
    return run.path / "signals" if config.cache == "auto" else Path(config.cache)


@contextmanager
def exclusive_cache(directory: Path, key: CacheSpec, state: PartialState) -> Iterator[None]:
    """Prepare a cache and lock it, so that other runs that share it wait until it is filled."""
    lock = FileLock(directory.with_name(directory.name + ".lock"))
    try:
        if state.is_main_process:
            _acquire(lock)
            prepare_cache(directory, key)
        state.wait_for_everyone()
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock) -> None:
    try:
        lock.acquire()
    except OSError as error:
        raise CacheError(f"{lock.lock_file} cannot be made ({error.strerror}); give another --cache.") from error


_SEED = 0  # not the run's, so that runs of all seeds share one cache


def sparse_target_config(
    config: DistillConfig, method: Method, student: ModelShape, teacher: ModelShape, *, masked: bool
) -> SparseLogitConfig | None:
    """Return how the teacher's token distributions are cached; None if its logits are computed for every batch.

    masked: whether both models are masked language models. Raises `ConfigError` for a method or model that cannot be
    trained on such a cache, and for options that contradict each other.
    """
    kind, count = config.cache_tokens, config.cached_per_token
    if kind == "none":
        return None
    if config.cache == "off":
        raise ConfigError(f"--cache off was given with --cache-tokens {kind}, which needs a cache; leave one out.")
    if masked:
        raise ConfigError(
            f"--cache-tokens {kind} is for causal models: the masked positions of a masked one change every epoch. "
            "Leave it out; the teacher's logits are then computed for every batch."
        )
    if kind == "top-k" and count > teacher.vocab_size:
        raise ConfigError(f"--cached-per-token {count}: the teacher has only {teacher.vocab_size:,} tokens.")
    temperature = sparse_temperature(config.method, method, student, teacher)
    if kind == "top-k":
        say(
            "warning: --cache-tokens top-k is biased: the student learns that only the "
            f"{count} most likely tokens occur; sampled is not."
        )
    return SparseLogitConfig(kind, count, temperature, _SEED)


def token_cache(
    config: DistillConfig,
    run: Run,
    teacher: PreTrainedModel,
    blocks: Blocks,
    sparse: SparseLogitConfig,
    request: SignalRequest,
    precision: str,
) -> tuple[TokenCache, float]:
    """Fill the cache; return it and the seconds that its filling took, in this or another run. Raises `CacheError`."""
    state = processes()
    shape, weights = ModelShape.of(teacher), run.inputs["teacher"]
    key = SparseLogitCacheKey.of(weights, shape, blocks, sparse, request, config.cache_dtype, precision)
    directory = cache_root(config, run) / key.name
    with exclusive_cache(directory, key, state):
        fill_token_cache(directory, key, teacher, blocks, state.process_index, state.num_processes)
        state.wait_for_everyone()
    return TokenCache(directory, key), capture_seconds(directory, key)


def attach_signal_source(
    training_run: TrainingRun,
    config: DistillConfig,
    run: Run,
    teacher: PreTrainedModel,
    requests: Sequence[SignalRequest],
    match: Match,
    rows: TokenizedSplit,
) -> TrainingRun:
    """Return the training run with its source of signals: none, the teacher online, or a cache that is filled here.

    rows: the training rows in the teacher's tokens, which may be others than the student's.
    """
    request = reduce(or_, requests)
    if request.is_empty:
        return training_run
    state = processes()
    if config.cache == "off" or not request.is_cacheable:
        source: SignalSource = OnlineTeacher(teacher, requests, training_run.precision)
        same_rows = rows is training_run.data.examples["train"]
        return replace(training_run, source=source if same_rows else RetokenizedSource(source, rows))
    identity = run.inputs["teacher"] + ("" if match.is_identity else f" in the order {list(match.ids)}")
    key = CacheKey.of(identity, training_run.teacher_shape, rows, request, config.cache_dtype, training_run.precision)
    # processes that share a run might not see the same caches, and would wait for each other
    directory = covering_cache(cache_root(config, run), key) if state.num_processes == 1 else None
    if directory is None:
        directory = cache_root(config, run) / key.name
        with exclusive_cache(directory, key, state):
            fill_cache(directory, key, teacher, rows, state.process_index, state.num_processes)
            state.wait_for_everyone()
    return replace(training_run, source=SignalCache(directory, key), capture_seconds=capture_seconds(directory, key))
