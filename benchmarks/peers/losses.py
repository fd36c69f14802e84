"""TextBrewer's losses beside ours, on the same random tensors: where they differ, by which factor, and why.

    .venv-peers/bin/python benchmarks/peers/losses.py

Each row compares TextBrewer's value with ours and with ours brought to its convention; the latter must agree, so that
the explanation is complete. Writes results/peer_losses.json.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import textbrewer.losses as theirs
import torch
import torch.nn.functional as F
from torch import Tensor

from demiglace.losses.divergences import forward_kl, squared_error
from demiglace.losses.hidden import mean_squared, normalized_squared
from demiglace.models.pooling import pool
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import write_json

ROWS, LENGTH, HEADS, WIDTH, CLASSES = 16, 24, 4, 48, 5
TAU = 4.0
RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Tensors:
    """Logits [B, C], hidden states [B, L, d], raw attention scores [B, H, L, L] of a student and a teacher; mask."""

    logits: tuple[Tensor, Tensor]
    hidden: tuple[Tensor, Tensor]
    scores: tuple[Tensor, Tensor]
    mask: Tensor


@dataclass(frozen=True)
class Comparison:
    """One loss of theirs, ours, and ours in their convention."""

    theirs: str
    ours: str
    their_value: Callable[[Tensors], Tensor]
    our_value: Callable[[Tensors], Tensor]
    converted: Callable[[Tensors], Tensor]
    difference: str


def draw(seed: int = 0) -> Tensors:
    """Random tensors in float64; rows of 5 to LENGTH tokens."""
    generator = torch.Generator().manual_seed(seed)

    def pair(*shape: int) -> tuple[Tensor, Tensor]:
        return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]

    lengths = torch.randint(5, LENGTH + 1, (ROWS,), generator=generator)
    mask = (torch.arange(LENGTH)[None, :] < lengths[:, None]).long()
    return Tensors(pair(ROWS, CLASSES), pair(ROWS, LENGTH, WIDTH), pair(ROWS, HEADS, LENGTH, LENGTH), mask)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the teacher's softened distribution: what a cross-entropy has on top of a KL divergence."""
    log_p = F.log_softmax(logits / TAU, dim=-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def first(states: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    return pool(states[0], mask, "first"), pool(states[1], mask, "first")


def over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Per-token values [B, L] to the mean over all real tokens of the batch: long rows weigh more."""
    return (values * mask).sum() / mask.sum()


def over_rows(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over rows of each row's mean over its real tokens."""
    return ((values * mask).sum(1) / mask.sum(1)).mean()


COMPARISONS = (
    Comparison(
        "kd_ce_loss",
        "forward_kl",
        lambda t: theirs.kd_ce_loss(*t.logits, TAU),
        lambda t: forward_kl(*t.logits, TAU).mean(),
        lambda t: forward_kl(*t.logits, TAU).mean() / TAU**2 + entropy(t.logits[1]),
        "a cross-entropy (the teacher's entropy on top: not zero for equal models) and no factor τ²: the gradient is "
        f"ours divided by τ² = {TAU**2:g}",
    ),
    Comparison(
        "kd_mse_loss",
        "squared_error",
        lambda t: theirs.kd_mse_loss(*t.logits, TAU),
        lambda t: squared_error(*t.logits).mean(),
        lambda t: squared_error(*t.logits).mean() / TAU**2,
        "divides both models' logits by τ first; ours takes the logits themselves",
    ),
    Comparison(
        "pkd_loss",
        "normalized_squared on the first token",
        lambda t: theirs.pkd_loss(*t.hidden),
        lambda t: normalized_squared(*first(t.hidden, t.mask)).mean(),
        lambda t: normalized_squared(*first(t.hidden, t.mask)).mean(),
        "none: both sum the squares over d, as the paper's equation 7 does (its code averages)",
    ),
    Comparison(
        "hid_mse_loss, no mask",
        "mean_squared on every token",
        lambda t: theirs.hid_mse_loss(*t.hidden),
        lambda t: over_rows(mean_squared(*t.hidden), t.mask),
        lambda t: mean_squared(*t.hidden).mean(),
        "without a mask, which is its default, padding counts like text",
    ),
    Comparison(
        "hid_mse_loss, mask",
        "mean_squared on every token",
        lambda t: theirs.hid_mse_loss(*t.hidden, mask=t.mask),
        lambda t: over_rows(mean_squared(*t.hidden), t.mask),
        lambda t: over_tokens(mean_squared(*t.hidden), t.mask),
        "the mean runs over all tokens of the batch, so long rows weigh more; ours is a mean over rows",
    ),
    Comparison(
        "cos_loss, mask",
        "half of normalized_squared on every token",
        lambda t: theirs.cos_loss(*t.hidden, mask=t.mask),
        lambda t: over_rows(normalized_squared(*t.hidden) / 2, t.mask),
        lambda t: over_tokens(normalized_squared(*t.hidden) / 2, t.mask),
        "1 − cos is half the normalized squared distance; mean over tokens instead of rows",
    ),
    Comparison(
        "att_mse_loss, mask",
        "mean_squared of the scores, over heads and real pairs",
        lambda t: theirs.att_mse_loss(*t.scores, mask=t.mask),
        lambda t: _scores(t),
        lambda t: _scores(t, over_batch=True),
        "the mean runs over all pairs of the batch, so long rows weigh more, by the square of their length",
    ),
    Comparison(
        "att_mse_loss, no mask",
        "mean_squared of the scores, over heads and real pairs",
        lambda t: theirs.att_mse_loss(*t.scores),
        lambda t: _scores(t),
        lambda t: mean_squared(*(torch.where(s <= -1e-3, 0.0, s) for s in t.scores)).mean(),
        "takes negative scores for masked ones and sets them to 0, half of all; padding counts",
    ),
)


def _scores(t: Tensors, over_batch: bool = False) -> Tensor:
    """Mean squared error of attention scores, over heads and the pairs of real tokens."""
    pairs = t.mask[:, :, None] * t.mask[:, None, :]
    squares = mean_squared(*(s.permute(0, 2, 3, 1) for s in t.scores)) * pairs  # [B, L, L], the mean over heads
    if over_batch:
        return squares.sum() / pairs.sum()
    return (squares.sum((1, 2)) / pairs.sum((1, 2))).mean()


def main() -> None:
    tensors, rows = draw(), []
    for c in COMPARISONS:
        values = [f(tensors).item() for f in (c.their_value, c.our_value, c.converted)]
        rows.append(
            {"TextBrewer": c.theirs, "value": values[0], "demiglace": c.ours, "our value": values[1]}
            | {"ours in its convention": values[2], "agrees": math.isclose(values[0], values[2], rel_tol=1e-6)}
            | {"difference": c.difference}
        )
        print(f"| `{c.theirs}` | {values[0]:.4f} | {c.ours} | {values[1]:.4f} | {c.difference} |")
    record = {
        "benchmark": "peer_losses",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions() | {"textbrewer": metadata.version("textbrewer")},
        "config": {"rows": ROWS, "length": LENGTH, "heads": HEADS, "width": WIDTH, "classes": CLASSES, "tau": TAU},
        "results": rows,
    }
    write_json(RESULTS / "peer_losses.json", record)
    wrong = [row["TextBrewer"] for row in rows if not row["agrees"]]
    if wrong:
        raise SystemExit(f"not explained: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
