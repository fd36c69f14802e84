"""The answer of a comparison in sentences: which student to ship, and whether its teacher was worth the trouble."""

from demiglace.report import format
from demiglace.report.comparison import labels, reasons
from demiglace.report.comparison.labels import Key
from demiglace.report.runs.verdict import Verdict
from demiglace.results.comparison import Comparison
from demiglace.results.ranking import average_of, chosen, is_exploratory, ranked, shipped, tally, tests_of

_WORTH_HAVING = 0.01  # a point


def answer(comparison: Comparison) -> Verdict:
    """Return what to ship and why; no more than the tests support."""
    key, ship = chosen(comparison), shipped(comparison)
    if key is None or ship is None:
        known = (reasons.declared(comparison), *reasons.caveats(comparison))
        return Verdict("No student has a score on every task yet.", tuple(filter(None, known)), ())
    own, soft = comparison.control_of(key) == "none", "plain soft labels (vanilla-kd)"
    notes = (
        reasons.declared(comparison),
        *reasons.primary(comparison),
        "" if own else reasons.kept(comparison, ship),
        "" if own else reasons.on_average(comparison, key),
        "" if own else reasons.against(comparison, key, "none", "the same student trained without a teacher"),
        "" if comparison.control_of(key) else reasons.against(comparison, key, "vanilla-kd", soft),
        reasons.higher(comparison, key),
        reasons.others(comparison, key),
        reasons.smaller(comparison, ship),
        reasons.how_chosen(comparison, key),
        *reasons.caveats(comparison),
    )
    return Verdict(_headline(comparison, key, ship), tuple(filter(None, notes)), _figures(comparison, key, ship))


def _headline(comparison: Comparison, key: Key, ship: Key) -> str:
    name, ours = labels.name_of(key, comparison), labels.points(comparison.score(key), comparison.metric)
    what = "an average" if comparison.metric == "average" else labels.in_full(comparison.metric)
    control = comparison.without_teacher(key)
    if comparison.control_of(key) == "none":
        return f"Only students without a teacher have scores on every task: {name} reaches {what} of {ours}."
    plain = f"the student trained without a teacher ({labels.name_of(ship, comparison)})"
    theirs = labels.points(comparison.score(ship), comparison.metric)
    if ranked(comparison)[0] == ship != key:
        return f"Ship {plain}: it reaches {what} of {theirs}, and the best method, {name}, {ours}."
    if control is None:
        lacks = any(c.control == "none" and c.student == key[0] for c in comparison.cells)
        clause = "its control without a teacher lacks a task" if lacks else "no control tells what its teacher added"
        return f"Of the students, {name} has the best mean, {what} of {ours}; {clause}."
    if ship == control:
        cheapest = "the cheapest to train" if _is_cheapest(comparison, control) else "which needs no teacher"
        worse = _where(comparison, key, "worse")
        apart = f"does not differ significantly from its {theirs}{_not_excluded(comparison, key)}"
        exploratory = is_exploratory(comparison, key, "none")
        by = ", in exploratory tests" if exploratory else ""
        lower = f"is {'' if exploratory else 'significantly '}worse{worse} and better on none{by}"
        clause = lower if tally(comparison, key, "none")["worse"] else apart
        return f"Ship {plain}, {cheapest}: the best mean, {what} of {ours} by {name}, {clause}."
    theirs = labels.points(comparison.score(control), comparison.metric)
    return _of_a_method(comparison, key, f"{what} of {ours} against {theirs} without a teacher")


def _not_excluded(comparison: Comparison, key: Key) -> str:
    """The detectable effect, and the gain that is not excluded, so that "no difference" is not taken for "equal"."""
    found = comparison.against(key, "none")
    if found is None:
        return ""
    seen = labels.could_have_seen(found, comparison.metric)
    clause = f" ({seen})" if seen else ""
    if found.interval is None or not labels.in_points(comparison.metric) or (gain := found.interval[1]) < _WORTH_HAVING:
        return clause
    return f"{clause}; a gain of up to {labels.points(gain, comparison.metric)} is not excluded"


def _of_a_method(comparison: Comparison, key: Key, scores: str) -> str:
    """The headline about the best method, where a test finds it different from no teacher, or nothing can be tested."""
    name, counts, average = labels.name_of(key, comparison), tally(comparison, key, "none"), average_of(comparison, key)
    better, worse = counts["better"], counts["worse"]
    where = _where(comparison, key, "better")
    exploratory = is_exploratory(comparison, key, "none")
    surely = "" if exploratory else "significantly "
    by = " (exploratory tests, uncorrected)" if exploratory else ""
    if average is not None and average.verdict == "better":
        also, but = f" and{where}" if better else "", f", but worse{_where(comparison, key, 'worse')}" if worse else ""
        return f"Ship {name}: {scores}, {surely}better on average{also}{but}{by}."
    if better and worse:
        both = f"{surely}better on {better} and worse on {worse} of {counts.total()} tasks{by}"
        return f"{name} has the best mean: {scores}, but is {both}: choose task by task."
    if better:
        mean = "" if average is None else f"; on average {labels.verdict_in_words(average, 'average')}"
        return f"Ship {name}: {scores}, {surely}better{where}{by}{mean}."
    return f"{name} has the best mean: {scores}, with too few {comparison.unit}s to tell that from chance."


def _where(comparison: Comparison, key: Key, verdict: str) -> str:
    """On which of the tested tasks a verdict holds; empty where there is one task."""
    found = tests_of(comparison, key, "none")
    hits = [task for task, d in found.items() if d.verdict == verdict]
    if len(comparison.tasks) == 1:
        return ""
    if len(found) == 1 and hits:
        return f" on {format.shorten(hits[0], 40)}"
    every = len(hits) == len(found)
    return " on every task" if every else f" on {len(hits)} of {len(found)} tasks"


def _is_cheapest(comparison: Comparison, key: Key) -> bool:
    """Whether no other method of the same student takes less time, the capture of its teacher included."""
    taken = {k: sum(found) for k in comparison.keys if k[0] == key[0] and (found := comparison.seconds(k)) is not None}
    return min(taken, key=lambda k: taken[k], default=None) == key


def _figures(comparison: Comparison, key: Key, ship: Key) -> tuple[tuple[str, str], ...]:
    metric, control, teacher = comparison.metric, comparison.without_teacher(key), comparison.teacher_score()
    what = labels.in_full(metric)
    shown = dict.fromkeys((ship, key, *([] if control is None else [control])))
    found = [(labels.points(comparison.score(k), metric), f"{what} {_of(comparison, k)}") for k in shown]
    if teacher is not None:
        s = "s" if len(comparison.tasks) > 1 else ""
        found.append((labels.points(teacher, metric), f"{what} of the teacher{s}"))
    tested = tests_of(comparison, key, "none")
    if any(d.verdict != labels.UNKNOWN for d in tested.values()):
        better = sum(d.verdict == "better" for d in tested.values())
        tasks = "task" if len(tested) == 1 else "tasks"
        exploratory = is_exploratory(comparison, key, "none")
        better_than = "better than no teacher, exploratory" if exploratory else "significantly better than no teacher"
        found.append((f"{better} of {len(tested)}", f"{tasks} {better_than}"))
    for ours, theirs, thing in reasons.costs(comparison, ship):
        share = reasons.ratio(ours, theirs) if ours and theirs else ""
        whose = f": {format.shorten(ship[0], 40)}" if labels.has_students(comparison) else ""
        found += [(share, f"of the teacher’s {thing.removeprefix('the ')}{whose}")] if share else []
    return tuple(found)


def _of(comparison: Comparison, key: Key) -> str:
    """``of rail-kd-l``, ``without a teacher``; with the student where there are several."""
    if comparison.control_of(key) != "none":
        return f"of {labels.name_of(key, comparison)}"
    whose = f"of {format.shorten(key[0], 40)} " if labels.has_students(comparison) else ""
    return f"{whose}without a teacher"
