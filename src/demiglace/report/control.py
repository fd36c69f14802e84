"""What the teacher added: a student against its control, and how much of that one run could show by chance."""

import math

from demiglace.report import format
from demiglace.report.runs.schema import Experiment, Model


def control_of(student: Model, models: list[Model]) -> Model | None:
    """The control of the student's depth, that of its seed if there is one."""
    controls = [m for m in models if m.role == "control" and m.layers == student.layers]
    return next((m for m in controls if m.seed == student.seed), controls[0] if controls else None)


def against_control(experiment: Experiment, student: Model, control: Model) -> str:
    """The control's score beside the student's, and what the gap between them means; never more than it does."""
    metric = experiment.metrics[0]
    measure = format.measure(metric)
    ours, theirs = experiment.score(student), experiment.score(control)
    assert ours is not None and theirs is not None
    start = "The control, a student of the same depth trained without the teacher’s signals, reaches"
    value = format.score(theirs, metric)
    gap = abs(ours - theirs)
    size = f"{100 * gap:.1f} points" if measure.percent else f"{gap:.3f}"
    if format.score(ours, metric) == value:
        return f"{start} the same {value}: no gain from the teacher is visible here."
    direction = "less" if theirs < ours else "more"
    better = (ours > theirs) == measure.higher_is_better
    return f"{start} {value}, {size} {direction}: {_meaning(experiment, student, gap, better)}."


def noise(experiment: Experiment, model: Model) -> str:
    """How large a difference has to be to mean anything."""
    width = _noise_of(experiment, model)
    if width is None:
        told = "small differences are noise."
    else:
        told = f"on {rows_in_words(experiment, model)}, differences under about {100 * width:.1f} points are noise."
    chosen = "" if experiment.split == "test" else " These rows also chose the best epoch, which flatters every model."
    return f"Each model is one run with one seed: {told}{chosen}"


def noise_of(accuracy: float, rows: float) -> float:
    """Half-width of the 95 % interval of a difference of two accuracies near `accuracy`, each from `rows` rows.

    1.96 · sqrt(2 p (1 − p) / n): sampling noise of the rows as if drawn independently. The models share their rows,
    which narrows it, and a second seed would widen it; it is a rule of thumb and no test.
    """
    return 1.96 * math.sqrt(2 * accuracy * (1 - accuracy) / rows)


def _meaning(experiment: Experiment, student: Model, gap: float, better: bool) -> str:
    width = _noise_of(experiment, student)
    if not better:
        told = "the distilled student is not better here"
        return told if width is None or gap < width else f"{told}, by more than the noise of the rows"
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


def rows_in_words(experiment: Experiment, model: Model) -> str:
    """The compared rows: ``3,080 test rows``."""
    n = model.rows.get(experiment.split)
    return f"the {experiment.split} rows" if n is None else f"{format.count(n)} {experiment.split} rows"
