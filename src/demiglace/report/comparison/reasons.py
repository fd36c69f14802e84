"""The reasons for an answer, a sentence or two each: costs, tests, rivals, and what to bear in mind."""

from demiglace.report import wording
from demiglace.report.comparison import words
from demiglace.report.comparison.choice import average_of, ranked, tally, taught, tests_of, verdicts
from demiglace.report.comparison.content import Comparison
from demiglace.report.comparison.results import Difference
from demiglace.report.comparison.words import Key


def kept(comparison: Comparison, key: Key) -> str:
    """The share of the teachers' score, and at which costs."""
    ours, theirs = comparison.score(key), comparison.teacher_score()
    if not ours or not theirs or words.sign(comparison.metric) < 0:
        return ""
    score = words.points(theirs, comparison.metric)
    reached = "teachers reach" if len(comparison.tasks) > 1 else "teacher reaches"
    said = f"{words.name_of(key, comparison)} keeps {wording.share(ours / theirs)} of what the {reached} ({score})"
    parts = [f"{ratio(own, its)} of {thing}" for own, its, thing in costs(comparison, key) if own is not None and its]
    return f"{said}, at {words.listed(parts)}." if parts else f"{said}."


def ratio(ours: float | None, theirs: float | None) -> str:
    """``77 %``."""
    return f"{100 * (ours or 0) / (theirs or 1):.0f}\u00a0%"


def costs(comparison: Comparison, key: Key) -> list[tuple[float | None, float | None, str]]:
    """What a student and its teacher cost, and what that is."""
    latency = f"the latency ({words.exported(comparison)})"
    return [
        (comparison.cost(key, "size"), comparison.teacher_cost("size"), "the size"),
        (comparison.cost(key, "latency"), comparison.teacher_cost("latency"), latency),
    ]


def on_average(comparison: Comparison, key: Key) -> str:
    """The test of the average, which no task's own says."""
    found = average_of(comparison, key)
    if found is None or found.verdict == words.UNKNOWN:
        return ""
    told = words.difference_in_words(found, "average", float(comparison.test["level"]))
    verdict = found.verdict if found.verdict == words.NO_DIFFERENCE else f"significantly {found.verdict}"
    name, p = words.name_of(key, comparison), words.probability(found.p_corrected)
    return f"On average over the tasks {name} differs from no teacher by {told}, corrected p {p}: {verdict}."


def against(comparison: Comparison, key: Key, control: str, called: str) -> str:
    """Task by task what is better, worse, and not told apart."""
    found = tests_of(comparison, key, control)
    told = []
    for verdict in ("better", "worse"):
        hits = [_hit(comparison, key, task, d) for task, d in found.items() if d.verdict == verdict]
        told += [f"significantly {verdict} on {words.listed(hits)}"] if hits else []
    for verdict in (words.NO_DIFFERENCE, words.UNKNOWN):
        rest = [wording.shorten(task, 40) for task, d in found.items() if d.verdict == verdict]
        where = "any task" if verdict != words.UNKNOWN else "every task"
        told += [f"{verdict} on {where if 1 < len(rest) == len(found) else words.listed(rest)}"] if rest else []
    return f"{words.name_of(key, comparison)} against {called}: {'; '.join(told)}." if told else ""


def _hit(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    metric = next(c.own.metric for c in comparison.cells_of(key) if c.task == task)
    return f"{wording.shorten(task, 40)} {words.difference_in_words(found, metric, float(comparison.test['level']))}"


def higher(comparison: Comparison, key: Key) -> str:
    """The best mean of those with a teacher, where another one is chosen because a test tells it from no teacher."""
    best = next(iter(taught(comparison)), key)
    if best == key:
        return ""
    score = words.points(comparison.score(best), comparison.metric)
    worse = "worse" in verdicts(comparison, best)
    but = "is significantly worse than no teacher somewhere" if worse else "no test tells it from no teacher"
    return f"{words.name_of(best, comparison)} has the higher mean ({score}), but {but}."


def others(comparison: Comparison, key: Key) -> str:
    """Which other methods are significantly better than no teacher, and where."""
    found = []
    for other in comparison.keys:
        tasks = [t for t, d in tests_of(comparison, other, "none").items() if d.verdict == "better"]
        if other != key and tasks:
            found.append(f"{words.name_of(other, comparison)} ({', '.join(wording.shorten(t, 40) for t in tasks)})")
    ours = tally(comparison, key, "none")["better"]
    if found:
        return f"{'Also s' if ours else 'S'}ignificantly better than no teacher: {words.listed(found)}."
    tested = any(d.verdict != words.UNKNOWN for k in comparison.keys for d in tests_of(comparison, k, "none").values())
    return "No method is significantly better than no teacher on any task." if tested and not ours else ""


def smaller(comparison: Comparison, key: Key) -> str:
    """The best of every student that is smaller, whose distance no test measures."""
    size, score = comparison.cost(key, "parameters"), comparison.score(key)
    found: dict[str, str] = {}
    for other in ranked(comparison):
        its, reached = comparison.cost(other, "parameters"), comparison.score(other)
        if size and its and its < size and other[0] not in found and score is not None and reached is not None:
            lead = words.signed(reached - score, comparison.metric)
            reaches = f"{words.points(reached, comparison.metric)} ({lead})"
            found[other[0]] = f"{words.name_of(other, comparison)} reaches {reaches} with {ratio(its, size)}"
    if not found:
        return ""
    return (
        f"Smaller: {words.listed(list(found.values()))} of the parameters; differences between students are not tested."
    )


def how_chosen(comparison: Comparison, key: Key) -> str:
    """That the best of many by their scores is flattered by them."""
    count = len(taught(comparison))
    if count < 2 or comparison.control_of(key) == "none":
        return ""
    return (
        f"{words.name_of(key, comparison)} was chosen from {count} with a teacher by these same scores, which flatters "
        "it: its lead over the next is not tested, only each method’s difference from the controls."
    )


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """What holds of all scores."""
    return tuple(filter(None, (_flattered(comparison), _gaps(comparison), _absent(comparison))))


def _flattered(comparison: Comparison) -> str:
    """Where the rows that chose the best epoch are those that results are told of."""
    tasks = list(dict.fromkeys(wording.shorten(c.task, 40) for c in comparison.cells if c.flattered))
    if not tasks:
        return ""
    where = "" if len(tasks) == len(comparison.tasks) else f" on {words.listed(tasks)}"
    return (
        f"The best epoch was chosen on the very rows that results are told of{where}: those scores are a little high, "
        "of all methods alike; “tune: true” in the grid avoids it."
    )


def _gaps(comparison: Comparison) -> str:
    missing = [m for m in comparison.missing if m.status != "failed"]
    failed = len(comparison.missing) - len(missing)
    parts = [f"{words.count_of(failed, 'run')} failed"] if failed else []
    parts += (
        [f"{words.count_of(len(missing), 'run')} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    )
    if not parts:
        return ""
    return f"{words.listed(parts)}: means are over the seeds there are, so not all rest on the same ones."


def _absent(comparison: Comparison) -> str:
    """Tasks and methods of which nothing is finished, so that no table has them."""
    there = {cell.method for cell in comparison.cells}
    tasks = dict.fromkeys(m.task for m in comparison.missing if m.task and m.task not in comparison.tasks)
    methods = dict.fromkeys(m.method for m in comparison.missing if m.method and m.method not in there)
    names = [wording.shorten(name, 40) for name in (*tasks, *methods)]
    return f"Of {words.listed(names)} no run is finished: no table and no mean holds them." if names else ""
