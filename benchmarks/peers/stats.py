"""From the contenders' records to paired ratios and to the targets, reached or missed, in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Record = Mapping[str, float]
Rounds = Mapping[str, Sequence[Record]]  # contender to its record in each round

SPEED = "rows_per_cpu_second"
LATER = "later_rows_per_cpu_second"
UNSAVED = "rows_per_cpu_second_without_saving"
LATER_UNSAVED = "later_rows_per_cpu_second_without_saving"
MEMORY = "peak_mib"
_NOTE = ", the writing of checkpoints left out"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {"median": round(float(middle), 4), "q1": round(float(low), 4), "q3": round(float(high), 4)}


def ratio(rounds: Rounds, first: str, second: str, measure: str) -> list[float]:
    """first/second of a measure, round by round."""
    return [a[measure] / b[measure] for a, b in zip(rounds[first], rounds[second], strict=True)]


def median(rounds: Rounds, name: str, measure: str) -> float:
    return float(np.median([record[measure] for record in rounds[name]]))


def best(rounds: Rounds, names: Sequence[str], measure: str) -> str:
    """The name with the largest median."""
    return max(names, key=lambda name: median(rounds, name, measure))


@dataclass(frozen=True)
class Target:
    """A number to reach: at least, or at most. values: it, round by round."""

    text: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        middle = float(np.median(self.values))
        return (self.at_least is None or middle >= self.at_least) and (self.at_most is None or middle <= self.at_most)

    def row(self) -> dict[str, object]:
        """For the results file."""
        wanted = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return {"target": self.text, "wanted": wanted, **spread(self.values), "verdict": self.verdict}

    @property
    def verdict(self) -> str:
        return "reached" if self.reached else "missed"


def targets(rounds: Rounds, kinds: Mapping[str, str], padded: Sequence[str], bf16: bool) -> list[Target]:
    """The targets that the contenders present allow to be judged, among those of one number format.

    kinds: contender to its kind; padded: those that pad to 128 tokens.
    """
    mark = ", bf16" if bf16 else ""
    ours = f"rail-kd-l{mark}"
    same = [n for n in rounds if n.endswith(", bf16") == bf16]
    peers = [n for n in same if kinds[n] == "peer" and n not in padded]
    filled = [n for n in same if kinds[n] == "peer" and n in padded]
    found = []
    if ours in rounds:
        found += _against_peers(rounds, ours, peers, filled)
        found += _against_bound(rounds, ours, [n for n in same if kinds[n] == "bound"])
    found += _against_vanilla(rounds, f"vanilla-kd{mark}", mark)
    return found


def _against_peers(rounds: Rounds, ours: str, peers: Sequence[str], filled: Sequence[str]) -> list[Target]:
    found = []
    for names, least, title in ((peers, 3.0, "the fastest peer"), (filled, 4.5, "the fastest peer that pads to 128")):
        for measure, note in ((SPEED, ""), (UNSAVED, _NOTE)) if names else ():
            fastest = best(rounds, names, measure)
            text = f"{ours}: rows per CPU-second over those of {title} ({fastest}){note}"
            found.append(Target(text, ratio(rounds, ours, fastest, measure), at_least=least))
    if peers:
        leanest = min(peers, key=lambda n: median(rounds, n, MEMORY))
        text = f"{ours}: peak memory over that of the leanest peer ({leanest})"
        found.append(Target(text, ratio(rounds, ours, leanest, MEMORY), at_most=1.0))
    return found


def _against_bound(rounds: Rounds, ours: str, bounds: Sequence[str]) -> list[Target]:
    found = []
    for bound in bounds:
        for measure, note in ((LATER, ""), (LATER_UNSAVED, _NOTE)):
            text = f"{ours}: rows per CPU-second from the second epoch on, over {bound}{note}"
            found.append(Target(text, ratio(rounds, ours, bound, measure), at_least=0.9))
    return found


def _against_vanilla(rounds: Rounds, vanilla: str, mark: str) -> list[Target]:
    """What layers cost on top of logits: time over time, which is vanilla's speed over theirs, less one."""
    found = []
    for method, most in (("rail-kd-l", 0.03), ("rail-kd-c", 0.03), ("alp-kd", 0.05), ("pkd", 0.05)):
        name = method + mark
        if name in rounds and vanilla in rounds:
            extra = [r - 1 for r in ratio(rounds, vanilla, name, UNSAVED)]
            found.append(Target(f"{name}: share of CPU-seconds above {vanilla}{_NOTE}", extra, at_most=most))
    return found


def ceiling(rounds: Rounds, kinds: Mapping[str, str], padded: Sequence[str]) -> dict[str, object]:
    """How far ahead of the fastest peers the student is that is trained without any teacher: nobody can be faster."""
    plain = [n for n in rounds if not n.endswith(", bf16")]
    bound = next((n for n in plain if kinds[n] == "bound"), None)
    groups: dict[str, Callable[[str], bool]] = {
        "the fastest peer": lambda n: n not in padded,
        "the fastest peer padded to 128": lambda n: n in padded,
    }
    found = {}
    for title, chosen in groups.items():
        peers = [n for n in plain if kinds[n] == "peer" and chosen(n)]
        if bound and peers:
            found[title] = spread(ratio(rounds, bound, best(rounds, peers, UNSAVED), UNSAVED))
    return found


def summary(rounds: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """Median and quartiles of every measure of every contender."""
    return {name: {m: spread([r[m] for r in records]) for m in records[0]} for name, records in rounds.items()}
