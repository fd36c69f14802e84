"""Train students by successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943).

All students train for the first rung's epochs; the better half, by the main metric on the validation rows, trains on in
the next rung, until two are left. A student resumes from its weights of the rung before, with a new learning rate
schedule and new draws of batches and of a method's random layers. Each rung of a student is an ordinary run of
`distill`, so a killed compression resumes inside of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.compare.executors.local import LocalExecutor
from demiglace.compare.executors.ray import RayExecutor
from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import is_done
from demiglace.compare.progress import progress_display
from demiglace.compare.scheduler import Schedule
from demiglace.compress.candidates import Student
from demiglace.config.command_options import CompressConfig
from demiglace.console import notice, say
from demiglace.report.format import score
from demiglace.results.metric_table import metric_of
from demiglace.runs.directory import read_manifest

FINALISTS = 2
SIGNALS = "signals"  # folder of the teacher's cached signals, which all students share; removed at the end
RUNS = "runs"  # folder of all runs in the directory of a compression


@dataclass(frozen=True)
class Trained:
    """A student after a rung."""

    student: Student
    method: str
    key: str  # its run directory, relative to the compression
    quality: float  # the main metric on the validation rows


def rung_epochs(students: int, epochs: int) -> list[int]:
    """Return the epochs of each rung, at least 1: rungs until `FINALISTS` are left, each doubling the epochs so far."""
    rungs = 1
    while students > FINALISTS:
        students, rungs = math.ceil(students / 2), rungs + 1
    ends = [max(round(epochs / 2 ** (rungs - 1 - i)), i + 1) for i in range(rungs)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def rung_seed(seed: int, number: int) -> int:
    """Return the seed of a rung, counted from 1: that of the compression in the first, others in the next ones."""
    return seed if number == 1 else int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def promoted(trained: Sequence[Trained], sign: int) -> list[Trained]:
    """Return the better half of a rung, the best first; of equal students the smaller one is better.

    sign: 1 where higher is better, else −1.
    """
    ranked = sorted(trained, key=lambda t: (-sign * t.quality, t.student.capacity))
    return ranked[: max(math.ceil(len(ranked) / 2), FINALISTS)]


@dataclass(frozen=True)
class Trainer:
    """Runs the jobs of a compression."""

    config: CompressConfig
    root: Path
    label: str  # of the task, for the progress display
    metric: str  # the one that chooses
    shared: Mapping[str, Any]  # options of all trainings
    trimming: Mapping[str, Any]  # of those that trim the vocabulary

    def train(self, jobs: Sequence[Job]) -> None:
        """Run the jobs that are not done, on this machine or a cluster. Raises `RunError` or `FailedRunsError`."""
        schedule = Schedule(jobs, {job.key for job in jobs if is_done(job, self.root)})
        if schedule.finished:
            return
        with progress_display(schedule) as listener:
            if self.config.engine == "ray":
                cpus, gpus = self.config.cpus_per_run, self.config.gpus_per_run
                RayExecutor(self.root, schedule, listener, address=self.config.address, cpus=cpus, gpus=gpus).run()
            else:
                LocalExecutor(self.root, schedule, listener).run()
        if schedule.errors:
            raise schedule.failure(self.root)

    def job(self, key: str, stage: Any, **options: Any) -> Job:
        """Return the job of a command."""
        return Job(key, stage, self.label, options | {"output": str(self.root / key)})

    def distillation(self, key: str, start: Mapping[str, Any], teacher: str, method: str, **options: Any) -> Job:
        """Return the job of `distill`; start: the options that give the student."""
        cache = str(self.root / SIGNALS)
        trimming = self.trimming if start.get("vocabulary") == "trim" else {}
        given = {**self.shared, **start, **trimming, "teacher": teacher, "method": method, "cache": cache, **options}
        if method == self.config.method and self.config.method_options:
            given["method_options"] = self.config.method_options
        if self.config.label_map and teacher == self.config.model:
            given["label_map"] = self.config.label_map
        return self.job(key, "distill", **given)

    def read(self, student: Student, method: str, key: str) -> Trained:
        """Return a student whose run is complete."""
        quality = read_manifest(self.root / key)["metrics"]["validation"][self.metric]
        return Trained(student, method, key, quality)

    def halve(
        self, students: Sequence[Student], teacher: str, method_of: Callable[[Student], str], limit: "TimeLimit"
    ) -> tuple[list[Trained], list[list[Trained]]]:
        """Train students; return the last ones, the best first, and all students of each rung.

        method_of: the distillation method of a student. limit: when it is used up, no further run begins.
        """
        rungs: list[list[Trained]] = []
        left = [Trained(s, method_of(s), "", math.nan) for s in students]
        for number, epochs in enumerate(rung_epochs(self.config.students, self.config.epochs), 1):
            jobs = {}
            for t in left:
                start = {"student": str(self.root / t.key)} if t.key else t.student.options
                key = f"{RUNS}/{t.student.key}/rung-{number}"
                options = {"epochs": epochs, "seed": rung_seed(self.config.seed, number)}
                jobs[t.student] = self.distillation(key, start, teacher, t.method, **options)
            names = ", ".join(t.student.name for t in left)
            say(f"rung {number}: {names}, {epochs} epoch{'s' if epochs > 1 else ''} each")
            begun = self._within(limit, jobs, epochs)
            found = [self.read(t.student, t.method, jobs[t.student].key) for t in left if t.student in begun]
            if len(found) < len(left):
                notice(
                    "time limit",
                    f"--max-hours {self.config.max_hours:g} is used up: {len(left) - len(found)} of {len(left)} "
                    f"students did not train in rung {number}.",
                    students=len(left) - len(found),
                )
                rungs += [found] if found else []
                done = found + [t for t in left if t.student not in begun and t.key]
                return promoted(done, self.sign)[:FINALISTS], rungs
            rungs.append(found)
            left = promoted(found, self.sign)
            say("  " + ", ".join(f"{t.student.name} {score(t.quality, self.metric)}" for t in found))
        return left[:FINALISTS], rungs

    @property
    def sign(self) -> int:
        """Return 1 where a higher value of the metric is better, else −1."""
        return metric_of(self.metric).sign

    def _within(self, limit: "TimeLimit", jobs: Mapping[Student, Job], epochs: int) -> list[Student]:
        """Run a rung's jobs, and return the students whose jobs are done; all without a limit of time."""
        if limit.seconds is None:
            self.train(list(jobs.values()))
            return list(jobs)
        begun: list[Student] = []
        for student, job in jobs.items():
            cost = epochs * (student.layers + 1)
            if not is_done(job, self.root) and not limit.allows(cost):
                break
            self.train([job])
            limit.add(cost, read_manifest(self.root / job.key)["seconds"])
            begun.append(student)
        return begun


@dataclass
class TimeLimit:
    """Seconds of training that may be used; the time of complete runs counts, whichever call trained them."""

    seconds: float | None
    used: float = 0.0
    _per_cost: float = 0.0  # seconds of the last run for each unit of its cost

    def allows(self, cost: float) -> bool:
        """Return whether a run of this cost probably ends in time; the first run always may begin."""
        return self.seconds is None or self.used + self._per_cost * cost <= self.seconds

    def add(self, cost: float, seconds: Mapping[str, float]) -> None:
        """Count a run; seconds: by part, from its manifest."""
        self._per_cost = seconds["train"] / cost
        capture = 0.0 if self.used else seconds["capture"]  # later runs read the same cache
        self.used += seconds["train"] + seconds["evaluate"] + capture
