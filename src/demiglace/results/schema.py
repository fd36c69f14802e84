"""What a comparison found: a spread over seeds, a difference from a control, a cell of the grid, a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.results.run_log import Log, Scores


@dataclass(frozen=True)
class SeedStats:
    """A number over seeds: mean, standard deviation, interval of the mean; the last two None with one seed."""

    mean: float
    sd: float | None
    values: tuple[float, ...]
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Difference:
    """The test of a method minus a control in the deciding metric, on the seeds that both have."""

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
        """Whether the test was not declared, and p is not corrected."""
        return self.family == "exploratory"


@dataclass(frozen=True)
class Equivalence:
    """The test that a difference lies within ± margin (TOST)."""

    margin: float  # in units of the metric
    p_corrected: float | None
    verdict: str


@dataclass(frozen=True)
class Primary:
    """A test that the grid declares."""

    student: str
    method: str  # with its axes
    control: str
    tasks: tuple[str, ...]
    average: bool  # of the average over the tasks; else there is one task
    metric: str | None  # None where nothing was tested
    test: Difference | None  # None: runs are missing
    equivalence: Equivalence | None


@dataclass(frozen=True)
class Artefact:
    """An exported file. latency: in ms (p50, one row); agreement: share of the checkpoint's labels that it repeats."""

    size: float | None
    latency: float | None
    agreement: float | None


@dataclass(frozen=True)
class SetResult:
    """A cell on one set. own: whether the set belongs to the task itself; groups: parts of the set, deciding metric.

    further: the official metrics beyond the deciding one, as F1 of MRPC.
    """

    name: str
    metric: str
    own: bool
    score: SeedStats
    further: Mapping[str, SeedStats]
    agreement: SeedStats | None
    ece: SeedStats | None
    worst_class_f1: SeedStats | None
    groups: Mapping[str, SeedStats]
    against: Mapping[str, Difference]


@dataclass(frozen=True)
class Cell:
    """One task, student and method (with its axes) over its seeds.

    control: "none" or "vanilla-kd" where the method is one of the two; axes: those of the method's name. runs,
    evaluations: directories below the comparison's, in the order of the seeds. curve: epoch -> validation scores, means
    over seeds; log: of the first seed; changes: against the teacher, a mapping for each seed that has one (see
    `evaluation.results.changes`).
    artefacts: by precision, "fp32" or "int8".
    selected_on_test_rows: whether the best epoch was chosen on the rows that are reported.
    """

    task: str
    student: str
    method: str
    control: str
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    runs: tuple[str, ...]
    evaluations: tuple[str, ...]
    in_domain: str
    sets: Mapping[str, SetResult]
    parameters: float | None
    size: float | None
    capture: SeedStats
    train: SeedStats
    latency: float | None
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    axes: Mapping[str, Any] = field(default_factory=dict)
    selected_on_test_rows: bool = False
    log: Log = field(default_factory=Log)
    curve: Mapping[int, Scores] = field(default_factory=dict)
    changes: tuple[Mapping[str, Any], ...] = ()

    @property
    def own(self) -> SetResult:
        """The set that the task's results are about."""
        return self.sets[self.in_domain]

    @property
    def key(self) -> tuple[str, str]:
        """Student and method: what is chosen among."""
        return self.student, self.method


@dataclass(frozen=True)
class Teacher:
    """A task's teacher. scores: set -> metrics, in its own order; measures: ece and worst_class_f1 of its own set.

    run: its directory below the comparison's, or of a ready teacher as the grid names it.
    """

    run: str
    in_domain: str
    scores: Mapping[str, Scores]
    measures: Scores
    parameters: float | None
    size: float | None
    latency: float | None
    train: float | None
    artefacts: Mapping[str, Artefact]


@dataclass(frozen=True)
class Average:
    """A student and method over all the tasks in `tasks`. against: how it differs from each control."""

    tasks: tuple[str, ...]
    in_domain: SeedStats | None
    out_of_domain: SeedStats | None
    against: Mapping[str, Difference]
    against_outside: Mapping[str, Difference]


@dataclass(frozen=True)
class Missing:
    """A run that is not there, and why; method: none of a teacher."""

    run: str
    status: str
    error: str
    task: str = ""
    method: str | None = None


def run_directory(home: Path, run: str) -> Path:
    """Where a run lies: below the comparison's directory, or, a ready teacher, as the grid names it."""
    return home / run if (home / run).exists() else Path(run)


def is_own(name: str, in_domain: str) -> bool:
    """Whether a set is one of the task's own: MNLI's two validation splits both are."""
    return name.split(":")[0] == in_domain.split(":")[0]


Key = tuple[str, str]  # student, method
