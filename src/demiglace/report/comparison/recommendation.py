"""The answer of a comparison in sentences: which student to ship, and whether its teacher was worth the trouble."""

from collections import Counter

from demiglace.evaluation.verdicts import NO_DIFFERENCE, UNKNOWN
from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.runs.verdict import Verdict
from demiglace.results import metrics
from demiglace.results.comparison import Comparison
from demiglace.results.ranking import (
    average_of,
    chosen,
    is_exploratory,
    ranked,
    ranked_distilled,
    shipped,
    tally,
    tests_of,
    verdicts,
)
from demiglace.results.schema import Difference, Key, Primary

_WORTH_HAVING = 0.01  # a point


_MOST_PRIMARY = 6  # sentences about primary tests; the table has all of them


def answer(comparison: Comparison) -> Verdict:
    """Return what to ship and why; no more than the tests support."""
    key, ship = chosen(comparison), shipped(comparison)
    if key is None or ship is None:
        known = (declared(comparison), *caveats(comparison))
        return Verdict("No student has a score on every task yet.", tuple(filter(None, known)), ())
    own, soft = comparison.control_of(key) == "none", "plain soft labels (vanilla-kd)"
    notes = (
        declared(comparison),
        *primary(comparison),
        "" if own else retained_quality_note(comparison, ship),
        "" if own else on_average(comparison, key),
        "" if own else against(comparison, key, "none", "the same student trained without a teacher"),
        "" if comparison.control_of(key) else against(comparison, key, "vanilla-kd", soft),
        higher_mean_note(comparison, key),
        other_methods_note(comparison, key),
        smaller_student_note(comparison, ship),
        how_chosen(comparison, key),
        *caveats(comparison),
    )
    return Verdict(_headline(comparison, key, ship), tuple(filter(None, notes)), _figures(comparison, key, ship))


def _headline(comparison: Comparison, key: Key, ship: Key) -> str:
    name, ours = labels.name_of(key, comparison), format.points(comparison.score(key), comparison.metric)
    what = "an average" if comparison.metric == "average" else format.metric_title(comparison.metric)
    control = comparison.without_teacher(key)
    if comparison.control_of(key) == "none":
        return f"Only students without a teacher have scores on every task: {name} reaches {what} of {ours}."
    plain = f"the student trained without a teacher ({labels.name_of(ship, comparison)})"
    theirs = format.points(comparison.score(ship), comparison.metric)
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
    theirs = format.points(comparison.score(control), comparison.metric)
    return _of_a_method(comparison, key, f"{what} of {ours} against {theirs} without a teacher")


def _not_excluded(comparison: Comparison, key: Key) -> str:
    """The detectable effect, and the gain that is not excluded, so that "no difference" is not taken for "equal"."""
    found = comparison.against(key, "none")
    if found is None:
        return ""
    seen = format.could_have_seen(found, comparison.metric)
    clause = f" ({seen})" if seen else ""
    if (
        found.interval is None
        or not metrics.in_points(comparison.metric)
        or (gain := found.interval[1]) < _WORTH_HAVING
    ):
        return clause
    return f"{clause}; a gain of up to {format.points(gain, comparison.metric)} is not excluded"


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
        mean = "" if average is None else f"; on average {format.verdict_in_words(average, 'average')}"
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
    what = format.metric_title(metric)
    shown = dict.fromkeys((ship, key, *([] if control is None else [control])))
    found = [(format.points(comparison.score(k), metric), f"{what} {_of(comparison, k)}") for k in shown]
    if teacher is not None:
        s = "s" if len(comparison.tasks) > 1 else ""
        found.append((format.points(teacher, metric), f"{what} of the teacher{s}"))
    tested = tests_of(comparison, key, "none")
    if any(d.verdict != UNKNOWN for d in tested.values()):
        better = sum(d.verdict == "better" for d in tested.values())
        tasks = "task" if len(tested) == 1 else "tasks"
        exploratory = is_exploratory(comparison, key, "none")
        better_than = "better than no teacher, exploratory" if exploratory else "significantly better than no teacher"
        found.append((f"{better} of {len(tested)}", f"{tasks} {better_than}"))
    for ours, theirs, thing in costs(comparison, ship):
        share = ratio(ours, theirs) if ours and theirs else ""
        whose = f": {format.shorten(ship[0], 40)}" if labels.has_students(comparison) else ""
        found += [(share, f"of the teacher’s {thing.removeprefix('the ')}{whose}")] if share else []
    return tuple(found)


def _of(comparison: Comparison, key: Key) -> str:
    """``of rail-kd-l``, ``without a teacher``; with the student where there are several."""
    if comparison.control_of(key) != "none":
        return f"of {labels.name_of(key, comparison)}"
    whose = f"of {format.shorten(key[0], 40)} " if labels.has_students(comparison) else ""
    return f"{whose}without a teacher"


def retained_quality_note(comparison: Comparison, key: Key) -> str:
    """The share of the teachers' score, and at which costs."""
    ours, theirs = comparison.score(key), comparison.teacher_score()
    if not ours or not theirs or metrics.sign(comparison.metric) < 0:
        return ""
    score = format.points(theirs, comparison.metric)
    reached = "teachers reach" if len(comparison.tasks) > 1 else "teacher reaches"
    said = f"{labels.name_of(key, comparison)} keeps {format.share(ours / theirs)} of what the {reached} ({score})"
    parts = [f"{ratio(own, its)} of {thing}" for own, its, thing in costs(comparison, key) if own is not None and its]
    return f"{said}, at {format.listed(parts)}." if parts else f"{said}."


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
    text = format.listed([f"{count} {verdict}" for verdict, count in counts.items()])
    return (f"Of {len(tests)} primary contrasts: {text}.",)


def _primary(comparison: Comparison, entry: Primary) -> str:
    name = f"{labels.name_of((entry.student, entry.method), comparison)} − {format.shorten(entry.control, 40)}"
    on = format.listed([format.shorten(task, 40) for task in entry.tasks])
    where = f"on average over {on}" if entry.average else f"on {on}"
    if entry.test is None or entry.metric is None:
        return f"Primary: {name} {where}: not tested, runs are missing."
    test, metric = entry.test, entry.metric
    text = format.difference_in_words(test, metric, float(comparison.test["level"]))
    p, verdict = format.probability(test.p_corrected), format.verdict_in_words(test, metric)
    equal = "" if entry.equivalence is None else f"; {format.equivalence_in_words(entry.equivalence, metric)}"
    return f"Primary: {name} {where}: {text}, corrected p {p}: {verdict}{equal}."


def on_average(comparison: Comparison, key: Key) -> str:
    """Return the test of the average over the tasks."""
    found = average_of(comparison, key)
    if found is None or found.verdict == UNKNOWN:
        return ""
    text = format.difference_in_words(found, "average", float(comparison.test["level"]))
    decided = found.verdict in ("better", "worse")
    verdict = format.adverb(found) if decided else format.verdict_in_words(found, "average")
    p = format.probability(found.p if found.exploratory else found.p_corrected)
    kind = "uncorrected" if found.exploratory else "corrected"
    name = labels.name_of(key, comparison)
    return f"On average over the tasks {name} differs from no teacher by {text}, {kind} p {p}: {verdict}."


def against(comparison: Comparison, key: Key, control: str, called: str) -> str:
    """Return which tasks are better, worse, and without a significant difference."""
    found = tests_of(comparison, key, control)
    parts = []
    for verdict in ("better", "worse"):
        hits = [(task, d) for task, d in found.items() if d.verdict == verdict]
        where = format.listed([_hit(comparison, key, task, d) for task, d in hits]) if hits else ""
        parts += [f"{format.adverb(hits[0][1])} on {where}"] if hits else []
    for verdict in (NO_DIFFERENCE, UNKNOWN):
        rest = [_without(comparison, key, task, d) for task, d in found.items() if d.verdict == verdict]
        parts += [f"{verdict} on {format.listed(rest)}"] if rest else []
    return f"{labels.name_of(key, comparison)} against {called}: {'; '.join(parts)}." if parts else ""


def _without(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    """A task without a finding, with the effect that could have been seen."""
    seen = format.could_have_seen(found, _metric(comparison, key, task))
    return f"{format.shorten(task, 40)} ({seen})" if seen else format.shorten(task, 40)


def _metric(comparison: Comparison, key: Key, task: str) -> str:
    return next(c.own.metric for c in comparison.cells_of(key) if c.task == task)


def _hit(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    text = format.difference_in_words(found, _metric(comparison, key, task), float(comparison.test["level"]))
    return f"{format.shorten(task, 40)} {text}"


def higher_mean_note(comparison: Comparison, key: Key) -> str:
    """The best mean of those with a teacher, where another one is chosen because a test tells it from no teacher."""
    best = next(iter(ranked_distilled(comparison)), key)
    if best == key:
        return ""
    score = format.points(comparison.score(best), comparison.metric)
    worse = "worse" in verdicts(comparison, best)
    but = "is significantly worse than no teacher somewhere" if worse else "no test tells it from no teacher"
    return f"{labels.name_of(best, comparison)} has the higher mean ({score}), but {but}."


def other_methods_note(comparison: Comparison, key: Key) -> str:
    """Return which other methods are better than no teacher, and where; primary and exploratory tests apart."""
    sure, exploratory = (
        [
            f"{labels.name_of(other, comparison)} ({', '.join(format.shorten(t, 40) for t in tasks)})"
            for other in comparison.keys
            if other != key and is_exploratory(comparison, other, "none") == kind and (tasks := _won(comparison, other))
        ]
        for kind in (False, True)
    )
    sentences = [f"Significantly better than no teacher: {format.listed(sure)}."] if sure else []
    sentences += [f"Better than no teacher in exploratory tests: {format.listed(exploratory)}."] if exploratory else []
    if sentences or _won(comparison, key):
        return " ".join(sentences)
    tested = any(d.verdict != UNKNOWN for k in comparison.keys for d in tests_of(comparison, k, "none").values())
    return "No method is significantly better than no teacher on any task." if tested else ""


def _won(comparison: Comparison, key: Key) -> list[str]:
    """The tasks on which a student and method is better than no teacher."""
    return [task for task, d in tests_of(comparison, key, "none").items() if d.verdict == "better"]


def smaller_student_note(comparison: Comparison, key: Key) -> str:
    """The best of every student that is smaller, whose distance no test measures."""
    size, score = comparison.cost(key, "parameters"), comparison.score(key)
    found: dict[str, str] = {}
    for other in ranked(comparison):
        its, reached = comparison.cost(other, "parameters"), comparison.score(other)
        if size and its and its < size and other[0] not in found and score is not None and reached is not None:
            lead = format.signed(reached - score, comparison.metric)
            reaches = f"{format.points(reached, comparison.metric)} ({lead})"
            found[other[0]] = f"{labels.name_of(other, comparison)} reaches {reaches} with {ratio(its, size)}"
    if not found:
        return ""
    smaller = format.listed(list(found.values()))
    return f"Smaller: {smaller} of the parameters; differences between students are not tested."


def how_chosen(comparison: Comparison, key: Key) -> str:
    """That the best of many by their scores is selected_on_test_rows by them."""
    count = len(ranked_distilled(comparison))
    if count < 2 or comparison.control_of(key) == "none":
        return ""
    return (
        f"{labels.name_of(key, comparison)} was chosen from {count} with a teacher by these same scores, which "
        "flatters it: its lead over the next is not tested, only each method’s difference from the controls."
    )


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """What holds of all scores."""
    return tuple(filter(None, (_flattered(comparison), _gaps(comparison), _absent(comparison))))


def _flattered(comparison: Comparison) -> str:
    """Where the rows that chose the best epoch are those that results are told of."""
    tasks = list(dict.fromkeys(format.shorten(c.task, 40) for c in comparison.cells if c.selected_on_test_rows))
    if not tasks:
        return ""
    where = "" if len(tasks) == len(comparison.tasks) else f" on {format.listed(tasks)}"
    return (
        f"The best epoch was chosen on the very rows that results are told of{where}: those scores are a little high, "
        "of all methods alike; “holdout_from_train: true” in the grid avoids it."
    )


def _gaps(comparison: Comparison) -> str:
    missing = [m for m in comparison.missing if m.status != "failed"]
    failed = len(comparison.missing) - len(missing)
    parts = [f"{format.count_of(failed, 'run')} failed"] if failed else []
    parts += (
        [f"{format.count_of(len(missing), 'run')} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    )
    if not parts:
        return ""
    return f"{format.listed(parts)}: means are over the finished {comparison.unit}s, and not all over the same ones."


def _absent(comparison: Comparison) -> str:
    """Tasks and methods of which nothing is finished, so that no table has them."""
    there = {cell.method for cell in comparison.cells}
    tasks = dict.fromkeys(m.task for m in comparison.missing if m.task and m.task not in comparison.tasks)
    methods = dict.fromkeys(m.method for m in comparison.missing if m.method and m.method not in there)
    names = [format.shorten(name, 40) for name in (*tasks, *methods)]
    return f"Of {format.listed(names)} no run is finished: no table and no mean holds them." if names else ""
