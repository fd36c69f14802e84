"""Choose a student's layers by what a model does with text."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from demiglace.console import progress, show, table
from demiglace.data.batching import collate, forward_tokens, sorted_batches, split_by_tokens
from demiglace.data.tokenise import TokenizedSplit
from demiglace.models.greedy import FIRST_ROWS, greedy, measure_of
from demiglace.models.importance import Inputs, block_influence, least_influential
from demiglace.models.truncate import ABLATIONS, AUTO, Keep
from demiglace.runs.processes import processes

ROW_TOKENS = 256  # of a row of calibration text: enough to have a context, and few enough for small models


_STATE_BYTES = 1 << 30  # of hidden states that `greedy` keeps


@dataclass(frozen=True)
class Choice:
    """The layers to keep, and what was measured."""

    keep: Keep
    found: dict[str, Any]  # for the manifest
    columns: tuple[str, ...]  # of a table of the same
    rows: tuple[tuple[str, ...], ...]

    def show(self) -> None:
        """Print the table on standard error."""
        show(table(f"Layers by {self.found['measure']}", self.columns, self.rows))


def strategy_for(strategy: str, *, causal: bool, text: bool) -> str:
    """Return the strategy, `auto` replaced: by block-influence for a causal language model with text, else alternate.

    Half of SmolLM2's layers have 2.4 nats less loss on C4 by block influence than `alternate`
    (docs/language-models.md).
    """
    if strategy != AUTO:
        return strategy
    return "block-influence" if causal and text else "alternate"


def describe_choice(strategy: str | None, keep: Keep, text: str = "") -> str:
    """Return the line for the user: the strategy, None for layers given by --keep; the text it was measured on."""
    words = "" if strategy is None else f"strategy: {strategy}, " if text else f"strategy: {strategy}; "
    words += f"measured on {text}; " if text else ""
    return words + ("no layer's weights kept" if strategy in ABLATIONS else f"layers kept: {', '.join(map(str, keep))}")


def choose_by_text(model: PreTrainedModel, rows: TokenizedSplit, strategy: str, count: int) -> Choice:
    """Return the `count` layers that a strategy of `MEASURED` keeps, found in float32 on the device of this process.

    Raises `ModelError` where the model's outputs are no finite numbers.
    """
    device, home = processes().device, model.device
    scored: Any = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    scored.to(device).eval()
    choose = _by_influence if strategy == "block-influence" else _select_greedy
    choice = choose(scored, rows, count)
    scored.to(home)
    choice.found.update(strategy=strategy, tokens=int(rows.lengths.sum()), rows=len(rows))
    return choice


def _by_influence(model: PreTrainedModel, rows: TokenizedSplit, count: int) -> Choice:
    influence = block_influence(model, _inputs(model, rows, sorted_batches(rows.lengths, forward_tokens(model.device))))
    keep = least_influential(influence, len(influence) - count)
    lines = tuple((str(i), f"{value:.4f}", "" if i in keep else "dropped") for i, value in enumerate(influence))
    found = {"measure": "block influence", "layers": influence}
    return Choice(keep, found, ("layer", "1 − cos(input, output)", ""), lines)


def _select_greedy(model: PreTrainedModel, rows: TokenizedSplit, count: int) -> Choice:
    measure, layers = measure_of(model), model.config.num_hidden_layers
    batches = _inputs(model, rows, sampled_batches(rows.lengths, _most_tokens(model)))
    with progress("try layers", (layers - count) * len(batches), "batches") as bar:
        full, gone = greedy(model, batches, layers - count, measure, lambda: bar.advance(1))
    keep = tuple(i for i in range(layers) if i not in {r.layer for r in gone})
    lines = (("none", f"{full:.4f}"), *((str(r.layer), f"{r.loss:.4f}") for r in gone))
    found = {"measure": measure.name, "whole": full, "dropped": [asdict(r) for r in gone]}
    return Choice(keep, found, ("dropped", measure.name), lines)


def _most_tokens(model: PreTrainedModel) -> int:
    """Return the tokens of a batch: as usual, or fewer where the inputs of all layers would take more than 1 GiB."""
    token_bytes = 4 * model.config.num_hidden_layers * model.config.hidden_size
    return min(forward_tokens(model.device), _STATE_BYTES // token_bytes)


def sampled_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Return all rows in batches, in an order drawn with the seed 0: the first batches are a sample of all rows.

    They have 4 rows, then half as many as all earlier ones together: 4, 4, 4, 6, 9, … Batches of more than
    `batch_tokens` padded tokens are split.
    """
    order, ends = np.random.default_rng(0).permutation(len(lengths)), [FIRST_ROWS]
    while ends[-1] < len(order):
        ends.append(ends[-1] + max(FIRST_ROWS, ends[-1] // 2))
    return [batch for part in np.split(order, ends) for batch in split_by_tokens(part, lengths, batch_tokens)]


def _inputs(model: PreTrainedModel, rows: TokenizedSplit, parts: Sequence[np.ndarray]) -> list[Inputs]:
    return [collate(rows, part, model.device).inputs for part in parts]
