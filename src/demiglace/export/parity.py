"""Does the exported model still say what the original says? Checked on real rows, padding included."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demiglace.data.batching import collate
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import DataError, UserError
from demiglace.evaluation.metrics import predictions_of
from demiglace.export.runners import Inputs, Runner
from demiglace.tasks.base import RowTask

LEAST_AGREEMENT = 0.99  # of an artefact in the original's own precision; below, the export is wrong


@dataclass(frozen=True)
class Parity:
    """How two models differ on the same rows.

    label_agreement: share of rows with the same class, or for regression with numbers that differ by at most 1 % of
    the largest; largest_logit_difference: over all rows and outputs.
    """

    label_agreement: float
    largest_logit_difference: float
    rows: int


def numpy_batches(examples: TokenizedSplit, size: int) -> list[Inputs]:
    """Rows in their order as padded batches of `size`, the last one filled up with rows from the start."""
    if not len(examples):
        raise DataError("there are no rows to check and measure the exported model on; give others by --data.")
    rows = np.resize(np.arange(len(examples)), -(-len(examples) // size) * size)
    batches = (collate(examples, chunk) for chunk in rows.reshape(-1, size))
    return [{name: tensor.numpy() for name, tensor in batch.inputs.items()} for batch in batches]


def logits_of(runner: Runner, batches: Sequence[Inputs], count: int) -> np.ndarray:
    """Logits float32 [count, C] of the first `count` rows of the batches."""
    return np.concatenate([runner(batch) for batch in batches])[:count]


def compare(reference: np.ndarray, candidate: np.ndarray, task: RowTask) -> Parity:
    """How the logits [N, C] of an artefact differ from the original's. `ModelError` if one is not finite."""
    expected, found = predictions_of(reference, task), predictions_of(candidate, task)
    tolerance = task.parity_tolerance * np.abs(expected).max()
    same = np.abs(expected - found) <= tolerance
    return Parity(float(same.mean()), float(np.abs(reference - candidate).max()), len(reference))


def assert_parity(parity: Parity, name: str) -> None:
    """Raise `UserError` for an artefact that ought to equal the original and does not."""
    if parity.label_agreement < LEAST_AGREEMENT:
        raise UserError(
            f"{name} does not say what the PyTorch model says: of {parity.rows} rows {parity.label_agreement:.1%} get "
            f"the same label (at least {LEAST_AGREEMENT:.0%} are needed) and logits differ by up to "
            f"{parity.largest_logit_difference:.3g}. The export is not complete; do not use the file. A model that was "
            "never trained can differ this much by rounding alone; else please report it with the versions of torch "
            "and transformers."
        )
