"""Which student and method is best, which is to be shipped, and the tests that tell."""

from collections import Counter

from demiglace.report.comparison import words
from demiglace.report.comparison.content import Comparison
from demiglace.report.comparison.results import Difference
from demiglace.report.comparison.words import Key


def ranked(comparison: Comparison) -> list[Key]:
    """Students and methods that have all tasks, the best mean first."""
    sign = words.sign(comparison.metric)
    scored = [(score, key) for key in comparison.keys if (score := comparison.score(key)) is not None]
    return [key for _, key in sorted(scored, key=lambda found: -sign * found[0])]


def chosen(comparison: Comparison) -> Key | None:
    """The best that learnt from a teacher; the control where nothing else is there."""
    order = ranked(comparison)
    return next((k for k in order if comparison.control_of(k) != "none"), order[0] if order else None)


def shipped(comparison: Comparison) -> Key | None:
    """What to ship: `chosen`, or a student without a teacher: the best of all, or one that no test finds surpassed."""
    key, order = chosen(comparison), ranked(comparison)
    if key is None or comparison.control_of(order[0]) == "none":
        return order[0] if order else None
    average, control = average_of(comparison, key), comparison.without_teacher(key)
    tests = [*tests_of(comparison, key, "none").values(), *([] if average is None else [average])]
    verdicts = {d.verdict for d in tests} - {words.UNKNOWN}
    return control if control and verdicts and "better" not in verdicts else key


def tests_of(comparison: Comparison, key: Key, control: str) -> dict[str, Difference]:
    """By task, how the task's own set differs from the control."""
    cells = comparison.cells_of(key)
    return {c.task: found for c in cells if (found := c.own.against.get(control)) is not None}


def tally(comparison: Comparison, key: Key, control: str) -> Counter[str]:
    """How many tasks have each verdict."""
    return Counter(d.verdict for d in tests_of(comparison, key, control).values())


def average_of(comparison: Comparison, key: Key) -> Difference | None:
    """How the average over several tasks differs from no teacher."""
    return comparison.against(key, "none") if len(comparison.tasks) > 1 else None
