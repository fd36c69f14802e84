"""Results of a comparison: spreads over seeds, differences from a baseline, cells of the grid, teachers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.results.run_log import Log, Scores

BASELINES = ("none", "vanilla-kd")  # the methods that all others are compared with: no teacher, plain soft labels


@dataclass(frozen=True)
class SeedStats:
    """A number over seeds."""

    mean: float
    sd: float | None  # standard deviation with n − 1; None with one seed
    values: tuple[float, ...]  # in the order of the seeds
    interval: tuple[float, float] | None = None  # of the mean; None with one seed


@dataclass(frozen=True)
class Difference:
    """The test of a method minus a baseline in the deciding metric, on the seeds that both have."""

    difference: float
    interval: tuple[float, float] | None  # None: too few seeds for one
    p: float | None
    p_corrected: float | None  # None for exploratory tests
    verdict: str
    family: str  # primary or exploratory; corrected: of a summary by an earlier version
    mde: float | None = None  # minimum detectable effect
    mcnemar: tuple[float, ...] = ()  # p of each seed; empty where there are no classes

    @property
    def exploratory(self) -> bool:
        """Return whether the test was not declared; its p is not corrected then."""
        return self.family == "exploratory"


@dataclass(frozen=True)
class Equivalence:
    """The test that a difference lies within ± margin (TOST)."""

    margin: float  # in units of the metric
    p_corrected: float | None
    verdict: str


@dataclass(frozen=True)
class Primary:
    """A contrast that the grid declares, and its test."""

    student: str
    method: str  # with its axes
    baseline: str
    tasks: tuple[str, ...]
    average: bool  # of the average over the tasks; else there is one task
    metric: str | None  # None where nothing was tested
    test: Difference | None  # None: runs are missing
    equivalence: Equivalence | None


@dataclass(frozen=True)
class Artefact:
    """An exported file as it was measured; None for what was not."""

    format: str  # onnx
    precision: str  # fp32 or int8
    size: float | None  # bytes
    latency: float | None  # ms, median of one row
    agreement: float | None  # share of rows with the label of the checkpoint
    score: float | None = None  # deciding metric of the file itself on the task's rows, exported from the first seed
    change: float | None = None  # from the fp32 file of the same seed to this one, in units of `score`


@dataclass(frozen=True)
class SetResult:
    """The results of a cell on one set."""

    name: str
    metric: str  # the deciding one
    own: bool  # whether the set belongs to the task; else it is out of domain
    rows: int | None
    score: SeedStats
    further: Mapping[str, SeedStats]  # official metrics beyond the deciding one, as F1 of MRPC
    agreement: SeedStats | None
    ece: SeedStats | None
    worst_class_f1: SeedStats | None
    groups: Mapping[str, SeedStats]  # part of the set -> deciding metric
    against: Mapping[str, Difference]  # baseline -> test

    @property
    def metrics(self) -> Mapping[str, SeedStats]:
        """Return all official metrics, the deciding one first."""
        return {self.metric: self.score, **self.further}


@dataclass(frozen=True)
class Cell:
    """One task, student and method (with its axes) over its seeds."""

    task: str
    student: str
    method: str  # its label with the axes
    label: str  # its label without them
    baseline: str  # "none" or "vanilla-kd" where the method is one of the two, else ""
    seeds: tuple[int, ...]
    missing: tuple[int, ...]  # seeds without a finished run
    runs: tuple[str, ...]  # directories below the comparison's, in the order of the seeds
    evaluations: tuple[str, ...]  # as runs
    in_domain: str  # the set that the task is reported on
    sets: Mapping[str, SetResult]
    parameters: float | None
    size: float | None  # of the checkpoint, in bytes
    capture: SeedStats  # seconds
    train: SeedStats  # seconds
    latency: float | None  # ms, of the fp32 export
    artefacts: tuple[Artefact, ...] = ()
    axes: Mapping[str, Any] = field(default_factory=dict)
    searched: Mapping[str, Any] = field(default_factory=dict)  # options that a search chose
    selected_on_test_rows: bool = False  # whether the best epoch was chosen on the rows that are reported
    log: Log = field(default_factory=Log)  # of the first seed
    curve: Mapping[int, Scores] = field(default_factory=dict)  # epoch -> validation scores, means over the seeds
    changes: tuple[Mapping[str, Any], ...] = ()  # by seed, see `evaluation.set_results.disagreements`

    @property
    def own(self) -> SetResult:
        """Return the results on the set that the task is reported on."""
        return self.sets[self.in_domain]

    @property
    def key(self) -> tuple[str, str]:
        """Return student and method."""
        return self.student, self.method


@dataclass(frozen=True)
class Teacher:
    """The teacher of a task."""

    run: str  # its directory below the comparison's; of an existing teacher as the grid names it
    in_domain: str
    scores: Mapping[str, Scores]  # set -> metrics, the deciding one first
    measures: Scores  # ece and worst_class_f1 on the set that the task is reported on
    parameters: float | None
    size: float | None
    latency: float | None
    train: float | None
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True)
class Average:
    """A student and method over several tasks."""

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]  # those that all tasks have
    in_domain: SeedStats | None
    out_of_domain: SeedStats | None
    against: Mapping[str, Difference]  # baseline -> test in domain
    against_outside: Mapping[str, Difference]  # baseline -> test out of domain


@dataclass(frozen=True)
class Missing:
    """A run or an export that does not exist, and why."""

    run: str
    status: str
    error: str
    task: str = ""
    method: str | None = None  # None for a teacher


def run_directory(root: Path, run: str) -> Path:
    """Return the directory of a run: below the comparison's, or for an existing teacher as the grid names it."""
    return root / run if (root / run).exists() else Path(run)


def is_own(name: str, in_domain: str) -> bool:
    """Return whether a set belongs to the task: both validation sets of MNLI do."""
    return name.split(":")[0] == in_domain.split(":")[0]


def find_artefact(artefacts: Sequence[Artefact], precision: str) -> Artefact | None:
    """Return the first artefact of a precision."""
    return next((a for a in artefacts if a.precision == precision), None)


Key = tuple[str, str]  # student, method
