"""The reasons for an answer, a sentence or two each: costs, tests, rivals, and what to bear in mind."""

from collections import Counter

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.comparison.labels import Key
from demiglace.results.comparison import Comparison
from demiglace.results.ranking import average_of, is_exploratory, ranked, taught, tests_of, verdicts
from demiglace.results.schema import Difference, Primary

_MOST_PRIMARY = 6  # sentences about primary tests; the table has all of them


def kept(comparison: Comparison, key: Key) -> str:
    """The share of the teachers' score, and at which costs."""
    ours, theirs = comparison.score(key), comparison.teacher_score()
    if not ours or not theirs or labels.sign(comparison.metric) < 0:
        return ""
    score = labels.points(theirs, comparison.metric)
    reached = "teachers reach" if len(comparison.tasks) > 1 else "teacher reaches"
    said = f"{labels.name_of(key, comparison)} keeps {format.share(ours / theirs)} of what the {reached} ({score})"
    parts = [f"{ratio(own, its)} of {thing}" for own, its, thing in costs(comparison, key) if own is not None and its]
    return f"{said}, at {labels.listed(parts)}." if parts else f"{said}."


def ratio(ours: float | None, theirs: float | None) -> str:
    """``77 %``."""
    return f"{100 * (ours or 0) / (theirs or 1):.0f}\u00a0%"


def costs(comparison: Comparison, key: Key) -> list[tuple[float | None, float | None, str]]:
    """What a student and its teacher cost, and what that is."""
    latency = f"the latency ({labels.exported(comparison)})"
    return [
        (comparison.cost(key, "size"), comparison.teacher_cost("size"), "the size"),
        (comparison.cost(key, "latency"), comparison.teacher_cost("latency"), latency),
    ]


def declared(comparison: Comparison) -> str:
    """Return whether primary contrasts were declared before the runs; empty in a summary by an earlier version."""
    return str(comparison.test["declared"])


def primary(comparison: Comparison) -> tuple[str, ...]:
    """Return the result of each primary test; of many, how many have each verdict."""
    tests = [(entry, entry.test) for entry in comparison.primary]
    if len(tests) <= _MOST_PRIMARY:
        return tuple(_primary(comparison, entry) for entry, _ in tests)
    counts = Counter("not tested" if test is None else test.verdict for _, test in tests)
    text = labels.listed([f"{count} {verdict}" for verdict, count in counts.items()])
    return (f"Of {len(tests)} primary contrasts: {text}.",)


def _primary(comparison: Comparison, entry: Primary) -> str:
    name = f"{labels.name_of((entry.student, entry.method), comparison)} − {format.shorten(entry.control, 40)}"
    on = labels.listed([format.shorten(task, 40) for task in entry.tasks])
    where = f"on average over {on}" if entry.average else f"on {on}"
    if entry.test is None or entry.metric is None:
        return f"Primary: {name} {where}: not tested, runs are missing."
    test, metric = entry.test, entry.metric
    text = labels.difference_in_words(test, metric, float(comparison.test["level"]))
    p, verdict = labels.probability(test.p_corrected), labels.verdict_in_words(test, metric)
    equal = "" if entry.equivalence is None else f"; {labels.equivalence_in_words(entry.equivalence, metric)}"
    return f"Primary: {name} {where}: {text}, corrected p {p}: {verdict}{equal}."


def on_average(comparison: Comparison, key: Key) -> str:
    """Return the test of the average over the tasks."""
    found = average_of(comparison, key)
    if found is None or found.verdict == labels.UNKNOWN:
        return ""
    text = labels.difference_in_words(found, "average", float(comparison.test["level"]))
    decided = found.verdict in ("better", "worse")
    verdict = labels.adverb(found) if decided else labels.verdict_in_words(found, "average")
    p = labels.probability(found.p if found.exploratory else found.p_corrected)
    kind = "uncorrected" if found.exploratory else "corrected"
    name = labels.name_of(key, comparison)
    return f"On average over the tasks {name} differs from no teacher by {text}, {kind} p {p}: {verdict}."


def against(comparison: Comparison, key: Key, control: str, called: str) -> str:
    """Return which tasks are better, worse, and without a significant difference."""
    found = tests_of(comparison, key, control)
    parts = []
    for verdict in ("better", "worse"):
        hits = [(task, d) for task, d in found.items() if d.verdict == verdict]
        where = labels.listed([_hit(comparison, key, task, d) for task, d in hits]) if hits else ""
        parts += [f"{labels.adverb(hits[0][1])} on {where}"] if hits else []
    for verdict in (labels.NO_DIFFERENCE, labels.UNKNOWN):
        rest = [_without(comparison, key, task, d) for task, d in found.items() if d.verdict == verdict]
        parts += [f"{verdict} on {labels.listed(rest)}"] if rest else []
    return f"{labels.name_of(key, comparison)} against {called}: {'; '.join(parts)}." if parts else ""


def _without(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    """A task without a finding, with the effect that could have been seen."""
    seen = labels.could_have_seen(found, _metric(comparison, key, task))
    return f"{format.shorten(task, 40)} ({seen})" if seen else format.shorten(task, 40)


def _metric(comparison: Comparison, key: Key, task: str) -> str:
    return next(c.own.metric for c in comparison.cells_of(key) if c.task == task)


def _hit(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    text = labels.difference_in_words(found, _metric(comparison, key, task), float(comparison.test["level"]))
    return f"{format.shorten(task, 40)} {text}"


def higher(comparison: Comparison, key: Key) -> str:
    """The best mean of those with a teacher, where another one is chosen because a test tells it from no teacher."""
    best = next(iter(taught(comparison)), key)
    if best == key:
        return ""
    score = labels.points(comparison.score(best), comparison.metric)
    worse = "worse" in verdicts(comparison, best)
    but = "is significantly worse than no teacher somewhere" if worse else "no test tells it from no teacher"
    return f"{labels.name_of(best, comparison)} has the higher mean ({score}), but {but}."


def others(comparison: Comparison, key: Key) -> str:
    """Return which other methods are better than no teacher, and where; primary and exploratory tests apart."""
    sure, exploratory = (
        [
            f"{labels.name_of(other, comparison)} ({', '.join(format.shorten(t, 40) for t in tasks)})"
            for other in comparison.keys
            if other != key and is_exploratory(comparison, other, "none") == kind and (tasks := _won(comparison, other))
        ]
        for kind in (False, True)
    )
    sentences = [f"Significantly better than no teacher: {labels.listed(sure)}."] if sure else []
    sentences += [f"Better than no teacher in exploratory tests: {labels.listed(exploratory)}."] if exploratory else []
    if sentences or _won(comparison, key):
        return " ".join(sentences)
    tested = any(d.verdict != labels.UNKNOWN for k in comparison.keys for d in tests_of(comparison, k, "none").values())
    return "No method is significantly better than no teacher on any task." if tested else ""


def _won(comparison: Comparison, key: Key) -> list[str]:
    """The tasks on which a student and method is better than no teacher."""
    return [task for task, d in tests_of(comparison, key, "none").items() if d.verdict == "better"]


def smaller(comparison: Comparison, key: Key) -> str:
    """The best of every student that is smaller, whose distance no test measures."""
    size, score = comparison.cost(key, "parameters"), comparison.score(key)
    found: dict[str, str] = {}
    for other in ranked(comparison):
        its, reached = comparison.cost(other, "parameters"), comparison.score(other)
        if size and its and its < size and other[0] not in found and score is not None and reached is not None:
            lead = labels.signed(reached - score, comparison.metric)
            reaches = f"{labels.points(reached, comparison.metric)} ({lead})"
            found[other[0]] = f"{labels.name_of(other, comparison)} reaches {reaches} with {ratio(its, size)}"
    if not found:
        return ""
    return f"Smaller: {labels.listed(list(found.values()))} of the parameters; differences between students are not tested."


def how_chosen(comparison: Comparison, key: Key) -> str:
    """That the best of many by their scores is flattered by them."""
    count = len(taught(comparison))
    if count < 2 or comparison.control_of(key) == "none":
        return ""
    return (
        f"{labels.name_of(key, comparison)} was chosen from {count} with a teacher by these same scores, which flatters "
        "it: its lead over the next is not tested, only each method’s difference from the controls."
    )


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """What holds of all scores."""
    return tuple(filter(None, (_flattered(comparison), _gaps(comparison), _absent(comparison))))


def _flattered(comparison: Comparison) -> str:
    """Where the rows that chose the best epoch are those that results are told of."""
    tasks = list(dict.fromkeys(format.shorten(c.task, 40) for c in comparison.cells if c.flattered))
    if not tasks:
        return ""
    where = "" if len(tasks) == len(comparison.tasks) else f" on {labels.listed(tasks)}"
    return (
        f"The best epoch was chosen on the very rows that results are told of{where}: those scores are a little high, "
        "of all methods alike; “tune: true” in the grid avoids it."
    )


def _gaps(comparison: Comparison) -> str:
    missing = [m for m in comparison.missing if m.status != "failed"]
    failed = len(comparison.missing) - len(missing)
    parts = [f"{labels.count_of(failed, 'run')} failed"] if failed else []
    parts += (
        [f"{labels.count_of(len(missing), 'run')} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    )
    if not parts:
        return ""
    return f"{labels.listed(parts)}: means are over the finished {comparison.unit}s, and not all over the same ones."


def _absent(comparison: Comparison) -> str:
    """Tasks and methods of which nothing is finished, so that no table has them."""
    there = {cell.method for cell in comparison.cells}
    tasks = dict.fromkeys(m.task for m in comparison.missing if m.task and m.task not in comparison.tasks)
    methods = dict.fromkeys(m.method for m in comparison.missing if m.method and m.method not in there)
    names = [format.shorten(name, 40) for name in (*tasks, *methods)]
    return f"Of {labels.listed(names)} no run is finished: no table and no mean holds them." if names else ""
