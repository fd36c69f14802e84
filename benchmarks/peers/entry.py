"""The table of contenders."""

from dataclasses import dataclass, replace
from typing import Literal

from material import MAX_LENGTH, Race

from demiglace.methods.registry import METHODS

Kind = Literal["ours", "peer", "control", "bound"]
_RACED = ("vanilla-kd", "pkd", "alp-kd", "rail-kd-l", "rail-kd-c", "tinybert", "mate-kd")


@dataclass(frozen=True)
class Entry:
    """A contender: the module that trains it and what it trains with.

    padding: to so many tokens, none = to the longest of a batch; peers' batches are random, ours of like length.
    """

    name: str
    kind: Kind
    module: str
    method: str
    padding: int | None = None
    precision: str = "fp32"

    def rows(self, race: Race) -> int:
        return race.rows if self.padding is None else race.padded_rows


_PEERS = (
    Entry("TextBrewer, PKD", "peer", "by_textbrewer", "pkd"),
    Entry("TextBrewer, logits cached", "peer", "by_textbrewer", "cached"),
    Entry("torchdistill, KD", "peer", "by_torchdistill", "kd"),
    Entry("Model-Optimizer, KD", "peer", "by_modelopt", "kd"),
    Entry("plain loop, KD", "peer", "plain", "kd"),
)
_OTHERS = (
    Entry("plain loop, KD, like lengths", "control", "plain", "kd-bucketed"),
    Entry("student alone, like lengths", "bound", "plain", "student"),
)


def entries(bf16: bool) -> list[Entry]:
    """All contenders; with bf16 also those that can train in it, a second time."""
    ours = [Entry(name, "ours", "ours", name) for name in _RACED if name in METHODS]
    padded = [replace(p, name=f"{p.name}, padded", padding=MAX_LENGTH) for p in _PEERS]
    found = [*ours, *_PEERS, *padded, *_OTHERS]
    if bf16:
        able = [e for e in found if e.module in ("ours", "plain") and e.padding is None]
        found += [replace(e, name=f"{e.name}, bf16", precision="bf16") for e in able]
    return found
