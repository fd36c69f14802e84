"""Checks of a teacher before training, since a wrong one costs a full run: its accuracy, and its hidden states."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from demiglace.console import say
from demiglace.data.blocks import Blocks
from demiglace.data.tokenise import Examples, select
from demiglace.evaluation.predict import predict
from demiglace.signals.request import SignalRequest
from demiglace.signals.sinks import Sinks, find_sinks

_LEAST, _MOST = 64, 256
_SHARE = 64  # of that many training rows one is looked at, so that it takes less than 1 % of the run


def look_at_teacher(teacher: PreTrainedModel, validation: Examples, precision: str, training_rows: int) -> None:
    """Say how well the teacher does on 64 to 256 validation rows, and warn where that is no better than chance.

    Chance is the share of the most frequent class; of numbers, the error of their mean.
    """
    count = min(max(_LEAST, training_rows // _SHARE), _MOST, len(validation))
    rows = select(validation, np.random.default_rng(0).permutation(len(validation))[:count])
    mode = "not in eval mode" if any(m.training for m in teacher.modules()) else "in eval mode"
    logits = predict(teacher, rows, precision=precision)
    name, own, chance = _scores(rows.labels, logits)
    say(f"teacher: {mode}, {name} {own:.3f} on {count} validation rows, {chance:.3f} by chance")
    if own <= chance:
        say("warning: the teacher is no better than chance; was it fine-tuned on this task, with these labels?")


def _scores(labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
    """The name of the score, the teacher's, and that of chance. R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² for numbers."""
    if labels.dtype.kind == "f":
        spread = float(np.square(labels - labels.mean()).sum()) or 1.0
        return "R²", 1 - float(np.square(labels - logits[:, 0]).sum()) / spread, 0.0
    right = float((logits.argmax(axis=1) == labels).mean())
    return "accuracy", right, float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def look_at_states(
    teacher: PreTrainedModel, training: Examples | Blocks, request: SignalRequest, precision: str
) -> dict[str, Any]:
    """Print how the teacher's hidden states are pooled and which attention sinks they have; return both.

    Warn where a pooling lets the sinks decide: the pooled states of all rows are then nearly the same.
    """
    poolings, layers = request.poolings, {layer for _, layer in request.hidden}
    sinks = find_sinks(teacher, training, layers, precision)
    say(f"hidden states: pooled by {' and '.join(poolings)}; {_described(sinks)}")
    for pooling in poolings:
        if (pooling == "mean" and sinks.layers) or (pooling == "first" and sinks.first):
            say(
                f"warning: with the pooling {pooling}, attention sinks make the pooled states of all rows nearly the "
                "same, so that they teach little; take the pooling normalized-mean (or auto) where the method has it."
            )
    return {"poolings": list(poolings), "sinks": asdict(sinks)}


def _described(sinks: Sinks) -> str:
    times = f"{sinks.largest_ratio:g} times the median of its row"
    if not sinks.layers:
        return f"no attention sinks in the teacher on {sinks.rows} rows (the largest norm of a token is {times})"
    counts = {"first": sinks.first, "last": sinks.last, "other": sinks.between}
    tokens = ", ".join(f"{count} {name} tokens" for name, count in counts.items() if count)
    return (
        f"attention sinks in the teacher's layers {_ranges(sinks.layers)}: {tokens} of {sinks.rows} rows (the largest "
        f"norm of a token is {times})"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers in words, such as ``3, 12 to 29``."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(f"{g[0]} to {g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)
