"""Compare the logits of an exported model with those of the original, on real rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_softmax

from demiglace.data.batching import Batch, collate
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import DataError, ModelError, UserError
from demiglace.evaluation.predict import finite, no_logits
from demiglace.evaluation.scores import check_finite
from demiglace.export.base import Inputs, Runner
from demiglace.tasks.base import RowTask

MIN_AGREEMENT = 0.99  # label agreement of an artefact in the original's own precision
MIN_SAME_TEXTS = 0.9  # of greedy continuations: one token that two models rate equally changes all after it
CHECK_BATCH = 1  # rows of a batch: int8 activations are scaled per batch, and a device classifies one row at a time
PADDED_BATCH = 32  # rows of the batch that checks padding, and of those of the original in PyTorch


@dataclass(frozen=True)
class Parity:
    """How two models differ on the same rows."""

    label_agreement: float  # share of rows or words with the same prediction; for regression see `compare`
    largest_logit_difference: float  # over all rows and outputs
    count: int
    units: str = "rows"  # what is counted: rows or words


@dataclass(frozen=True)
class TokenParity:
    """How two language models differ on the same texts."""

    agreement: float  # share of tokens after which both predict the same next token
    kl_divergence: float  # mean over the tokens of KL(original || artefact), nats
    largest_logit_difference: float
    tokens: int


def compare_tokens(reference: Sequence[np.ndarray], candidate: Sequence[np.ndarray]) -> TokenParity:
    """Compare the logits of an artefact with the original's; both: for each batch float32 [B, L, V].

    Raises `ModelError` if a logit is not finite.
    """
    same, divergence, largest, tokens = 0, 0.0, 0.0, 0
    for expected, found in zip(reference, candidate, strict=True):
        if not np.isfinite(found).all():
            raise ModelError("the exported model's output is not a finite number; its weights are too large for it.")
        same += int((expected.argmax(-1) == found.argmax(-1)).sum())
        log_p, log_q = log_softmax(expected, axis=-1), log_softmax(found, axis=-1)
        divergence += float((np.exp(log_p) * (log_p - log_q)).sum())
        largest = max(largest, float(np.abs(expected - found).max()))
        tokens += expected[..., 0].size
    return TokenParity(same / tokens, divergence / tokens, largest, tokens)


def assert_token_parity(parity: TokenParity, name: str) -> None:
    """Raise `UserError` if an artefact that should equal the original does not."""
    if parity.agreement < MIN_AGREEMENT:
        raise UserError(
            f"{name} does not reproduce the PyTorch model: after {parity.agreement:.1%} of {parity.tokens:,} tokens it "
            f"predicts the same next token (at least {MIN_AGREEMENT:.0%} are expected), and logits differ by up to "
            f"{parity.largest_logit_difference:.3g}. Do not use the file. If the model was never trained, rounding "
            "alone can cause this: export a trained one."
        )


@dataclass(frozen=True)
class Continuations:
    """How many greedy continuations of texts are the same for two language models with a KV cache."""

    same: int
    count: int
    new_tokens: int  # of each continuation


def compare_continuations(reference: Sequence[Sequence[int]], candidate: Sequence[Sequence[int]]) -> Continuations:
    """Compare the new tokens of each text."""
    same = sum(list(a) == list(b) for a, b in zip(reference, candidate, strict=True))
    return Continuations(same, len(reference), len(reference[0]))


def assert_continuations(found: Continuations, name: str) -> None:
    """Raise `UserError` if an artefact that should equal the original continues texts otherwise."""
    if found.same < MIN_SAME_TEXTS * found.count:
        raise UserError(
            f"{name} does not reproduce the PyTorch model: of {found.count} texts that both continue by "
            f"{found.new_tokens} tokens, {found.same} are the same (at least {MIN_SAME_TEXTS:.0%} are expected). Do "
            "not use the file. If the model was never trained, rounding alone can cause this: export a trained one."
        )


def numpy_batches(examples: TokenizedSplit, size: int) -> list[Inputs]:
    """Return the rows in their order as padded batches of `size`; rows from the start fill up the last batch."""
    if not len(examples):
        raise DataError("there are no rows to check and measure the exported model on; give others by --data.")
    return [_inputs(collate(examples, rows)) for rows in _rows_of_batches(examples, size)]


def _rows_of_batches(examples: TokenizedSplit, size: int) -> np.ndarray:
    return np.resize(np.arange(len(examples)), (-(-len(examples) // size), size))


def _inputs(batch: Batch) -> Inputs:
    return {name: tensor.numpy() for name, tensor in batch.inputs.items()}


def predict_with(runner: Runner, examples: TokenizedSplit, size: int = CHECK_BATCH) -> np.ndarray:
    """Return the logits of the rows in their order, float32 [N, C], computed in batches of `size`.

    Of words they are [N, W, C], see `evaluation.predict.predict`.
    """
    logits = np.zeros(0)
    for rows in reversed(_rows_of_batches(examples, size)):  # rows that fill up the last batch are replaced
        batch = collate(examples, rows)
        found = batch.unit_logits(torch.from_numpy(runner.logits(_inputs(batch)))).numpy()
        if not logits.size:
            logits = no_logits(examples, found.shape[-1])
        logits[batch.unit_rows(rows)] = finite(found, batch)
    return logits


def compare(reference: np.ndarray, candidate: np.ndarray, task: RowTask) -> Parity:
    """Compare the logits [N, C] of an artefact with the original's.

    Predictions agree as `RowTask.same_predictions` defines it (for numbers within 1 % of the largest). Raises
    `ModelError` if a logit is not finite.
    """
    for logits in (reference, candidate):
        check_finite(logits, task)
    units = task.same_predictions(reference, candidate)
    return Parity(float(units.mean()), float(np.nanmax(np.abs(reference - candidate))), len(units), f"{task.unit}s")


def assert_parity(parity: Parity, name: str) -> None:
    """Raise `UserError` if an artefact that should equal the original does not."""
    if parity.label_agreement < MIN_AGREEMENT:
        raise UserError(
            f"{name} does not reproduce the PyTorch model: {parity.label_agreement:.1%} of {parity.count} "
            f"{parity.units} get the same label (at least {MIN_AGREEMENT:.0%} are expected), and logits differ by up "
            f"to {parity.largest_logit_difference:.3g}. Do not use the file. If the model was never trained, rounding "
            "alone can cause this: export a trained one. Otherwise report it with the versions of torch and "
            "transformers."
        )
