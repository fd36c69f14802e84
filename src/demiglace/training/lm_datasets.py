"""A corpus made ready to train a language model on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import CorpusConfig
from demiglace.config.training import TrainConfig, check_patience
from demiglace.console import say
from demiglace.data.text.blocks import USUAL_BLOCK, Blocks, Masking, all_blocks
from demiglace.data.text.readers import counted
from demiglace.data.text.sources import corpus_files
from demiglace.data.text.token_shards import Corpus, load_corpus
from demiglace.errors import ConfigError, DataError, ModelError, unknown
from demiglace.evaluation.perplexity import block_loss
from demiglace.methods.base import Problem
from demiglace.models.language_model import is_masked
from demiglace.models.shape import ModelShape
from demiglace.runs.files import fingerprint
from demiglace.training.accelerator import check_trackers

METRICS = {"loss": False, "perplexity": False}  # and whether higher is better


@dataclass(frozen=True)
class LanguageModelingData:
    """A corpus as blocks, for one tokenizer, and the one to validate on, if any; a `training.datasets.Material`."""

    corpus: Corpus
    held: Corpus | None
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
        facts: dict[str, Any] = {
            "task": "language modelling",
            "problem": self.problem,
            "labels": [],
            "rows": {name: len(blocks) for name, blocks in self.examples.items()},
            "tokens": {name: len(blocks) * blocks.size for name, blocks in self.examples.items()},
            "corpus": _facts(self.corpus),
            "drops": dict(self.corpus.left_out),
        }
        if self.held is not None:
            facts["validation corpus"] = _facts(self.held) | {"drops": dict(self.held.left_out)}
        return facts

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Loss in nats a token and perplexity, on the blocks of a split."""
        return block_loss(model, self.examples[split], precision)


def _facts(corpus: Corpus) -> dict[str, int]:
    return {
        "tokens": len(corpus),
        "documents": corpus.documents,
        "bytes": corpus.bytes,
        "words": corpus.words,
    }


def corpus_inputs(config: CorpusConfig) -> dict[str, str]:
    """Fingerprints of the files; `ConfigError` where none are named, `DataError` where there are none."""
    if not config.corpus:
        raise ConfigError("--corpus must be given: files, folders or globs of documents.")
    inputs = {"corpus": fingerprint(corpus_files(config.corpus))}
    if config.validation_corpus:
        inputs["validation corpus"] = fingerprint(corpus_files(config.validation_corpus))
    return inputs


def masking_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> Masking | None:
    """How the text of a masked model of this config is masked; none for a causal one.

    Raises `ModelError` for a masked model whose tokenizer has no mask token.
    """
    if not is_masked(config):
        return None
    if tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token, which a masked language model needs; train one with `demiglace tokenizer "
            "train --mask-token`, add one to a copy of it (docs/language-models.md), or take a causal model."
        )
    return Masking(share, tokenizer.mask_token_id, (0, len(tokenizer)), seed)


def check_training(config: TrainConfig) -> None:
    """Raise `ConfigError` for a metric that is none of a language model, or a tracker that is not there."""
    if config.metric is not None and config.metric not in METRICS:
        raise ConfigError(unknown("metric of language modelling:", config.metric, METRICS))
    check_patience(config)
    check_trackers(config)


def block_size(asked: int | None, shapes: Sequence[ModelShape], usual: int = USUAL_BLOCK) -> int:
    """Tokens of a block: as asked, or as usual. Raises `ConfigError` where a model takes fewer."""
    limit = min((s.max_positions for s in shapes if s.max_positions is not None), default=None)
    if asked is None:
        return min(usual, limit or usual)
    if limit is not None and asked > limit:
        raise ConfigError(
            f"--block-size {asked} is longer than the {limit} tokens that the model takes; give --block-size {limit}."
        )
    return asked


def make_blocks(
    config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase, masking: Masking | None, run: Path
) -> LanguageModelingData:
    """Tokenize what is not tokenized yet, cut it into blocks of `size`, and set blocks aside for validation."""
    home = run / "tokens" if config.token_files == "auto" else Path(config.token_files)
    corpus = load_corpus(home, corpus_files(config.corpus), tokenizer, config.reading)
    blocks, held = all_blocks(corpus, size, masking), None
    if config.validation_corpus:
        held = load_corpus(home, corpus_files(config.validation_corpus), tokenizer, config.reading)
        validation = all_blocks(held, size, masking)
        validation = replace(validation, numbers=validation.numbers[: config.validation_blocks])
    else:
        train = len(blocks) - blocks_held_back(len(blocks), size, config)
        validation = replace(blocks, numbers=blocks.numbers[train:])
        blocks = replace(blocks, numbers=blocks.numbers[:train])
    count = blocks_to_train_on(len(blocks), size, config)
    if count < len(blocks):
        drawn = np.random.default_rng(0).permutation(len(blocks))[:count]
        blocks = replace(blocks, numbers=blocks.numbers[np.sort(drawn)])
    material = LanguageModelingData(corpus, held, {"train": blocks, "validation": validation})
    _say(material)
    return material


def blocks_held_back(blocks: int, size: int, config: CorpusConfig) -> int:
    """How many of a corpus' blocks are not trained on but validated on. Raises `DataError` where none would be left."""
    held = min(config.validation_blocks, max(1, blocks // 100))
    if blocks <= held:
        raise DataError(
            f"the corpus fills {blocks} block of {size} tokens, and one is needed to validate on; give more text, a "
            "--validation-corpus or a smaller --block-size."
        )
    return held


def blocks_to_train_on(blocks: int, size: int, config: CorpusConfig) -> int:
    """How many of so many blocks --max-tokens lets in."""
    return blocks if config.max_tokens is None else max(1, min(blocks, config.max_tokens // size))


def _say(material: LanguageModelingData) -> None:
    corpus, train = material.corpus, material.examples["train"]
    say(
        f"corpus: {corpus.documents:,} documents, {corpus.bytes / 1e6:,.1f} MB, {len(corpus):,} tokens; "
        f"{len(train):,} blocks of {train.size} to train on, {len(material.examples['validation']):,} to validate on"
    )
    if corpus.left_out:
        say(f"left out: {counted(corpus.left_out)}")
    if material.held is not None and material.held.left_out:
        say(f"left out of the validation corpus: {counted(material.held.left_out)}")
