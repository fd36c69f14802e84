"""What a report shows, read from run directories and made ready to be worded, tabled and drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demiglace.results.run_log import Log, Scores

Role = Literal["teacher", "distilled", "control", "model"]


@dataclass(frozen=True)
class Record:
    """A complete run directory: its stage, and its manifest as it was written."""

    path: Path
    stage: str
    manifest: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """The options that decided the run."""
        return self.manifest["config"]


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of one call, in milliseconds."""

    p50: float
    p95: float | None


@dataclass(frozen=True)
class Artefact:
    """One exported file as measured; sizes in bytes, memory in MB, latency by batch size."""

    model: str
    name: str
    role: str  # export, original or teacher, see `runs.artefacts`
    file: str
    size: float | None
    latency: Mapping[int, Latency]
    peak_memory: float | None
    label_agreement: float | None
    largest_difference: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one set of rows; agreement: with the teacher, where it was asked for."""

    model: str
    set: str
    rows: float | None
    scores: Scores
    agreement: float | None


@dataclass(frozen=True)
class Model:
    """A trained model: one row of the table. Whatever was not measured is None."""

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
    """The models of one task, teacher first; `split` holds the compared scores, the first metric decides."""

    task: str
    split: str
    metrics: tuple[str, ...]
    models: tuple[Model, ...]

    def score(self, model: Model, metric: str | None = None) -> float | None:
        """A model's score on the compared split, by default the deciding one."""
        name = metric or (self.metrics[0] if self.metrics else "")
        return model.scores.get(self.split, {}).get(name)


@dataclass(frozen=True)
class RunReport:
    """All that a report shows."""

    title: str
    experiments: tuple[Experiment, ...]
    evaluations: tuple[Evaluation, ...]
    artefacts: tuple[Artefact, ...]
    records: tuple[Record, ...]
