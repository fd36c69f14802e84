"""The answer of a comparison in sentences: which student to ship, and whether its teacher was worth the trouble."""

from collections import Counter

from demiglace.report import wording
from demiglace.report.comparison import words
from demiglace.report.comparison.content import Comparison, Difference
from demiglace.report.comparison.words import Key
from demiglace.report.verdict import Verdict


def ranked(comparison: Comparison) -> list[Key]:
    """Students and methods that have all tasks, the best mean first."""
    sign = words.sign(comparison.metric)
    scored = [(score, key) for key in comparison.keys if (score := comparison.score(key)) is not None]
    return [key for _, key in sorted(scored, key=lambda found: -sign * found[0])]


def chosen(comparison: Comparison) -> Key | None:
    """The best that learnt from a teacher; the control where nothing else is there."""
    order = ranked(comparison)
    return next((k for k in order if comparison.control_of(k) != "none"), order[0] if order else None)


def answer(comparison: Comparison) -> Verdict:
    """What to ship and why; never more than the tests against the controls carry."""
    key = chosen(comparison)
    if key is None:
        return Verdict("No student has a score on every task yet.", _caveats(comparison), ())
    own = comparison.control_of(key) == "none"
    notes = (
        "" if own else _kept(comparison, key),
        "" if own else _against(comparison, key, "none", "the same student trained without a teacher"),
        "" if comparison.control_of(key) else _against(comparison, key, "vanilla-kd", "plain soft labels (vanilla-kd)"),
        _others(comparison, key),
        _how_chosen(comparison, key),
        *_caveats(comparison),
    )
    return Verdict(_headline(comparison, key), tuple(filter(None, notes)), _figures(comparison, key))


def _headline(comparison: Comparison, key: Key) -> str:
    name, ours = words.name_of(key, comparison), words.points(comparison.score(key), comparison.metric)
    what = "an average" if comparison.metric == "average" else words.in_full(comparison.metric)
    control = comparison.without_teacher(key)
    if comparison.control_of(key) == "none":
        return f"Only students without a teacher have scores on every task: {name} reaches {what} of {ours}."
    if control is None:
        return f"Of the students, {name} has the best mean, {what} of {ours}; no control tells what its teacher added."
    theirs = words.points(comparison.score(control), comparison.metric)
    tally = _tally(comparison, key, "none")
    if ranked(comparison)[0] == control:
        return f"Train without a teacher: none reaches {what} of {theirs}, and the best method, {name}, {ours}."
    if tally["better"] and not tally["worse"]:
        where = _where(comparison, tally["better"])
        return f"Ship {name}: {what} of {ours} against {theirs} without a teacher, significantly better{where}."
    start = f"{name} has the best mean: {what} of {ours} against {theirs} without a teacher"
    if tally["better"] or tally["worse"]:
        both = [f"{verdict} on {tally[verdict]}" for verdict in ("better", "worse") if tally[verdict]]
        return f"{start}, but significantly {words.listed(both)} of {len(comparison.tasks)} tasks."
    if tally[words.UNKNOWN] == tally.total():
        return f"{start}, with too few seeds to tell that from chance."
    return f"{start}, which is no significant difference from no teacher."


def _where(comparison: Comparison, tasks: int) -> str:
    total = len(comparison.tasks)
    if total == 1:
        return ""
    return " on every task" if tasks == total else f" on {tasks} of {total} tasks"


def _found(comparison: Comparison, key: Key, control: str) -> dict[str, Difference]:
    """By task, how the task's own set differs from the control."""
    cells = comparison.cells_of(key)
    return {c.task: found for c in cells if (found := c.own.against.get(control)) is not None}


def _tally(comparison: Comparison, key: Key, control: str) -> Counter[str]:
    return Counter(d.verdict for d in _found(comparison, key, control).values())


def _kept(comparison: Comparison, key: Key) -> str:
    ours, theirs = comparison.score(key), comparison.teacher_score()
    if not ours or not theirs or words.sign(comparison.metric) < 0:
        return ""
    score = words.points(theirs, comparison.metric)
    kept = (
        f"It keeps {wording.share(ours / theirs)} of what its teacher{_s(comparison)} reach{_es(comparison)} ({score})"
    )
    costs = [f"{_ratio(own, its)} of {thing}" for own, its, thing in _costs(comparison, key) if own is not None and its]
    return f"{kept}, at {words.listed(costs)}." if costs else f"{kept}."


def _s(comparison: Comparison) -> str:
    return "s" if len(comparison.tasks) > 1 else ""


def _es(comparison: Comparison) -> str:
    return "" if len(comparison.tasks) > 1 else "es"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{100 * (ours or 0) / (theirs or 1):.0f}\u00a0%"


def _costs(comparison: Comparison, key: Key) -> list[tuple[float | None, float | None, str]]:
    return [
        (comparison.cost(key, "size"), comparison.teacher_cost("size"), "the size"),
        (comparison.cost(key, "latency"), comparison.teacher_cost("latency"), "the latency"),
    ]


def _against(comparison: Comparison, key: Key, control: str, called: str) -> str:
    """Task by task what is better, worse, and not told apart."""
    found = _found(comparison, key, control)
    told = []
    for verdict in ("better", "worse"):
        hits = [_hit(comparison, key, task, d) for task, d in found.items() if d.verdict == verdict]
        told += [f"significantly {verdict} on {words.listed(hits)}"] if hits else []
    for verdict in ("no significant difference", words.UNKNOWN):
        rest = [wording.shorten(task, 40) for task, d in found.items() if d.verdict == verdict]
        where = "any task" if verdict != words.UNKNOWN else "every task"
        told += [f"{verdict} on {where if 1 < len(rest) == len(found) else words.listed(rest)}"] if rest else []
    return f"Against {called}: {'; '.join(told)}." if told else ""


def _hit(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    metric = next(c.own.metric for c in comparison.cells_of(key) if c.task == task)
    return f"{wording.shorten(task, 40)} {words.difference_in_words(found, metric, float(comparison.test['level']))}"


def _others(comparison: Comparison, key: Key) -> str:
    """Which other methods are significantly better than no teacher, and where."""
    found = []
    for other in comparison.keys:
        tasks = [t for t, d in _found(comparison, other, "none").items() if d.verdict == "better"]
        if other != key and tasks:
            found.append(f"{words.name_of(other, comparison)} ({', '.join(wording.shorten(t, 40) for t in tasks)})")
    if found:
        return f"Also significantly better than no teacher: {words.listed(found)}."
    tested = any(d.verdict != words.UNKNOWN for k in comparison.keys for d in _found(comparison, k, "none").values())
    none_at_all = tested and not _tally(comparison, key, "none")["better"]
    return "No method is significantly better than no teacher on any task." if none_at_all else ""


def _how_chosen(comparison: Comparison, key: Key) -> str:
    others = len(comparison.keys)
    if others < 3:
        return ""
    return (
        f"It was chosen among {others} by these same scores, which flatters it: the lead of the best over the next is "
        "not tested, only each method’s difference from the controls."
    )


def _caveats(comparison: Comparison) -> tuple[str, ...]:
    missing = [m for m in comparison.missing if m.status != "failed"]
    failed = len(comparison.missing) - len(missing)
    parts = [f"{words.count_of(failed, 'run')} failed"] if failed else []
    parts += (
        [f"{words.count_of(len(missing), 'run')} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    )
    if not parts:
        return ()
    return (f"{words.listed(parts)}: means are over the seeds there are, so not all rest on the same ones.",)


def _figures(comparison: Comparison, key: Key) -> tuple[tuple[str, str], ...]:
    metric, control = comparison.metric, comparison.without_teacher(key)
    what = words.in_full(metric)
    found = [(words.points(comparison.score(key), metric), f"{what} of {words.name_of(key, comparison)}")]
    if control is not None and control != key:
        found.append((words.points(comparison.score(control), metric), f"{what} without a teacher"))
    if comparison.teacher_score() is not None:
        found.append((words.points(comparison.teacher_score(), metric), f"{what} of the teacher{_s(comparison)}"))
    tested = _found(comparison, key, "none")
    if any(d.verdict != words.UNKNOWN for d in tested.values()):
        better = sum(d.verdict == "better" for d in tested.values())
        found.append(
            (
                f"{better} of {len(tested)}",
                f"{'task' if len(tested) == 1 else 'tasks'} significantly better than no teacher",
            )
        )
    for ours, theirs, thing in _costs(comparison, key):
        found += [(_ratio(ours, theirs), f"of the teacher’s {thing.removeprefix('the ')}")] if ours and theirs else []
    return tuple(found)
