"""Compute a model's logits for many rows, in batches of similar length."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from demiglace.console import progress
from demiglace.data.batching import Batch, collate, forward_tokens, sorted_batches
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import ConfigError, ModelError
from demiglace.models.modes import evaluating
from demiglace.models.precision import autocast
from demiglace.models.shape import max_positions, output_width


def predict(
    model: PreTrainedModel,
    examples: TokenizedSplit,
    *,
    batch_tokens: int | None = None,
    precision: str = "fp32",
    describe: str | None = None,
) -> np.ndarray:
    """Return logits float32 [N, C] in the order of the rows, computed without dropout on the model's device.

    Where words have labels they are [N, W, C], NaN for a word that has no token and after the last word of a row.

    Rows of similar length share a forward pass of at most `batch_tokens` padded tokens (None: set by the device).
    `describe` shows a progress bar of that name. The model's training mode is restored at the end.
    """
    logits = no_logits(examples, output_width(model) or 1)
    device = next(model.parameters()).device
    tokens = batch_tokens or forward_tokens(device)
    with evaluating(model), torch.inference_mode(), autocast(precision, device), _bar(describe, logits) as advance:
        for rows in sorted_batches(examples.lengths, tokens):
            batch = collate(examples, rows, device)
            output = batch.unit_logits(model(**batch.inputs).logits)
            logits[batch.unit_rows(rows)] = finite(output.float().cpu().numpy(), batch)
            advance(len(rows))
    return logits


def no_logits(examples: TokenizedSplit, outputs: int) -> np.ndarray:
    """Return an array for the logits of the rows, float32 [N, C], or of their words, [N, W, C], filled with NaN."""
    units = examples.labels.shape[:1] if examples.starts is None else examples.starts.shape
    return np.full((*units, outputs), np.nan, dtype=np.float32)


def finite(logits: np.ndarray, batch: Batch) -> np.ndarray:
    """Return the logits of a batch's words; those of rows are checked later, by `scores.predictions_of`.

    Raises `ModelError` if one is not finite: the array of all words has NaN for those without logits.
    """
    if batch.words is not None and not np.isfinite(logits).all():
        raise ModelError(
            f"the model's output is not a finite number for {(~np.isfinite(logits).all(axis=1)).sum()} of "
            f"{len(logits)} words; its training diverged or its weights are damaged."
        )
    return logits


def check_lengths(model: PreTrainedModel, examples: TokenizedSplit) -> None:
    """Raise `ConfigError` if a row has more tokens than the model has positions."""
    check_longest(max_positions(model), examples.lengths)


def check_longest(limit: int | None, lengths: np.ndarray) -> None:
    """Raise as `check_lengths` does, from the maximum (None: unlimited) and the rows' numbers of tokens."""
    longest = int(lengths.max(initial=0))
    if limit is not None and longest > limit:
        raise ConfigError(
            f"a row has {longest} tokens, and the model takes {limit} at most; give --max-length {limit}."
        )


@contextmanager
def _bar(describe: str | None, logits: np.ndarray) -> Iterator[Callable[[int], None]]:
    if describe is None:
        yield lambda rows: None
        return
    with progress(describe, total=len(logits), unit="rows") as bar:
        yield bar.advance
