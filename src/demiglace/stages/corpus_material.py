"""A corpus made ready to train a language model on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.console import say
from demiglace.data.blocks import Blocks, Masking, all_blocks
from demiglace.data.corpus import Corpus, load_corpus
from demiglace.data.corpus_config import CorpusConfig
from demiglace.data.document_files import corpus_files
from demiglace.errors import ConfigError, DataError, ModelError, unknown
from demiglace.evaluation.perplexity import block_loss
from demiglace.manifest import fingerprint
from demiglace.methods.base import Problem
from demiglace.models.language import is_masked
from demiglace.models.shape import ModelShape
from demiglace.training.config import TrainConfig
from demiglace.training.tracking import check_trackers

USUAL_BLOCK = 512
METRICS = {"loss": False, "perplexity": False}  # and whether higher is better


@dataclass(frozen=True)
class CorpusMaterial:
    """A corpus as blocks, for one tokenizer; a `stages.material.Material`."""

    corpus: Corpus
    examples: Mapping[str, Blocks]

    @property
    def problem(self) -> Problem:
        """Language modelling."""
        return "language"

    @property
    def lines(self) -> Sequence[tuple[str, int]]:
        """The file of each training block, and with which of its tokens it begins."""
        return self.examples["train"].lines

    @property
    def choices(self) -> Mapping[str, bool]:
        """The loss, and what follows from it."""
        return METRICS

    @property
    def facts(self) -> dict[str, Any]:
        """Blocks, tokens, documents, and why documents are missing."""
        return {
            "task": "language modelling",
            "problem": self.problem,
            "labels": [],
            "rows": {name: len(blocks) for name, blocks in self.examples.items()},
            "tokens": {name: len(blocks) * blocks.size for name, blocks in self.examples.items()},
            "corpus": {
                "tokens": len(self.corpus),
                "documents": self.corpus.documents,
                "bytes": self.corpus.bytes,
                "words": self.corpus.words,
            },
            "drops": dict(self.corpus.left_out),
        }

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Loss in nats a token and perplexity, on the blocks of a split."""
        return block_loss(model, self.examples[split], precision)


def corpus_inputs(config: CorpusConfig) -> dict[str, str]:
    """Fingerprints of the files; `ConfigError` where none are named, `DataError` where there are none."""
    if not config.corpus:
        raise ConfigError("--corpus must be given: files, folders or globs of documents.")
    inputs = {"corpus": fingerprint(corpus_files(config.corpus))}
    if config.validation_corpus:
        inputs["validation corpus"] = fingerprint(corpus_files(config.validation_corpus))
    return inputs


def masking_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> Masking | None:
    """How a masked model's text is masked; none for a causal model.

    Raises `ModelError` for a masked model whose tokenizer has no mask token.
    """
    if not is_masked(model.config):
        return None
    if tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token, which a masked language model needs; train one with `demiglace tokenizer "
            "train --mask-token`, or take a causal model."
        )
    return Masking(share, tokenizer.mask_token_id, (0, len(tokenizer)), seed)


def check_training(config: TrainConfig) -> None:
    """Raise `ConfigError` for a metric that is none of a language model, or a tracker that is not there."""
    if config.metric is not None and config.metric not in METRICS:
        raise ConfigError(unknown("metric of language modelling:", config.metric, METRICS))
    check_trackers(config)


def block_size(asked: int | None, models: Sequence[PreTrainedModel], usual: int = USUAL_BLOCK) -> int:
    """Tokens of a block: as asked, or as usual. Raises `ConfigError` where a model takes fewer."""
    limits = [ModelShape.of(model).max_positions for model in models]
    limit = min((n for n in limits if n is not None), default=None)
    if asked is None:
        return min(usual, limit or usual)
    if limit is not None and asked > limit:
        raise ConfigError(
            f"--block-size {asked} is longer than the {limit} tokens that the model takes; give --block-size {limit}."
        )
    return asked


def make_blocks(
    config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase, masking: Masking | None, run: Path
) -> CorpusMaterial:
    """Tokenise what is not tokenised yet, cut it into blocks of `size`, and set blocks aside for validation."""
    home = run / "tokens" if config.token_files == "auto" else Path(config.token_files)
    corpus = load_corpus(home, corpus_files(config.corpus), tokenizer, config.reading)
    blocks = all_blocks(corpus, size, masking)
    if config.validation_corpus:
        held = load_corpus(home, corpus_files(config.validation_corpus), tokenizer, config.reading)
        validation = all_blocks(held, size, masking)
        validation = replace(validation, numbers=validation.numbers[: config.validation_blocks])
    else:
        blocks, validation = _split(blocks, min(config.validation_blocks, max(1, len(blocks) // 100)))
    if config.max_tokens is not None:
        blocks = _drawn(blocks, config.max_tokens)
    material = CorpusMaterial(corpus, {"train": blocks, "validation": validation})
    _say(material)
    return material


def _split(blocks: Blocks, held: int) -> tuple[Blocks, Blocks]:
    """All but the last blocks, and those."""
    if len(blocks) <= held:
        raise DataError(
            f"the corpus fills {len(blocks)} block of {blocks.size} tokens, and one is needed to validate on; give "
            "more text, a --validation-corpus or a smaller --block-size."
        )
    return replace(blocks, numbers=blocks.numbers[:-held]), replace(blocks, numbers=blocks.numbers[-held:])


def _drawn(blocks: Blocks, tokens: int) -> Blocks:
    count = max(1, min(len(blocks), tokens // blocks.size))
    drawn = np.random.default_rng(0).permutation(len(blocks))[:count]
    return replace(blocks, numbers=blocks.numbers[np.sort(drawn)])


def _say(material: CorpusMaterial) -> None:
    corpus, train = material.corpus, material.examples["train"]
    say(
        f"corpus: {corpus.documents:,} documents, {corpus.bytes / 1e6:,.1f} MB, {len(corpus):,} tokens; "
        f"{len(train):,} blocks of {train.size} to train on, {len(material.examples['validation']):,} to validate on"
    )
    if corpus.left_out:
        reasons = ", ".join(f"{why} {n:,}" for why, n in sorted(corpus.left_out.items()))
        say(f"left out: {reasons}")
