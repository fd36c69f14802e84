"""Sample a little text to measure a model's layers on, from files or from training examples."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from demiglace.config.data import ReadConfig
from demiglace.data.text.blocks import Blocks
from demiglace.data.text.readers import SkippedDocument, read_documents
from demiglace.data.text.sources import corpus_files
from demiglace.data.tokenize import TokenizedSplit, select
from demiglace.errors import DataError
from demiglace.tasks.classification import UNLABELLED

_PIECE = 1 << 16  # characters tokenized at once


def calibration_rows(
    sources: Sequence[str],
    reading: ReadConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    row_tokens: int,
    seed: int = 0,
) -> TokenizedSplit:
    """Take rows from the beginning of each file in turn, until `tokens` tokens are reached or the files end.

    Long documents are split into rows, each with the tokenizer's special tokens.

    Args:
        sources: files, folders or globs.
        reading: options for reading documents.
        tokenizer: of the model.
        tokens: number of tokens to reach.
        row_tokens: tokens of a row, at most.
        seed: other than 0, one of every two rows is taken at random, so that seeds give different text.

    Raises:
        DataError: the files have no text or cannot be read.
    """
    skipped: Counter[str] = Counter()
    files = [_rows(file, reading, tokenizer, row_tokens, skipped) for file in corpus_files(sources)]
    files = [_sample_half(rows, (seed, number)) for number, rows in enumerate(files)] if seed else files
    rows, total = [], 0
    for row in _in_turn(files):
        rows.append(row)
        total += len(row)
        if total >= tokens:
            break
    if not rows:
        why = ", ".join(f"{reason}: {number}" for reason, number in skipped.items()) or "the files are empty"
        raise DataError(f"--calibration {' '.join(sources)} has no text ({why}); give files of text.")
    return _examples(rows, tokenizer)


def drawn_rows(examples: TokenizedSplit | Blocks, tokens: int, row_tokens: int) -> TokenizedSplit:
    """Sample training examples with seed 0: at most `tokens` tokens, but at least one example.

    Of a block, the first `row_tokens` tokens are taken, without masks.
    """
    lengths = np.minimum(examples.lengths, row_tokens) if isinstance(examples, Blocks) else examples.lengths
    order = np.random.default_rng(0).permutation(len(examples))
    rows = order[: max(1, int(np.searchsorted(np.cumsum(lengths[order]), tokens, side="right")))]
    if not isinstance(examples, Blocks):
        return select(examples, rows)
    size = int(lengths[0])
    starts = [int(number) * examples.size for number in examples.numbers[rows]]
    ids = np.stack([examples.corpus.read(start, start + size) for start in starts]).astype(np.int32)
    if examples.begin is not None:
        ids[:, 0] = examples.begin
    return TokenizedSplit(
        ids=ids.ravel(),
        offsets=np.arange(len(rows) + 1, dtype=np.int64) * size,
        type_ids=None,
        labels=np.full(len(rows), UNLABELLED),
        pad_id=0,  # rows of one length need no padding
        pad_left=False,
    )


def _rows(
    file: str, reading: ReadConfig, tokenizer: PreTrainedTokenizerBase, size: int, skipped: Counter[str]
) -> Iterator[np.ndarray]:
    for document in read_documents(file, reading):
        if isinstance(document, SkippedDocument):
            skipped[document.reason] += 1
            continue
        for start in range(0, len(document.text), _PIECE):
            piece = document.text[start : start + _PIECE]
            encoded = tokenizer([piece], truncation=True, max_length=size, return_overflowing_tokens=True)
            yield from (np.asarray(ids, np.int32) for ids in encoded["input_ids"] if ids)


def _sample_half(rows: Iterator[np.ndarray], seed: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield a random one of every two consecutive rows."""
    generator = np.random.default_rng(seed)
    for row in rows:
        other = next(rows, row)
        yield row if generator.random() < 0.5 else other


def _in_turn(files: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield the first row of each file, then the second of each, and so on. Files are opened when first needed."""
    remaining = list(files)
    while remaining:
        for file in list(remaining):
            row = next(file, None)
            if row is None:
                remaining.remove(file)
            else:
                yield row


def _examples(rows: Sequence[np.ndarray], tokenizer: PreTrainedTokenizerBase) -> TokenizedSplit:
    ids = np.concatenate(rows)
    return TokenizedSplit(
        ids=ids,
        offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        type_ids=np.zeros(len(ids), np.int8) if "token_type_ids" in tokenizer.model_input_names else None,
        labels=np.full(len(rows), UNLABELLED),
        pad_id=tokenizer.pad_token_id,
        pad_left=tokenizer.padding_side == "left",
    )
