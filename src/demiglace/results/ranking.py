"""Ranking of students and methods: which one is best, which one to ship, and the tests behind it."""

from collections import Counter

from demiglace.evaluation.verdicts import UNKNOWN
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Difference, Key


def ranked(comparison: Comparison) -> list[Key]:
    """Return the students and methods that have all tasks, the best mean first."""
    sign = comparison.sign
    scored = [(score, key) for key in comparison.keys if (score := comparison.score(key)) is not None]
    return [key for _, key in sorted(scored, key=lambda found: -sign * found[0])]


def ranked_distilled(comparison: Comparison) -> list[Key]:
    """Return those of `ranked` that were trained with a teacher."""
    return [key for key in ranked(comparison) if comparison.baseline_of(key) != "none"]


def chosen(comparison: Comparison) -> Key | None:
    """Return the student and method that the answer is about.

    It is the best of the distilled students that a test finds better than no teacher, by a primary test rather than by
    an exploratory one; else the best distilled student; else the best one without a teacher.
    """
    order = ranked_distilled(comparison)
    surpassing = [key for key in order if _is_significantly_better(comparison, key)]
    declared = [key for key in surpassing if not is_exploratory(comparison, key, "none")]
    return next(iter([*declared, *surpassing, *order, *ranked(comparison)]), None)


def shipped(comparison: Comparison) -> Key | None:
    """Return what to ship: `chosen`, or a student without a teacher that is best or that no test finds worse."""
    key, order = chosen(comparison), ranked(comparison)
    if key is None or comparison.baseline_of(order[0]) == "none":
        return order[0] if order else None
    baseline, found = comparison.without_teacher(key), verdicts(comparison, key)
    known = found - {UNKNOWN}
    enough = UNKNOWN not in found or "worse" in known  # it may be better where nothing was tested
    return baseline if baseline and known and enough and "better" not in known else key


def _is_significantly_better(comparison: Comparison, key: Key) -> bool:
    """Return whether it beats no teacher: a better mean, a test that confirms it, and no test against it."""
    baseline, sign = comparison.without_teacher(key), comparison.sign
    score, reference = comparison.score(key), None if baseline is None else comparison.score(baseline)
    found = verdicts(comparison, key)
    ahead = score is not None and reference is not None and sign * score > sign * reference
    return ahead and "better" in found and "worse" not in found


def verdicts(comparison: Comparison, key: Key) -> set[str]:
    """Return the verdicts of the tests against no teacher, on the tasks and on their average."""
    average = average_of(comparison, key)
    tests = [*tests_of(comparison, key, "none").values(), *([] if average is None else [average])]
    return {d.verdict for d in tests}


def tests_of(comparison: Comparison, key: Key, baseline: str) -> dict[str, Difference]:
    """Return by task how the task's own set differs from the baseline; of primary tests, where there are any, those."""
    found = _tests(comparison, key, baseline)
    return {task: d for task, d in found.items() if d.exploratory == is_exploratory(comparison, key, baseline)}


def is_exploratory(comparison: Comparison, key: Key, baseline: str) -> bool:
    """Return whether no test of a student and method against this baseline was declared as primary."""
    average = _average(comparison, key, baseline)
    return all(
        d.exploratory for d in [*_tests(comparison, key, baseline).values(), *([] if average is None else [average])]
    )


def _tests(comparison: Comparison, key: Key, baseline: str) -> dict[str, Difference]:
    cells = comparison.cells_of(key)
    return {c.task: found for c in cells if (found := c.own.against.get(baseline)) is not None}


def tally(comparison: Comparison, key: Key, baseline: str) -> Counter[str]:
    """Return how many tasks have each verdict."""
    return Counter(d.verdict for d in tests_of(comparison, key, baseline).values())


def average_of(comparison: Comparison, key: Key) -> Difference | None:
    """Return how the average over several tasks differs from no teacher; as `tests_of`."""
    found = _average(comparison, key, "none")
    return found if found is not None and found.exploratory == is_exploratory(comparison, key, "none") else None


def _average(comparison: Comparison, key: Key, baseline: str) -> Difference | None:
    return comparison.against(key, baseline) if len(comparison.tasks) > 1 else None
