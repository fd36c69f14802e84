"""What differs from the controls by more than chance: on every set, and on average over the tasks."""

import itertools
import statistics
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.compare.outcomes import CONTROLS, Average, Name, Outcome, averages, control_label, is_own
from demiglace.evaluation.significance import corrected, interval, mcnemar, resampled, seed_test, verdict
from demiglace.stages.evaluate import file_name

IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"
Result = dict[str, Any]


class Differences:
    """The differences of all cells and averages from the controls.

    of_set: by cell, set and control; of_average: by student, method and axes, by in or out of domain, and by control.
    A result holds the seeds that both have, the mean difference of the deciding metric, its bootstrap interval over
    rows and seeds, p of the seeds' paired t-test, p corrected, the verdict and, of classes, McNemar's p by seed.

    Holm's correction is over a family: all differences of one student from one control, over all methods and tasks;
    their own sets, the out-of-domain sets, and each of the two averages are families of their own.
    """

    def __init__(self, cells: Sequence[Outcome], home: Path):
        self.of_set: dict[tuple[Name, str, str], Result] = {}
        self.of_average: dict[tuple[tuple[str, str, str], str, str], Result] = {}
        self._controls = {(c.student, x): control_label(c.student, x, cells) for c in cells for x in CONTROLS}
        self._families: dict[tuple[str, ...], list[Result]] = defaultdict(list)
        self._samples = _Samples()
        for key in dict.fromkeys(c.name[:2] for c in cells):
            self._compare([c for c in cells if c.name[:2] == key], home)
        self._compare_averages(averages(cells))
        self._decide()

    def is_control(self, cell: Outcome) -> bool:
        """Whether others are measured against this cell's method."""
        return cell.method in (self._controls[cell.student, control] for control in CONTROLS)

    def _compare(self, cells: Sequence[Outcome], home: Path) -> None:
        """The cells of one task and student."""
        for name in dict.fromkeys(s for c in cells for s in c.first["sets"]):
            having = [c for c in cells if all(name in r["sets"] for r in c.runs.values())]
            predictions = _Predictions(having, name, home)
            for cell, control in itertools.product(having, CONTROLS):
                label = self._controls[cell.student, control]
                other = next((c for c in having if c.method == label and _is_base(c, cell)), None)
                if other is not None:
                    result = self.of_set[cell.name, name, control] = _difference(cell, other, name, predictions)
                    where = IN_DOMAIN if is_own(cell.first, name) else OUT_OF_DOMAIN
                    self._families[cell.student, control, where].append(result)
            self._samples.add(having, name, predictions)

    def _compare_averages(self, found: Sequence[Average]) -> None:
        """Averages over the same tasks."""
        for average, own, control in itertools.product(found, (True, False), CONTROLS):
            first, cells = average.cells[0], average.having(own)
            tasks = [c.task for c in cells]
            for other in found:
                base = other.cells[0]
                named = base.student == first.student and base.method == self._controls[first.student, control]
                seeds = [s for s in average.seeds if s in other.seeds]
                if named and tasks and tasks == [c.task for c in other.having(own)] and seeds and _is_base(base, first):
                    scores = [a.scores(own, seeds) for a in (average, other)]
                    samples = [self._samples.mean(a.having(own), seeds, own) for a in (average, other)]
                    result, where = _paired(seeds, scores, samples), IN_DOMAIN if own else OUT_OF_DOMAIN
                    self.of_average[average.key, where, control] = result
                    self._families[first.student, control, where, "average"].append(result)

    def _decide(self) -> None:
        for family in self._families.values():
            p = corrected([result["p"] for result in family])
            for result, value in zip(family, p, strict=True):
                result["p_corrected"] = value
                result["verdict"] = verdict(result["ci"], value, len(result["seeds"]))


class _Predictions:
    """The predictions of all runs on one set, and their metrics on the same bootstrap samples."""

    def __init__(self, cells: Sequence[Outcome], name: str, home: Path):
        keys = [(c.name, seed) for c in cells for seed in c.runs]
        stems = [home / c.runs[seed]["evaluation"] / file_name(name) for c in cells for seed in c.runs]
        self._column = {key: i for i, key in enumerate(keys)}
        self.labels = np.load(stems[0].with_name(f"{stems[0].name}.labels.npy"))
        self._said = [np.load(stem.with_name(f"{stem.name}.predictions.npy")) for stem in stems]
        metrics = list(cells[0].first["sets"][name]["metrics"])
        self.metric = metrics[0]
        # averages take sets for independent of one another, but not a set that two tasks are measured on
        seed = zlib.crc32(name.encode())
        self._values = {m: resampled(m, self.labels, self._said, seed=seed) for m in metrics}

    def of(self, cell: Outcome, seed: int) -> np.ndarray:
        """What a run predicts [N]."""
        return self._said[self._column[cell.name, seed]]

    def values(self, cell: Outcome, seeds: Sequence[int]) -> np.ndarray:
        """The deciding metric on every bootstrap sample [resamples, seeds]."""
        return self._values[self.metric][:, [self._column[cell.name, seed] for seed in seeds]]

    def score(self, cell: Outcome, seed: int) -> np.ndarray:
        """The mean of all metrics on every bootstrap sample [resamples]."""
        column = self._column[cell.name, seed]
        return np.mean([values[:, column] for values in self._values.values()], axis=0)


class _Samples:
    """The scores of runs on bootstrap samples, for their averages over sets and tasks."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Name, int, bool], np.ndarray] = {}
        self._sets: dict[tuple[Name, int, bool], int] = defaultdict(int)

    def add(self, cells: Sequence[Outcome], name: str, predictions: _Predictions) -> None:
        """Those of all runs of these cells on one set."""
        for cell in cells:
            for seed, record in cell.runs.items():
                key = cell.name, seed, is_own(record, name)
                self._sums[key] = self._sums.get(key, 0) + predictions.score(cell, seed)
                self._sets[key] += 1

    def mean(self, cells: Sequence[Outcome], seeds: Sequence[int], own: bool) -> np.ndarray:
        """The mean over tasks of the mean over a task's sets [resamples, seeds]."""
        by_seed = [[(cell.name, seed, own) for cell in cells] for seed in seeds]
        return np.stack([np.mean([self._sums[k] / self._sets[k] for k in keys], axis=0) for keys in by_seed], axis=1)


def _is_base(control: Outcome, cell: Outcome) -> bool:
    """Whether a control has the same axes, as far as it has them, and a seed in common."""
    alike = all(cell.axes.get(k) == v for k, v in control.axes.items())
    return alike and control.name != cell.name and bool(set(control.runs) & set(cell.runs))


def _difference(cell: Outcome, control: Outcome, name: str, predictions: _Predictions) -> Result:
    seeds = [s for s in cell.runs if s in control.runs]
    scores = [[c.runs[s]["sets"][name]["metrics"][predictions.metric] for s in seeds] for c in (cell, control)]
    classes = np.issubdtype(predictions.labels.dtype, np.integer)
    tests = [mcnemar(predictions.labels, predictions.of(cell, s), predictions.of(control, s)) for s in seeds]
    found = _paired(seeds, scores, [predictions.values(c, seeds) for c in (cell, control)])
    return found | {"mcnemar": tests if classes else None}


def _paired(seeds: Sequence[int], scores: Sequence[Sequence[float]], samples: Sequence[np.ndarray]) -> Result:
    """How far ours lie above the control's, from both' scores by seed and on bootstrap samples [resamples, seeds]."""
    ours, theirs = scores
    return {
        "seeds": list(seeds),
        "difference": statistics.fmean(np.subtract(ours, theirs).tolist()),
        "ci": list(interval(samples[0], samples[1])),
        "p": seed_test(ours, theirs),
    }
