"""Choose the file to ship: the best quality on validation rows within the limits."""

from collections.abc import Sequence

from demiglace.compress.artefacts import ModelFile
from demiglace.compress.budget import Budget
from demiglace.report.format import milliseconds, score, size
from demiglace.results.metric_table import metric_of


def drop(file: ModelFile, teacher: ModelFile, metric: str) -> float:
    """Return how much worse a file is than the teacher on the validation rows, in points; negative if it is better."""
    kind = metric_of(metric)
    return kind.sign * kind.scale * (teacher.validation[metric] - file.validation[metric])


def choose(files: Sequence[ModelFile], teacher: ModelFile, metric: str, budget: Budget) -> ModelFile | None:
    """Return the best of the files within all limits, or None; of equal ones the faster one, then the smaller one."""
    admitted = [f for f in files if budget.admits(f.cost) and budget.admits_drop(drop(f, teacher, metric))]
    sign = metric_of(metric).sign
    return min(admitted, key=lambda f: (-sign * f.validation[metric], f.cost.latency_ms, f.cost.bytes), default=None)


def none_fits(files: Sequence[ModelFile], teacher: ModelFile, metric: str, budget: Budget) -> str:
    """Return a message for files of which none is within all limits: the nearest file and what to change."""
    within = [f for f in files if budget.admits(f.cost)]
    if within:
        nearest = min(within, key=lambda f: drop(f, teacher, metric))
        lost = drop(nearest, teacher, metric)
        return (
            f"--max-drop {budget.max_drop:g} is not met: of the files within size and latency, {nearest.name} is the "
            f"best with {metric_of(metric).phrase} {score(nearest.validation[metric], metric)} on the validation rows, "
            f"{lost:.2g} points below the teacher's {score(teacher.validation[metric], metric)}. Give --max-drop "
            f"{_rounded_up(lost)}, a higher limit of size or latency, or more --epochs or --unlabelled text with "
            "another --output."
        )
    nearest = min(files, key=lambda f: _excess(f, budget))
    return (
        f"{budget.in_words()}: no exported file is within the limits. The nearest, {nearest.name}, takes "
        f"{size(nearest.cost.bytes)} and {milliseconds(nearest.cost.latency_ms)}; its latency was measured again after "
        "training. Repeat the command with limits that admit it."
    )


def _excess(file: ModelFile, budget: Budget) -> float:
    """Return by which factor a file exceeds the limit that it exceeds most."""
    by_size = 0.0 if budget.max_mb is None else file.cost.bytes / 1e6 / budget.max_mb
    by_time = 0.0 if budget.max_latency_ms is None else file.cost.latency_ms / budget.max_latency_ms
    return max(by_size, by_time)


def _rounded_up(points: float) -> str:
    return f"{int(points * 10 + 1) / 10:g}"
