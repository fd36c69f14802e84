"""Find the students that fit a budget with few measurements, and name the limit that nothing can meet."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demiglace.compress.budget import Budget, Cost
from demiglace.compress.candidates import Student
from demiglace.compress.measure_candidates import Costs
from demiglace.errors import RunError

MARGIN = 0.05  # of the latency limit: candidates this close to it are left out, since the final file may be slower


@dataclass(frozen=True)
class Proposals:
    """What the measurements found."""

    students: tuple[Student, ...]  # to train, the largest first
    measured: Mapping[Student, Costs]  # all that were measured


def fitting(costs: Costs, budget: Budget) -> tuple[str, ...]:
    """Return the precisions whose cost fits with the margin."""
    return tuple(precision for precision, cost in costs.items() if budget.admits(cost, MARGIN))


def propose(students: Sequence[Student], measure: Callable[[Student], Costs], budget: Budget, count: int) -> Proposals:
    """Return up to `count` of the students that fit: the largest ones, then the next smaller ones; no static one.

    A student that is smaller than another one in every dimension is neither larger nor slower. So a student that fits
    decides for all smaller ones, and one that does not for all larger ones; the next to measure is the one that decides
    most. Students of the next smaller hidden size are measured if fewer than `count` are found.
    """
    measured: dict[Student, Costs] = {}

    def fits(student: Student) -> bool:
        measured[student] = measure(student)
        return bool(fitting(measured[student], budget))

    smallest = [s for s in students if not any(o != s and o.is_within(s) for o in students)]
    too_large = [s for s in smallest if not fits(s)]
    undecided = [s for s in students if s not in measured and not any(t.is_within(s) for t in too_large)]
    for hidden_size in sorted({s.hidden_size or math.inf for s in students}, reverse=True):
        while group := [s for s in undecided if (s.hidden_size or math.inf) == hidden_size]:
            student = max(group, key=lambda s: min(_decided(s, group)))
            if fits(student):
                undecided = [s for s in undecided if not s.is_within(student)]
            else:
                undecided = [s for s in undecided if not student.is_within(s)]
        fit = [s for s in measured if not s.is_static and fitting(measured[s], budget)]
        top = [s for s in fit if not any(o != s and s.is_within(o) for o in fit)]
        if sum((s.hidden_size or math.inf) >= hidden_size for s in top) >= count:
            break
    below = [s for s in students if not s.is_static and s not in top and any(s.is_within(o) for o in top)]
    chosen = sorted(top, key=lambda s: s.capacity, reverse=True)[:count]
    chosen += sorted(below, key=lambda s: s.capacity, reverse=True)[: count - len(chosen)]
    return Proposals(tuple(s for s in chosen if s in fit or fits(s)), measured)


def _decided(student: Student, undecided: Sequence[Student]) -> tuple[int, int]:
    """Return how many students are decided if this one fits, and if it does not."""
    return sum(s.is_within(student) for s in undecided), sum(student.is_within(s) for s in undecided)


def check_possible(measured: Mapping[Student, Costs], budget: Budget) -> None:
    """Raise `RunError`, which names the impossible limit and the nearest possible value, if no measurement fits."""
    if not any(fitting(costs, budget) for costs in measured.values()):
        raise RunError(impossible(measured, budget))


def impossible(measured: Mapping[Student, Costs], budget: Budget) -> str:
    """Return a message for measurements of which none fits: which limit is impossible, and the nearest possible one."""
    found = [(f"{s.name} in {precision}", cost) for s, costs in measured.items() for precision, cost in costs.items()]
    smallest, fastest = min(found, key=lambda f: f[1].bytes), min(found, key=lambda f: f[1].latency_ms)
    lines = []
    if not budget.admits_size(smallest[1].bytes):
        lines.append(
            f"--max-mb {budget.max_mb:g} is impossible: the smallest candidate, {_described(smallest)}; give at least "
            f"--max-mb {_rounded_up(smallest[1].bytes / 1e6)}."
        )
    if not budget.admits_latency(fastest[1].latency_ms, MARGIN):
        lines.append(
            f"--max-latency-ms {budget.max_latency_ms:g} is impossible on this machine: the fastest candidate, "
            f"{_described(fastest)}; give at least --max-latency-ms "
            f"{_rounded_up(fastest[1].latency_ms / (1 - MARGIN))}."
        )
    if not lines:
        lines.append(
            f"{budget.in_words()}: no candidate meets both limits at once. The smallest one, {_described(smallest)}; "
            f"the fastest one, {_described(fastest)}."
        )
    return " ".join(lines)


def _described(candidate: tuple[str, Cost]) -> str:
    name, cost = candidate
    return f"{name}, takes {cost.bytes / 1e6:.3g} MB and {cost.latency_ms:.3g} ms"


def _rounded_up(value: float) -> str:
    """Return a number with two significant digits that is no smaller: 12.34 → 13."""
    digits = 1 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits) / 10**digits:g}"
