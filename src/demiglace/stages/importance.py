"""Which layers `truncate` keeps, where text has to say it."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
from transformers import PreTrainedModel

from demiglace.console import console, is_main_process, progress, table
from demiglace.data.batches import collate, forward_tokens, sorted_batches
from demiglace.data.tokenise import Examples
from demiglace.errors import ConfigError
from demiglace.models.importance import (
    Inputs,
    block_influence,
    greedy,
    least_influential,
    measure_of,
    whole_loss,
)
from demiglace.models.truncate import Keep, check_count
from demiglace.stages.config import TextStrategy, TruncateConfig
from demiglace.stages.fit import processes

SCORED = get_args(TextStrategy)
ROW_TOKENS = 256  # of a row of calibration text: enough to have a context, and few enough for small models


@dataclass(frozen=True)
class Choice:
    """The layers to keep, what was found of them, for the manifest, and the same as a table's columns and rows."""

    keep: Keep
    found: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def show(self) -> None:
        """Print the table on standard error."""
        if is_main_process():
            console.print(table(f"Layers by {self.found['measure']}", self.columns, self.rows))


def check_calibration(config: TruncateConfig, num_layers: int) -> None:
    """Raise `ConfigError` unless text is given to the strategies that look at it, and to no other; and no --keep.

    Raises `ModelError` for a number of layers that cannot be kept.
    """
    if config.strategy not in SCORED:
        if config.calibration:
            raise ConfigError(
                f"--calibration is text for --strategy {' or '.join(SCORED)}; {config.strategy} looks at none."
            )
        return
    if config.keep is not None:
        raise ConfigError(f"--strategy {config.strategy} finds the layers to keep; give --layers instead of --keep.")
    if config.layers is None:
        raise ConfigError(f"--strategy {config.strategy} needs --layers, the number of layers to keep.")
    if not config.calibration:
        raise ConfigError(f"--strategy {config.strategy} looks at text; give some files of it as --calibration.")
    check_count(config.layers, num_layers)


def choose_by_text(model: PreTrainedModel, rows: Examples, strategy: str, count: int) -> Choice:
    """The `count` layers that a strategy of `SCORED` keeps, found in float32 on the device that there is.

    Raises `ModelError` where the model's outputs are no numbers.
    """
    device = processes().device
    scored = (model if model.dtype == torch.float32 else copy.deepcopy(model).float()).to(device).eval()
    parts = sorted_batches(rows.lengths, forward_tokens(device))
    batches = [{**b.inputs, "attention_mask": b.attention_mask} for b in (collate(rows, p, device) for p in parts)]
    found = (
        _by_influence(scored, batches, count) if strategy == "block-influence" else _greedily(scored, batches, count)
    )
    found.found.update(strategy=strategy, tokens=int(rows.lengths.sum()), rows=len(rows))
    return found


def _by_influence(model: PreTrainedModel, batches: Sequence[Inputs], count: int) -> Choice:
    influence = block_influence(model, batches)
    keep = least_influential(influence, len(influence) - count)
    rows = tuple((str(i), f"{value:.4f}", "" if i in keep else "dropped") for i, value in enumerate(influence))
    found = {"measure": "block influence", "layers": influence}
    return Choice(keep, found, ("layer", "1 − cos(given, returned)", ""), rows)


def _greedily(model: PreTrainedModel, batches: Sequence[Inputs], count: int) -> Choice:
    measure, layers = measure_of(model), model.config.num_hidden_layers
    drop = layers - count
    whole = whole_loss(model, batches, measure)
    with progress("try layers", drop * layers - drop * (drop - 1) // 2, "tries") as bar:
        gone = greedy(model, batches, drop, measure, lambda: bar.advance(1))
    keep = tuple(i for i in range(layers) if i not in {r.layer for r in gone})
    rows = (("none", f"{whole:.4f}"), *((str(r.layer), f"{r.loss:.4f}") for r in gone))
    found = {"measure": measure.name, "whole": whole, "dropped": [asdict(r) for r in gone]}
    return Choice(keep, found, ("dropped", measure.name), rows)
