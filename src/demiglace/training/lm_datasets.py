"""Training data of a language model: blocks of a tokenized corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import CorpusConfig
from demiglace.config.training import TrainConfig, check_options
from demiglace.console import say
from demiglace.data.text.blocks import USUAL_BLOCK, Blocks, Masking, all_blocks
from demiglace.data.text.readers import drops, report_left_out
from demiglace.data.text.sources import corpus_files
from demiglace.data.text.text_bounds import text_bounds
from demiglace.data.text.token_shards import Corpus, load_corpus
from demiglace.errors import ConfigError, DataError, ModelError, unknown
from demiglace.evaluation.perplexity import block_loss
from demiglace.models.language_model import is_masked
from demiglace.models.shape import ModelShape
from demiglace.runs.files import fingerprint
from demiglace.tasks.base import Task
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.training.accelerator import check_machine


@dataclass(frozen=True)
class LanguageModelingData:
    """Blocks of a corpus, tokenized for one tokenizer; a `training.datasets.TrainingData`."""

    corpus: Corpus
    held: Corpus | None  # the validation corpus, if one is given
    examples: Mapping[str, Blocks]

    @property
    def task(self) -> Task:
        """Return language modelling."""
        return LANGUAGE_MODELLING

    @property
    def lines(self) -> Sequence[tuple[str, int]]:
        """Return the file of each training block and the number of its first token there."""
        return self.examples["train"].lines

    @property
    def selection_metrics(self) -> Mapping[str, bool]:
        """Return loss and perplexity, of which lower is better."""
        return {name: metric.higher_is_better for name, metric in self.task.metrics.items()}

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """Return the kind of problem, blocks, tokens, documents, and the number of documents left out by reason."""
        fields: dict[str, Any] = {
            "task": "language modelling",
            "problem": self.task.name,
            "labels": [],
            "rows": {name: len(blocks) for name, blocks in self.examples.items()},
            "tokens": {name: len(blocks) * blocks.size for name, blocks in self.examples.items()},
            "corpus": _corpus_sizes(self.corpus),
            "drops": drops(self.corpus.left_out),
            "add_bos": self.examples["train"].begin is not None,
        }
        if self.held is not None:
            fields["validation corpus"] = _corpus_sizes(self.held) | {"drops": drops(self.held.left_out)}
        return fields

    def fit_decision_rule(self, model: PreTrainedModel, precision: str) -> dict[str, Any]:
        """Return nothing: a language model decides nothing."""
        return {}

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Return loss (nats per token) and perplexity on the blocks of a split."""
        return block_loss(model, self.examples[split], precision)


def _corpus_sizes(corpus: Corpus) -> dict[str, int]:
    return {
        "tokens": len(corpus),
        "documents": corpus.documents,
        "bytes": corpus.bytes,
        "words": corpus.words,
    }


def corpus_inputs(config: CorpusConfig) -> dict[str, str]:
    """Return the fingerprints of the corpora. Raises `ConfigError` if none is named, `DataError` if no file exists."""
    if not config.corpus:
        raise ConfigError("--corpus must be given: files, folders or globs of documents.")
    inputs = {"corpus": fingerprint(corpus_files(config.corpus))}
    if config.validation_corpus:
        inputs["validation corpus"] = fingerprint(corpus_files(config.validation_corpus))
    return inputs


def masking_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> Masking | None:
    """Return how tokens are masked for a masked language model of this config; None for a causal one.

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
    """Raise `ConfigError` for a metric that language models do not have, or a tracker that is not installed."""
    if config.metric is not None and config.metric not in LANGUAGE_MODELLING.metrics:
        raise ConfigError(unknown("metric of language modelling:", config.metric, LANGUAGE_MODELLING.metrics))
    check_options(config)
    check_machine(config)


def block_size(given: int | None, shapes: Sequence[ModelShape], usual: int = USUAL_BLOCK) -> int:
    """Return the tokens per block: as given, else `usual` up to the models' limit.

    Raises `ConfigError` for more than the limit.
    """
    limit = min((s.max_positions for s in shapes if s.max_positions is not None), default=None)
    if given is None:
        return min(usual, limit or usual)
    if limit is not None and given > limit:
        raise ConfigError(
            f"--block-size {given} is longer than the {limit} tokens that the model takes; give --block-size {limit}."
        )
    return given


def make_blocks(
    config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase, masking: Masking | None, run: Path
) -> LanguageModelingData:
    """Tokenize the corpus if needed, split it into blocks of `size` tokens, and hold some out for validation."""
    directory = run / "tokens" if config.token_files == "auto" else Path(config.token_files)
    corpus = load_corpus(directory, corpus_files(config.corpus), tokenizer, config.reading)
    blocks, held = all_blocks(corpus, size, masking), None
    if config.validation_corpus:
        held = load_corpus(directory, corpus_files(config.validation_corpus), tokenizer, config.reading)
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
    bounds = None if masking else text_bounds(tokenizer, config.add_bos)
    if bounds is not None and bounds.begin is not None:
        blocks, validation = replace(blocks, begin=bounds.begin), replace(validation, begin=bounds.begin)
        say(f"each block begins with {bounds.name}, as the model's texts do (--add-bos)")
    data = LanguageModelingData(corpus, held, {"train": blocks, "validation": validation})
    _print_sizes(data)
    return data


def blocks_held_back(blocks: int, size: int, config: CorpusConfig) -> int:
    """Return how many blocks are held out for validation. Raises `DataError` if none would be left to train on."""
    held = min(config.validation_blocks, max(1, blocks // 100))
    if blocks <= held:
        raise DataError(
            f"the corpus fills {blocks} block of {size} tokens, and one is needed to validate on; give more text, a "
            "--validation-corpus or a smaller --block-size."
        )
    return held


def blocks_to_train_on(blocks: int, size: int, config: CorpusConfig) -> int:
    """Return the number of training blocks that --max-tokens allows, at least 1."""
    return blocks if config.max_tokens is None else max(1, min(blocks, config.max_tokens // size))


def _print_sizes(data: LanguageModelingData) -> None:
    corpus, train = data.corpus, data.examples["train"]
    say(
        f"corpus: {corpus.documents:,} documents, {corpus.bytes / 1e6:,.1f} MB, {len(corpus):,} tokens; "
        f"{len(train):,} blocks of {train.size} to train on, {len(data.examples['validation']):,} to validate on"
    )
    report_left_out(corpus.left_out)
    if data.held is not None:
        report_left_out(data.held.left_out, "the validation corpus")
