"""The answer of a comparison in sentences: which student to ship, and whether distillation helped."""

from collections import Counter

from demiglace.evaluation.verdicts import NO_DIFFERENCE, UNKNOWN
from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.runs.verdict import Verdict
from demiglace.results.comparison import Comparison
from demiglace.results.metric_table import metric_of
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
    own, soft = comparison.baseline_of(key) == "none", "plain soft labels (vanilla-kd)"
    notes = (
        "" if own else best_student_note(comparison, key, ship),
        "" if own else retained_quality_note(comparison, ship),
        declared(comparison),
        *primary(comparison),
        "" if own else on_average(comparison, key),
        "" if own else against(comparison, key, "none", "the same student trained without a teacher"),
        "" if comparison.baseline_of(key) else against(comparison, key, "vanilla-kd", soft),
        higher_mean_note(comparison, key),
        other_methods_note(comparison, key),
        smaller_student_note(comparison, ship),
        how_chosen(comparison, key),
        *caveats(comparison),
    )
    return Verdict(_headline(comparison, key, ship), tuple(filter(None, notes)), _figures(comparison, key, ship))


def _headline(comparison: Comparison, key: Key, ship: Key) -> str:
    """Return one or two short sentences: whether a method helps, and what to ship. Names are in backticks."""
    if comparison.baseline_of(key) == "none":
        return f"Only students without a teacher have scores on every task; {_scored(comparison, key)} is the best."
    if comparison.baseline_of(ship) == "none":
        return f"{_no_method_wins(comparison)} Ship {_scored(comparison, ship)}."
    baseline = comparison.without_teacher(key)
    if baseline is None:
        lacks = any(c.baseline == "none" and c.student == key[0] for c in comparison.cells)
        clause = "its baseline without a teacher lacks a task" if lacks else "there is no baseline without a teacher"
        return f"{_scored(comparison, key)} has the best mean; {clause}."
    return _of_a_method(comparison, key, f"training without a teacher ({_score(comparison, baseline)})")


def _score(comparison: Comparison, key: Key) -> str:
    return format.score(comparison.score(key), comparison.metric)


def _scored(comparison: Comparison, key: Key) -> str:
    """Return a name in backticks with its score."""
    return f"`{labels.name_of(key, comparison)}` ({_score(comparison, key)})"


def _no_method_wins(comparison: Comparison) -> str:
    """Return the sentence about methods where a student without a teacher is shipped."""
    distilled = ranked_distilled(comparison)
    tested = any(verdicts(comparison, key) - {UNKNOWN} for key in distilled)
    subject = "No method" if _methods(comparison) else "Plain distillation"
    if not tested:
        verb = "has" if subject == "No method" else "has not"
        return f"{subject} {verb} a better mean than training without a teacher."
    if any("better" in verdicts(comparison, key) for key in distilled):
        return "No method is better overall than training without a teacher."
    return f"{subject} {'beats' if subject == 'No method' else 'does not beat'} training without a teacher."


def _methods(comparison: Comparison) -> list[Key]:
    """Return the students and methods with all tasks that are not baselines."""
    return [key for key in ranked(comparison) if not comparison.baseline_of(key)]


def _of_a_method(comparison: Comparison, key: Key, reference: str) -> str:
    """Return the headline about the best student with a teacher, where a test finds a gain or nothing can be tested.

    reference: the baseline in words, with its score.
    """
    counts, average = tally(comparison, key, "none"), average_of(comparison, key)
    better, worse = counts["better"], counts["worse"]
    exploratory = is_exploratory(comparison, key, "none")
    surely, by = ("", " in exploratory tests") if exploratory else ("significantly ", "")
    plain = comparison.baseline_of(key) == "vanilla-kd"
    name = f"{'the baseline ' if plain else ''}{_scored(comparison, key)}"
    first = "No method beats plain distillation. " if plain and _nothing_beats_soft_labels(comparison) else ""
    if average is not None and average.verdict == "better":
        but = f", but worse{_where(comparison, key, 'worse')}" if worse else ""
        return f"{first}Ship {name}: {surely}better than {reference} on average{by}{but}."
    if better and worse:
        tasks = f"on {better} and worse on {worse} of {counts.total()} tasks"
        return f"Choose task by task: {name} is {surely}better than {reference} {tasks}{by}."
    if better:
        return f"{first}Ship {name}: {surely}better than {reference}{_where(comparison, key, 'better')}{by}."
    start = f"{name[0].upper()}{name[1:]}" if plain else name
    return f"{start} has the best mean, but there are too few {comparison.unit}s to compare it with {reference}."


def _nothing_beats_soft_labels(comparison: Comparison) -> bool:
    """Return whether there are methods and no test finds one of them better than plain soft labels."""
    methods = _methods(comparison)
    tests = [d for key in methods for d in tests_of(comparison, key, "vanilla-kd").values()]
    tests += [d for key in methods if (d := comparison.against(key, "vanilla-kd")) is not None]
    return bool(tests) and all(d.verdict != "better" for d in tests)


def best_student_note(comparison: Comparison, key: Key, ship: Key) -> str:
    """Return how the best student with a teacher compares, where a student without one is shipped."""
    if comparison.baseline_of(ship) != "none" or comparison.without_teacher(key) is None:
        return ""
    start = f"The best student with a teacher, {labels.name_of(key, comparison)}, reaches {_score(comparison, key)}"
    cheapest = _is_cheapest(comparison, ship)
    cheap = f" {labels.name_of(ship, comparison)} is also the cheapest to train." if cheapest else ""
    if tally(comparison, key, "none")["worse"]:
        surely = "" if is_exploratory(comparison, key, "none") else "significantly "
        return f"{start}: {surely}worse{_where(comparison, key, 'worse')} and better on none.{cheap}"
    return f"{start}{_not_excluded(comparison, key)}.{cheap}"


def _not_excluded(comparison: Comparison, key: Key) -> str:
    """Return the detectable effect and the gain that is not excluded: no significant difference is not equality."""
    found, metric = comparison.against(key, "none"), comparison.metric
    if found is None or found.verdict == UNKNOWN:
        return ""
    clause = f": {format.verdict_in_words(found, metric)}"
    gain = None if found.interval is None else max(comparison.sign * end for end in found.interval)
    if gain is None or metric_of(metric).unit != "points" or gain < _WORTH_HAVING:
        return clause
    return f"{clause}; a gain of up to {format.size_in_words(gain, metric)} is not excluded"


def _where(comparison: Comparison, key: Key, verdict: str) -> str:
    """Return on which of the tested tasks a verdict holds; empty where there is one task."""
    found = tests_of(comparison, key, "none")
    hits = [task for task, d in found.items() if d.verdict == verdict]
    if len(comparison.tasks) == 1:
        return ""
    if len(found) == 1 and hits:
        return f" on {format.shorten(hits[0], 40)}"
    every = len(hits) == len(found)
    return " on every task" if every else f" on {len(hits)} of {len(found)} tasks"


def _is_cheapest(comparison: Comparison, key: Key) -> bool:
    """Return whether no other method of the same student takes less time, teacher capture included."""
    taken = {k: sum(found) for k in comparison.keys if k[0] == key[0] and (found := comparison.seconds(k)) is not None}
    return min(taken, key=lambda k: taken[k], default=None) == key


def _figures(comparison: Comparison, key: Key, ship: Key) -> tuple[tuple[str, str], ...]:
    metric, baseline, teacher = comparison.metric, comparison.without_teacher(key), comparison.teacher_score()
    what = metric_of(metric).phrase
    shown = dict.fromkeys((ship, key, *([] if baseline is None else [baseline])))
    found = [(format.score(comparison.score(k), metric), f"{what} {_of(comparison, k)}") for k in shown]
    if teacher is not None:
        s = "s" if len(comparison.tasks) > 1 else ""
        found.append((format.score(teacher, metric), f"{what} of the teacher{s}"))
    tested = tests_of(comparison, key, "none")
    if any(d.verdict != UNKNOWN for d in tested.values()):
        better = sum(d.verdict == "better" for d in tested.values())
        tasks = "task" if len(tested) == 1 else "tasks"
        exploratory = is_exploratory(comparison, key, "none")
        better_than = "better than no teacher, exploratory" if exploratory else "significantly better than no teacher"
        found.append((f"{better} of {len(tested)}", f"{tasks} {better_than}"))
    for own, other, thing in costs(comparison, ship):
        share = ratio(own, other) if own and other else ""
        whose = f": {format.shorten(ship[0], 40)}" if labels.has_students(comparison) else ""
        found += [(share, f"of the teacher’s {thing.removeprefix('the ')}{whose}")] if share else []
    return tuple(found)


def _of(comparison: Comparison, key: Key) -> str:
    """Return ``of rail-kd-l`` or ``without a teacher``; with the student where there are several."""
    if comparison.baseline_of(key) != "none":
        return f"of {labels.name_of(key, comparison)}"
    whose = f"of {format.shorten(key[0], 40)} " if labels.has_students(comparison) else ""
    return f"{whose}without a teacher"


def retained_quality_note(comparison: Comparison, key: Key) -> str:
    """Return the share of the teachers' score that a student keeps, and its costs."""
    own, other = comparison.score(key), comparison.teacher_score()
    if not own or not other or comparison.sign < 0:
        return ""
    score = format.score(other, comparison.metric)
    reached = "teachers reach" if len(comparison.tasks) > 1 else "teacher reaches"
    kept = f"{labels.name_of(key, comparison)} keeps {format.share(own / other)} of what the {reached} ({score})"
    parts = [f"{ratio(own, its)} of {thing}" for own, its, thing in costs(comparison, key) if own is not None and its]
    return f"{kept}, at {format.listed(parts)}." if parts else f"{kept}."


def ratio(own: float | None, other: float | None) -> str:
    """Return a ratio as ``77 %``."""
    return format.percent((own or 0) / (other or 1))


def costs(comparison: Comparison, key: Key) -> list[tuple[float | None, float | None, str]]:
    """Return the costs of a student and of its teacher, and what they are."""
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
    name = f"{labels.name_of((entry.student, entry.method), comparison)} − {format.shorten(entry.baseline, 40)}"
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


def against(comparison: Comparison, key: Key, baseline: str, called: str) -> str:
    """Return which tasks are better, worse, and without a significant difference."""
    found = tests_of(comparison, key, baseline)
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
    """Return a task without a finding, with the detectable effect."""
    seen = format.detectable(found, _metric(comparison, key, task))
    return f"{format.shorten(task, 40)} ({seen})" if seen else format.shorten(task, 40)


def _metric(comparison: Comparison, key: Key, task: str) -> str:
    return next(c.own.metric for c in comparison.cells_of(key) if c.task == task)


def _hit(comparison: Comparison, key: Key, task: str, found: Difference) -> str:
    text = format.difference_in_words(found, _metric(comparison, key, task), float(comparison.test["level"]))
    return f"{format.shorten(task, 40)} {text}"


def higher_mean_note(comparison: Comparison, key: Key) -> str:
    """Return the best mean with a teacher, where another student is chosen because a test finds it better."""
    best = next(iter(ranked_distilled(comparison)), key)
    if best == key:
        return ""
    score = format.score(comparison.score(best), comparison.metric)
    worse = "worse" in verdicts(comparison, best)
    but = "is significantly worse than no teacher on a task" if worse else "no test finds it better than no teacher"
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
    """Return the tasks on which a student and method is better than no teacher."""
    return [task for task, d in tests_of(comparison, key, "none").items() if d.verdict == "better"]


def smaller_student_note(comparison: Comparison, key: Key) -> str:
    """Return the best method of every smaller student; no test compares students."""
    size, score = comparison.cost(key, "parameters"), comparison.score(key)
    found: dict[str, str] = {}
    for other in ranked(comparison):
        its, reached = comparison.cost(other, "parameters"), comparison.score(other)
        if size and its and its < size and other[0] not in found and score is not None and reached is not None:
            lead = format.signed(reached - score, comparison.metric)
            reaches = f"{format.score(reached, comparison.metric)} ({lead})"
            found[other[0]] = f"{labels.name_of(other, comparison)} reaches {reaches} with {ratio(its, size)}"
    if not found:
        return ""
    smaller = format.listed(list(found.values()))
    return f"Smaller: {smaller} of the parameters; differences between students are not tested."


def how_chosen(comparison: Comparison, key: Key) -> str:
    """Return the caveat that choosing the best of many by their scores flatters it."""
    count = len(ranked_distilled(comparison))
    if count < 2 or comparison.baseline_of(key) == "none":
        return ""
    return (
        f"{labels.name_of(key, comparison)} was chosen from {count} students with a teacher by these same scores, "
        "which flatters it. Its lead over the next is not tested, only each method’s difference from the baselines."
    )


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """Return the caveats about all scores."""
    return tuple(filter(None, (_flattered(comparison), _gaps(comparison), _absent(comparison))))


def _flattered(comparison: Comparison) -> str:
    """Return where the best epoch was chosen on the reported rows."""
    tasks = list(dict.fromkeys(format.shorten(c.task, 40) for c in comparison.cells if c.selected_on_test_rows))
    if not tasks:
        return ""
    where = "" if len(tasks) == len(comparison.tasks) else f" on {format.listed(tasks)}"
    return (
        f"The best epoch was chosen on the reported rows{where}: those scores are a little high, for all methods "
        "alike. “holdout_from_train: true” in the grid avoids it."
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
    return f"{format.listed(parts)}: means are over the finished {comparison.unit}s, which differ between methods."


def _absent(comparison: Comparison) -> str:
    """Return the tasks and methods without a finished run, which no table has."""
    there = {cell.method for cell in comparison.cells}
    tasks = dict.fromkeys(m.task for m in comparison.missing if m.task and m.task not in comparison.tasks)
    methods = dict.fromkeys(m.method for m in comparison.missing if m.method and m.method not in there)
    names = [format.shorten(name, 40) for name in (*tasks, *methods)]
    return f"No run of {format.listed(names)} is finished: tables and means are without them." if names else ""
