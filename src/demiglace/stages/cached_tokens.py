"""A language model's teacher asked once: the cache of `distill --corpus --cache-tokens`."""

from transformers import PreTrainedModel

from demiglace.config.commands import DistillConfig
from demiglace.console import say
from demiglace.data.text.blocks import Blocks
from demiglace.distillation.teacher_signals import alone, cache_root
from demiglace.errors import ConfigError
from demiglace.methods.base import Method
from demiglace.methods.terms.token_level import sparse_temperature
from demiglace.models.shape import ModelShape
from demiglace.runs.directory import Run
from demiglace.signals.request import SignalRequest
from demiglace.signals.shard_store import capture_seconds
from demiglace.signals.sparse_logit_cache import Telling, TokenCache, TokenKey
from demiglace.signals.token_fill import fill_token_cache
from demiglace.training.run import processes

_SEED = 0  # and not the run's, so that runs of all seeds share one cache


def telling_of(
    config: DistillConfig, method: Method, student: ModelShape, teacher: ModelShape, *, masked: bool
) -> Telling | None:
    """Which tokens are to be kept; none where the teacher is asked for every batch. masked: the kind of both models.

    Raises `ConfigError` for a method or model that cannot learn from them, and options that contradict each other.
    """
    kind, count = config.cache_tokens, config.cached_per_token
    if kind == "none":
        return None
    if config.cache == "off":
        raise ConfigError(f"--cache off keeps nothing, and --cache-tokens {kind} asks for a cache; leave one out.")
    if masked:
        raise ConfigError(
            f"--cache-tokens {kind} is for causal models: what a masked one predicts is drawn anew every epoch. Leave "
            "it out; the teacher is then asked for every batch."
        )
    if kind == "top-k" and count > teacher.vocab_size:
        raise ConfigError(f"--cached-per-token {count}: the teacher has only {teacher.vocab_size:,} tokens.")
    temperature = sparse_temperature(config.method, method, student, teacher)
    if kind == "top-k":
        say(
            "warning: --cache-tokens top-k is biased: the student learns that there are no tokens but the "
            f"{count} likeliest ones; sampled is not."
        )
    return Telling(kind, count, temperature, _SEED)


def token_cache(
    config: DistillConfig,
    run: Run,
    teacher: PreTrainedModel,
    blocks: Blocks,
    telling: Telling,
    request: SignalRequest,
    precision: str,
) -> tuple[TokenCache, float]:
    """The filled cache, and the seconds that its filling took in whichever run; raises `CacheError`s."""
    state = processes()
    shape, weights = ModelShape.of(teacher), run.inputs["teacher"]
    key = TokenKey.of(weights, shape, blocks, telling, request, config.cache_dtype, precision)
    directory = cache_root(config, run) / key.name
    with alone(directory, key, state):
        fill_token_cache(directory, key, teacher, blocks, state.process_index, state.num_processes)
        state.wait_for_everyone()
    return TokenCache(directory, key), capture_seconds(directory, key)
