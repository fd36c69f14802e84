"""The answer in sentences: what the student keeps, what it saves, what the teacher added."""

import math
from dataclasses import dataclass

from demiglace.report import format
from demiglace.report.runs.schema import Artefact, Experiment, Model, RunReport
from demiglace.results.metric_table import metric_of
from demiglace.runs.artefacts import EXPORT
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.tasks.registry import predicts_classes

_LANGUAGE = (LANGUAGE_MODELLING.name, "language")  # the second: in manifests of version 0.1


@dataclass(frozen=True)
class Verdict:
    """The answer of a page."""

    headline: str
    notes: tuple[str, ...]  # sentences that qualify the headline
    figures: tuple[tuple[str, str], ...]  # (value, description)


def verdict(experiment: Experiment, page: RunReport) -> Verdict | None:
    """Return the answer for one task; None where no model has a score.

    Of several students it is about the one with the best validation score: the test rows choose nothing.
    """
    scored = [m for m in experiment.models if experiment.score(m) is not None]
    if not scored:
        return None
    students = [m for m in scored if m.role == "distilled"]
    if not students:
        return Verdict(_plain(experiment, scored[0]), (noise(experiment, scored[0]),), ())
    student = _best(experiment, students)
    teacher = next((m for m in scored if m.name == student.teacher), None)
    baseline = baseline_of(student, scored)
    headline = _plain(experiment, student) if teacher is None else _kept(experiment, student, teacher)
    notes = (
        _choice(students, student),
        "" if baseline is None else against_baseline(experiment, student, baseline),
        noise(experiment, student),
        _smallest(student, teacher, experiment.metrics[0], page.artefacts),
    )
    return Verdict(headline, tuple(filter(None, notes)), _figures(experiment, student, teacher))


def _best(experiment: Experiment, students: list[Model]) -> Model:
    metric = experiment.metrics[0]
    sign = 1 if metric_of(metric).higher_is_better else -1

    def chosen_by(model: Model) -> float:
        value = model.scores.get("validation", {}).get(metric)
        return -math.inf if value is None else sign * value

    return max(students, key=chosen_by)


def _plain(experiment: Experiment, model: Model) -> str:
    metric = experiment.metrics[0]
    value = format.score(experiment.score(model), metric)
    return f"The {_called(model)} reaches {metric_of(metric).phrase} {value} on {rows_in_words(experiment, model)}."


def _called(model: Model) -> str:
    depth = "" if model.layers is None else f"{model.layers:.0f}-layer " if model.layers else "static "
    return depth + ("student" if model.role in ("distilled", "baseline") else "model")


def _kept(experiment: Experiment, student: Model, teacher: Model) -> str:
    metric = experiment.metrics[0]
    own, its = experiment.score(student), experiment.score(teacher)
    assert own is not None and its is not None
    name, shown, other = metric_of(metric).phrase, format.score(own, metric), format.score(its, metric)
    if its > 0 and metric_of(metric).higher_is_better:
        verb = "keeps" if own <= its else "reaches"
        quality = f"{verb} {format.share(own / its)} of the teacher’s {name} ({shown} against {other})"
    else:
        quality = f"has {name} {shown} against the teacher’s {other}"
    saved = " and ".join(filter(None, (_size(student, teacher), _speed(student, teacher))))
    return f"The {_called(student)} {quality}{' ' if saved else ''}{saved}."


def _size(student: Model, teacher: Model) -> str:
    if student.size and teacher.size:
        return f"at {format.percent(student.size / teacher.size)} of its size"
    if student.parameters and teacher.parameters:
        return f"with {format.percent(student.parameters / teacher.parameters)} of its parameters"
    return ""


def _speed(student: Model, teacher: Model) -> str:
    if student.latency is None or teacher.latency is None:
        return ""
    ratio = teacher.latency.p50 / student.latency.p50
    return f"{format.times(ratio)}× lower latency" if ratio >= 1 else f"{format.times(1 / ratio)}× higher latency"


def _choice(students: list[Model], chosen: Model) -> str:
    if len(students) == 1:
        return ""
    name = f"{format.shorten(chosen.name)} ({format.shorten(chosen.method)})"
    return f"Of {len(students)} distilled students this is {name}, the best on the validation rows."


def _smallest(student: Model, teacher: Model | None, metric: str, artefacts: tuple[Artefact, ...]) -> str:
    """Return the size, speed, score and parity of the student's smallest exported file."""
    exported = [a for a in artefacts if a.model == student.name and a.role == EXPORT and a.size]
    if not exported:
        return ""
    a = min(exported, key=lambda a: a.size or math.inf)
    facts = [f"takes {format.size(a.size)}"]
    latency = a.latency.get(1)
    if latency is not None:
        facts.append(f"answers in {format.milliseconds(latency.p50)} (median, one row at a time)")
        if teacher is not None and teacher.latency is not None:
            facts[-1] += f" against {format.milliseconds(teacher.latency.p50)} for the PyTorch teacher"
    if decode := a.tokens_per_second.get("decode"):
        facts.append(f"writes {format.rate(decode)} tokens per second (median, one text at a time)")
    if metric in a.scores:
        facts.append(f"scores {format.score(a.scores[metric], metric)} itself")
    if a.label_agreement is not None and student.problem in _LANGUAGE:
        share = format.share(a.label_agreement)
        facts.append(f"predicts the PyTorch student’s next token after {share} of the tokens checked")
    elif a.label_agreement is not None:
        facts.append(f"gives the PyTorch student’s label for {format.share(a.label_agreement)} of the rows checked")
    return f"As {a.name} it {format.listed(facts)}."


def _figures(experiment: Experiment, student: Model, teacher: Model | None) -> tuple[tuple[str, str], ...]:
    metric = experiment.metrics[0]
    found = [(format.score(experiment.score(student), metric), f"{metric_of(metric).phrase} of the student")]
    if teacher is not None:
        found.append((format.score(experiment.score(teacher), metric), f"{metric_of(metric).phrase} of the teacher"))
        if student.parameters and teacher.parameters:
            found.append((format.percent(student.parameters / teacher.parameters), "of the teacher’s parameters"))
        if student.latency is not None and teacher.latency is not None:
            found.append((f"{format.times(teacher.latency.p50 / student.latency.p50)}×", "as fast as the teacher"))
    if student.agreement is not None and predicts_classes(student.problem):
        found.append((format.share(student.agreement), "same label as the teacher"))
    return tuple(found)


def baseline_of(student: Model, models: list[Model]) -> Model | None:
    """Return the baseline with the student's depth, and with its seed if there is one."""
    baselines = [m for m in models if m.role == "baseline" and m.layers == student.layers]
    return next((m for m in baselines if m.seed == student.seed), baselines[0] if baselines else None)


def against_baseline(experiment: Experiment, student: Model, baseline: Model) -> str:
    """Return how the baseline compares with the student, and what the gap means."""
    metric = experiment.metrics[0]
    shown, other = experiment.score(student), experiment.score(baseline)
    assert shown is not None and other is not None
    start = "The baseline, a student of the same depth trained without the teacher’s signals, reaches"
    value = format.score(other, metric)
    gap = abs(shown - other)
    size = format.size_in_words(gap, metric)
    if format.score(shown, metric) == value:
        return f"{start} the same {value}: no gain from the teacher is visible here."
    direction = "less" if other < shown else "more"
    better = (shown > other) == metric_of(metric).higher_is_better
    return f"{start} {value}, {size} {direction}: {_meaning(experiment, student, gap, better)}."


def noise(experiment: Experiment, model: Model) -> str:
    """Return how large a difference has to be to mean anything."""
    width = _noise_of(experiment, model)
    if width is None:
        limit = "small differences are noise."
    else:
        limit = f"on {rows_in_words(experiment, model)}, differences under about {100 * width:.1f} points are noise."
    chosen = "" if experiment.split == "test" else " These rows also chose the best epoch, which flatters every model."
    return f"Each model is one run with one seed: {limit}{chosen}"


def noise_of(accuracy: float, rows: float) -> float:
    """Return the half-width of the 95 % interval of a difference of two accuracies, each from `rows` rows.

    1.96 · sqrt(2 p (1 − p) / n): sampling noise of the rows as if drawn independently. The models share their rows,
    which narrows it, and a second seed would widen it; it is a rule of thumb and no test.
    """
    return 1.96 * math.sqrt(2 * accuracy * (1 - accuracy) / rows)


def _meaning(experiment: Experiment, student: Model, gap: float, better: bool) -> str:
    width = _noise_of(experiment, student)
    if not better:
        text = "the distilled student is not better here"
        return text if width is None or gap < width else f"{text}, by more than the noise of the rows"
    if width is None:
        return "a gain from the teacher, seen with one seed"
    if gap < width:
        return "too little to tell from noise"
    return "more than the noise of the rows; repeat it with other seeds before you rely on it"


def _noise_of(experiment: Experiment, model: Model) -> float | None:
    rows, value = model.rows.get(experiment.split), experiment.score(model)
    if not experiment.metrics or experiment.metrics[0] != "accuracy" or not rows or value is None:
        return None
    return noise_of(value, rows)


def noise_of_experiment(experiment: Experiment) -> float | None:
    """Return the noise of a difference between two models of a task; None where the metric is not accuracy."""
    widths = [width for m in experiment.models if (width := _noise_of(experiment, m)) is not None]
    return max(widths, default=None)


def rows_in_words(experiment: Experiment, model: Model) -> str:
    """Return the compared rows: ``3,080 test rows``."""
    n = model.rows.get(experiment.split)
    return f"the {experiment.split} rows" if n is None else f"{format.count(n)} {experiment.split} rows"
