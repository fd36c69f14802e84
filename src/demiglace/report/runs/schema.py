"""The contents of a report about single runs, as `load` reads them from run directories."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demiglace.report.runs.classes import ClassResults
from demiglace.results.run_log import Log, Scores

Role = Literal["teacher", "distilled", "baseline", "model"]


@dataclass(frozen=True)
class Record:
    """A complete run directory."""

    path: Path
    stage: str
    manifest: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the options that decided the run."""
        return self.manifest["config"]


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of one call, in milliseconds."""

    p50: float
    p95: float | None


@dataclass(frozen=True)
class Artefact:
    """One exported file as measured."""

    model: str
    name: str
    role: str  # export, original or teacher, see `runs.artefacts`
    file: str
    size: float | None  # bytes
    latency: Mapping[int, Latency]  # by batch size
    tokens_per_second: Mapping[str, float]  # of a language model: prefill and decode
    peak_memory: float | None  # MB
    label_agreement: float | None  # share of the checked rows with the label of the PyTorch model
    largest_difference: float | None  # of a logit
    scores: Scores  # of the file itself on the task's rows; empty where they were not measured


@dataclass(frozen=True)
class Evaluation:
    """Results of a model on one set of rows."""

    model: str
    set: str
    rows: float | None
    scores: Scores
    agreement: float | None  # with the teacher, where there was one
    classes: ClassResults | None = None


@dataclass(frozen=True)
class Model:
    """A trained model: one row of the table. What was not measured is None."""

    name: str
    role: Role
    method: str
    task: str
    problem: str
    seed: int | None
    scores: Mapping[str, Scores]  # split -> metric -> value
    rows: Mapping[str, float]
    drops: Mapping[str, float]
    layers: float | None
    parameters: float | None
    size: float | None
    agreement: float | None
    latency: Latency | None
    capture_seconds: float | None
    train_seconds: float | None
    teacher: str | None  # name of its teacher's Model
    log: Log


@dataclass(frozen=True)
class Experiment:
    """The models of one task, teacher first."""

    task: str
    split: str  # whose scores are compared
    metrics: tuple[str, ...]  # the first one decides
    models: tuple[Model, ...]

    def score(self, model: Model, metric: str | None = None) -> float | None:
        """Return a model's score on the compared split, by default in the deciding metric."""
        name = metric or (self.metrics[0] if self.metrics else "")
        return model.scores.get(self.split, {}).get(name)


@dataclass(frozen=True)
class RunReport:
    """The contents of a report about single runs."""

    title: str
    experiments: tuple[Experiment, ...]
    evaluations: tuple[Evaluation, ...]
    artefacts: tuple[Artefact, ...]
    records: tuple[Record, ...]
