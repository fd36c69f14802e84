"""Which student and method is best, which is to be shipped, and the tests that tell."""

from collections import Counter

from demiglace.evaluation.verdicts import UNKNOWN
from demiglace.results import metrics
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Difference, Key


def ranked(comparison: Comparison) -> list[Key]:
    """Students and methods that have all tasks, the best mean first."""
    sign = metrics.sign(comparison.metric)
    scored = [(score, key) for key in comparison.keys if (score := comparison.score(key)) is not None]
    return [key for _, key in sorted(scored, key=lambda found: -sign * found[0])]


def ranked_distilled(comparison: Comparison) -> list[Key]:
    """Those of `ranked` that learnt from a teacher."""
    return [key for key in ranked(comparison) if comparison.control_of(key) != "none"]


def chosen(comparison: Comparison) -> Key | None:
    """Return what the answer is about: of the distilled students the best that surpasses no teacher, or the best.

    Primary tests come before exploratory ones. The control where nothing else has a score.
    """
    order = ranked_distilled(comparison)
    surpassing = [key for key in order if _is_significantly_better(comparison, key)]
    declared = [key for key in surpassing if not is_exploratory(comparison, key, "none")]
    return next(iter([*declared, *surpassing, *order, *ranked(comparison)]), None)


def shipped(comparison: Comparison) -> Key | None:
    """What to ship: `chosen`, or a student without a teacher: the best of all, or one that no test finds surpassed."""
    key, order = chosen(comparison), ranked(comparison)
    if key is None or comparison.control_of(order[0]) == "none":
        return order[0] if order else None
    control, found = comparison.without_teacher(key), verdicts(comparison, key)
    told = found - {UNKNOWN}
    enough = UNKNOWN not in found or "worse" in told  # what was not tested may be what it is better on
    return control if control and told and enough and "better" not in told else key


def _is_significantly_better(comparison: Comparison, key: Key) -> bool:
    """Whether its mean is above that of no teacher, by a test on average or on some task, and by none below it."""
    control, sign = comparison.without_teacher(key), metrics.sign(comparison.metric)
    ours, theirs = comparison.score(key), None if control is None else comparison.score(control)
    found = verdicts(comparison, key)
    ahead = ours is not None and theirs is not None and sign * ours > sign * theirs
    return ahead and "better" in found and "worse" not in found


def verdicts(comparison: Comparison, key: Key) -> set[str]:
    """Return those against no teacher, of the tasks and of their average."""
    average = average_of(comparison, key)
    tests = [*tests_of(comparison, key, "none").values(), *([] if average is None else [average])]
    return {d.verdict for d in tests}


def tests_of(comparison: Comparison, key: Key, control: str) -> dict[str, Difference]:
    """Return by task how the task's own set differs from the control; of primary tests, where there are any, those."""
    found = _tests(comparison, key, control)
    return {task: d for task, d in found.items() if d.exploratory == is_exploratory(comparison, key, control)}


def is_exploratory(comparison: Comparison, key: Key, control: str) -> bool:
    """Return whether no test of a student and method against this control was declared as primary."""
    average = _average(comparison, key, control)
    return all(
        d.exploratory for d in [*_tests(comparison, key, control).values(), *([] if average is None else [average])]
    )


def _tests(comparison: Comparison, key: Key, control: str) -> dict[str, Difference]:
    cells = comparison.cells_of(key)
    return {c.task: found for c in cells if (found := c.own.against.get(control)) is not None}


def tally(comparison: Comparison, key: Key, control: str) -> Counter[str]:
    """Return how many tasks have each verdict."""
    return Counter(d.verdict for d in tests_of(comparison, key, control).values())


def average_of(comparison: Comparison, key: Key) -> Difference | None:
    """Return how the average over several tasks differs from no teacher; as `tests_of`."""
    found = _average(comparison, key, "none")
    return found if found is not None and found.exploratory == is_exploratory(comparison, key, "none") else None


def _average(comparison: Comparison, key: Key, control: str) -> Difference | None:
    return comparison.against(key, control) if len(comparison.tasks) > 1 else None
