"""How many tokens rows have: the default of --max-length, and what is cut of the rows."""

from collections.abc import Mapping

import numpy as np
from transformers import PreTrainedTokenizerBase

from demiglace.console import notice
from demiglace.data.rows.sampling import draw, select_rows
from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import TokenizedSplit

_SHARE = 0.99  # of the rows that the default does not cut
_STEP = 32  # the default is a multiple of it, so that similar data give the same one
_SAMPLE = 20_000  # rows that are tokenized to find it
_MANY = 0.05  # share of cut rows above which a line is a warning


def full_lengths(split: Split, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the number of tokens of each row without truncation, special tokens included, int64 [N]."""
    encoded = tokenizer(
        list(split.texts),
        None if split.pairs is None else list(split.pairs),
        return_attention_mask=False,
        verbose=False,  # no warning of rows that are longer than the model takes
    )
    return np.array([len(row) for row in encoded["input_ids"]], dtype=np.int64)


def default_max_length(split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> tuple[int, str]:
    """Return the default of --max-length for training rows, and a line that explains it.

    It is the 99th percentile of the rows' lengths (of 20,000 rows drawn with the seed 0, if there are more), rounded up
    to a multiple of 32, and at most `limit`, the tokens that the models take.
    """
    sample = split if len(split) <= _SAMPLE else select_rows(split, draw(len(split), _SAMPLE))
    needed = int(np.quantile(full_lengths(sample, tokenizer), _SHARE, method="inverted_cdf"))
    rounded = -(-needed // _STEP) * _STEP
    length = rounded if limit is None else min(rounded, limit)
    bound = f", and the model takes {limit:,}" if length < needed else ""
    return length, f"max-length: {length:,} tokens; {_SHARE:.0%} of the training rows have at most {needed:,}{bound}."


def report_cut(
    splits: Mapping[str, Split],
    examples: Mapping[str, TokenizedSplit],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> dict[str, dict[str, int]]:
    """Print how many rows of each split are longer than `max_length`, and how many of the tokens are not read.

    Returns both by split, for the manifest, without splits of which nothing is cut.
    """
    cut = {name: found for name, split in splits.items() if (found := _cut_of(split, examples[name], tokenizer))}
    if cut:
        parts = [
            f"{found['rows']:,} of {len(splits[name]):,} {name} rows ({found['tokens'] / found['of_tokens']:.1%} of "
            "their split's tokens)"
            for name, found in cut.items()
        ]
        many = any(found["rows"] > _MANY * len(splits[name]) for name, found in cut.items())
        notice(
            "max-length",
            f"{'warning: ' if many else ''}rows longer than --max-length {max_length:,} are cut: {', '.join(parts)}.",
            rows=sum(found["rows"] for found in cut.values()),
            tokens=sum(found["tokens"] for found in cut.values()),
        )
    return cut


def _cut_of(split: Split, examples: TokenizedSplit, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the rows that are cut, the tokens that they lose, and the tokens of all rows; {} if nothing is cut."""
    lengths = examples.lengths
    longest = np.flatnonzero(lengths == lengths.max(initial=0))  # only these can be cut
    lost = full_lengths(select_rows(split, longest), tokenizer) - lengths[longest] if len(longest) else longest
    rows, tokens = int((lost > 0).sum()), int(lost.sum())
    return {"rows": rows, "tokens": tokens, "of_tokens": int(lengths.sum()) + tokens} if rows else {}
