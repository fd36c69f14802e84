"""The tests of a comparison: how each method differs from its baselines, and which of them were declared."""

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.evaluation.significance import (
    ALPHA,
    PairedDifference,
    holm_correction,
    influence,
    mcnemar,
    paired_difference,
    verdict,
)
from demiglace.evaluation.verdicts import UNKNOWN
from demiglace.results.cells import Average, CellRuns, Name, averages, baseline_label
from demiglace.results.contrasts import Contrast
from demiglace.results.metric_table import metric_of
from demiglace.results.schema import BASELINES, is_own
from demiglace.runs.files import file_name

IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"
PRIMARY, EXPLORATORY = "primary", "exploratory"
AVERAGE = "average"  # the name of the metric of an average
NOT_EQUIVALENT = "not shown to be equivalent"
Result = dict[str, Any]
Rows = Mapping[tuple[str, int], np.ndarray]  # set and its number of rows -> influences [S, N]


@dataclass
class _Test:
    """One difference from one baseline: its estimate, and the result that is written."""

    estimate: PairedDifference
    metric: str
    result: Result
    primary: bool = field(default=False)

    def decide(self, p_corrected: float | None, family: int) -> None:
        """Add family, p, MDE and verdict to the result; family: how many tests were corrected for one another."""
        seeds, p = len(self.result["seeds"]), self.estimate.p()
        gain = metric_of(self.metric).sign * self.estimate.mean
        self.result |= {
            "family": PRIMARY if self.primary else EXPLORATORY,
            "p": p,
            "p_corrected": p_corrected,
            "mde": self.estimate.detectable(ALPHA / family),
            "mde_alpha": ALPHA / family,
            "verdict": verdict(gain, p_corrected if self.primary else p, seeds),
        }


class SignificanceTests:
    """The tests of all cells and averages.

    A result has: `seeds` (the units that both methods have), `difference` (mean of the deciding metric), `se`, `df` and
    `ci` (see `significance.paired_difference`), `family` (primary or exploratory), `p`, `p_corrected`, `mde` (minimum
    detectable effect) at the two-sided level `mde_alpha`, `verdict`, and for classes `mcnemar` (p of each seed).

    Holm's correction is over the primary tests alone: all contrasts of the grid's `primary`, over all tasks, students
    and axes. One without a result counts in it too. All other tests are exploratory and are not corrected.
    """

    of_set: dict[tuple[Name, str, str], Result]  # by cell, set and baseline
    of_average: dict[tuple[tuple[str, str, str], str, str], Result]  # by (student, method, axes), domain and baseline
    primary: list[Result]  # an entry for each primary test: see `_declare`; its metric, and its result as `test`

    def __init__(
        self, cells: Sequence[CellRuns], root: Path, contrasts: Sequence[Contrast] = (), planned: Iterable[Name] = ()
    ):
        self._cells = {c.name: c for c in cells}
        self._planned = list(planned)
        self._contrasts = contrasts
        students = dict.fromkeys(c.student for c in cells)
        self._labels = {(s, baseline): baseline_label(s, baseline, cells) for s in students for baseline in BASELINES}
        self._of_set: dict[tuple[Name, str, str], _Test] = {}
        self._of_average: dict[tuple[tuple[str, str, str], str, str], _Test] = {}
        self._influences = _Influences()
        for key in dict.fromkeys(c.name[:2] for c in cells):
            self._compare([c for c in cells if c.name[:2] == key], root)
        self._compare_averages(averages(cells))
        self.primary = self._apply_correction([*itertools.chain.from_iterable(map(self._declare, contrasts))])
        self.of_set = {key: test.result for key, test in self._of_set.items()}
        self.of_average = {key: test.result for key, test in self._of_average.items()}

    def is_baseline(self, cell: CellRuns) -> bool:
        """Return whether a cell's method is one of the two baselines of its student."""
        return cell.method in (self._labels[cell.student, baseline] for baseline in BASELINES)

    def _baselines(self, student: str, method: str) -> dict[str, str]:
        """Return name -> label of what a method is compared with: the two baselines, and those of its contrasts."""
        found = {c: label for c in BASELINES if (label := self._labels[student, c]) is not None}
        declared = dict.fromkeys(c.baseline for c in self._contrasts if c.method == method)
        return found | {label: label for label in declared if label not in found.values()}

    def _compare(self, cells: Sequence[CellRuns], root: Path) -> None:
        """Compare the cells of one task and student, set by set."""
        for name in dict.fromkeys(s for c in cells for s in c.first["sets"]):
            having = [c for c in cells if all(name in r["sets"] for r in c.runs.values())]
            predictions = _Predictions(having, name, root)
            for cell in having:
                for baseline, label in self._baselines(cell.student, cell.method).items():
                    other = next((c for c in having if c.method == label and _is_comparable_baseline(c, cell)), None)
                    if other is not None:
                        self._of_set[cell.name, name, baseline] = _difference(cell, other, name, predictions)
            self._influences.add(having, name, predictions)

    def _compare_averages(self, found: Sequence[Average]) -> None:
        """Compare averages over the same tasks."""
        for average, own in itertools.product(found, (True, False)):
            student, method, _ = average.key
            for baseline, label in self._baselines(student, method).items():
                for other in found:
                    if other.key[:2] == (student, label) and (test := self._average(average, other, own)) is not None:
                        self._of_average[average.key, IN_DOMAIN if own else OUT_OF_DOMAIN, baseline] = test

    def _average(self, average: Average, baseline: Average, own: bool) -> _Test | None:
        """Return the test of one average; None where the tasks differ, or no seed is common to all of them."""
        sides = average.having(own), baseline.having(own)
        tasks = [[c.task for c in cells] for cells in sides]
        seeds = [s for s in average.seeds if s in baseline.seeds]
        if (
            not tasks[0]
            or tasks[0] != tasks[1]
            or not seeds
            or not _is_comparable_baseline(baseline.cells[0], average.cells[0])
        ):
            return None
        rows = [self._influences.mean(cells, seeds, own) for cells in sides]
        return _paired(AVERAGE, seeds, [a.scores(own, seeds) for a in (average, baseline)], rows)

    def _declare(self, contrast: Contrast) -> list[tuple[Result, _Test | None]]:
        """Return an entry for each test that a contrast declares, over students and axes; None: no runs to test.

        An entry has student, method, axes, baseline (its label), tasks, average, and margin (in points).
        """
        found = []
        for student, axes in dict.fromkeys((n[1], n[3]) for n in self._planned if n[2] == contrast.method):
            pairs = {t: p for t in self._tasks(contrast) if (p := self._pair(contrast, t, student, axes)) is not None}
            for tasks in [tuple(pairs)] if contrast.average and pairs else [(t,) for t in pairs]:
                entry = {
                    "student": student,
                    "method": contrast.method,
                    "axes": json.loads(axes),
                    "baseline": contrast.baseline,
                    "tasks": list(tasks),
                    "average": contrast.average,
                    "margin": contrast.margin,
                }
                found.append((entry, self._declared(contrast, student, [pairs[t] for t in tasks])))
        return found

    def _tasks(self, contrast: Contrast) -> list[str]:
        every = dict.fromkeys(n[0] for n in self._planned)
        return [t for t in every if contrast.tasks is None or t in contrast.tasks]

    def _pair(self, contrast: Contrast, task: str, student: str, axes: str) -> tuple[Name, Name] | None:
        """Return the planned cells of a contrast's method and baseline on a task; None where one is not planned."""
        method = (task, student, contrast.method, axes)
        baselines = (n for n in self._planned if n[:3] == (task, student, contrast.baseline) and _within(n[3], axes))
        baseline = next(baselines, None)
        return None if baseline is None or method not in self._planned else (method, baseline)

    def _declared(self, contrast: Contrast, student: str, pairs: Sequence[tuple[Name, Name]]) -> _Test | None:
        """Return the test of these pairs of cells; None where a cell has no finished run."""
        if any(name not in self._cells for pair in pairs for name in pair):
            return None
        labels = self._baselines(student, contrast.method)
        baseline = next(name for name, label in labels.items() if label == contrast.baseline)
        method, other = (Average(tuple(self._cells[n] for n in names)) for names in zip(*pairs, strict=True))
        if not contrast.average:
            cell = method.cells[0]
            return self._of_set.get((cell.name, cell.first["in_domain"], baseline))
        every = [c for c in self._cells.values() if c.name[1:] == method.key]
        known = self._of_average.get((method.key, IN_DOMAIN, baseline))
        return known if known is not None and len(every) == len(pairs) else self._average(method, other, own=True)

    def _apply_correction(self, declared: Sequence[tuple[Result, _Test | None]]) -> list[Result]:
        """Correct and decide all tests; return the primary entries, each with its `metric` and `test`."""
        known = {id(test): test for _, test in declared if test is not None}
        absent = sum(test is None for _, test in declared)
        family = len(known) + absent
        p = holm_correction([*(1.0 if (p := t.estimate.p()) is None else p for t in known.values()), *[1.0] * absent])
        for test, value in zip(known.values(), p, strict=False):
            test.primary = True
            test.decide(None if test.estimate.p() is None else value, family)
        for test in (*self._of_set.values(), *self._of_average.values()):
            if not test.primary:
                test.decide(None, 1)
        return [
            entry | {"metric": None, "test": None}
            if test is None
            else entry | {"metric": test.metric, "test": test.result | {"equivalence": equivalence}}
            for (entry, test), equivalence in zip(declared, _equivalences(declared), strict=True)
        ]


class _Predictions:
    """The predictions of all runs of a task and student on one set, and the influences of its rows on their scores."""

    def __init__(self, cells: Sequence[CellRuns], name: str, root: Path):
        keys = [(c.name, seed) for c in cells for seed in c.runs]
        stems = [root / c.runs[seed]["evaluation"] / file_name(name) for c in cells for seed in c.runs]
        self._index = {key: i for i, key in enumerate(keys)}
        self.labels = np.load(stems[0].with_name(f"{stems[0].name}.labels.npy"))
        self._predicted = [np.load(stem.with_name(f"{stem.name}.predictions.npy")) for stem in stems]
        metrics = list(cells[0].first["sets"][name]["metrics"])
        self.metric = metrics[0]
        logits = [np.load(stem.with_name(f"{stem.name}.npy")) for stem in stems] if "map" in metrics else []
        each = {
            m: np.stack([influence(m, self.labels, p) for p in (logits if m == "map" else self._predicted)])
            for m in metrics
        }
        self._influences, self._mean = each[self.metric], np.mean([*each.values()], axis=0)

    def of(self, cell: CellRuns, seed: int) -> np.ndarray:
        """Return what a run predicts [N]."""
        return self._predicted[self._index[cell.name, seed]]

    def influences(self, cell: CellRuns, seeds: Sequence[int]) -> np.ndarray:
        """Return the influences of the rows on the deciding metric [S, N]."""
        return self._influences[[self._index[cell.name, seed] for seed in seeds]]

    def mean_influence(self, cell: CellRuns, seed: int) -> np.ndarray:
        """Return the influences of the rows on the mean of all metrics [N]."""
        return np.asarray(self._mean[self._index[cell.name, seed]])


class _Influences:
    """The influences of rows on the scores of runs, for their averages over sets and tasks."""

    def __init__(self) -> None:
        self._by_run: dict[tuple[Name, int, bool], dict[str, np.ndarray]] = defaultdict(dict)

    def add(self, cells: Sequence[CellRuns], name: str, predictions: _Predictions) -> None:
        """Add those of all runs of these cells on one set."""
        for cell in cells:
            for seed, record in cell.runs.items():
                self._by_run[cell.name, seed, is_own(name, record["in_domain"])][name] = predictions.mean_influence(
                    cell, seed
                )

    def mean(self, cells: Sequence[CellRuns], seeds: Sequence[int], own: bool) -> Rows:
        """Return the influences on the mean over tasks of the mean over a task's sets, by set [S, N].

        Rows of a set that two tasks are measured on influence both: they are added up.
        """
        total: dict[tuple[str, int], np.ndarray] = {}
        for cell in cells:
            by_seed = [self._by_run[cell.name, seed, own] for seed in seeds]
            for name in by_seed[0]:
                each = np.stack([found[name] for found in by_seed]) / (len(cells) * len(by_seed[0]))
                key = name, each.shape[1]
                total[key] = total.get(key, 0) + each
        return total


def _equivalences(declared: Sequence[tuple[Result, _Test | None]]) -> list[Result | None]:
    """Return the equivalence test of every entry that has a margin; they are corrected for one another.

    A result has margin (in units of the metric), p, p_corrected and verdict.
    """
    found: list[Result | None] = []
    for entry, test in declared:
        if test is None or entry["margin"] is None:
            found.append(None)
            continue
        margin = entry["margin"] / metric_of(test.metric).scale
        found.append({"margin": margin, "p": test.estimate.equivalence(margin)})
    # a contrast without a result counts too: later runs must not take back what is called equivalent
    values = [1.0 if result is None or result["p"] is None else result["p"] for result in found]
    p = holm_correction(
        [p if entry["margin"] is not None else None for p, (entry, _) in zip(values, declared, strict=True)]
    )
    for result, value, (_, test) in zip(found, p, declared, strict=True):
        if result is not None and test is not None:
            shown = "equivalent" if value is not None and value < ALPHA else NOT_EQUIVALENT
            few = test.result["verdict"] == UNKNOWN
            result |= {"p_corrected": value, "verdict": UNKNOWN if few else shown}
    return found


def _within(part: str, axes: str) -> bool:
    """Return whether axes (JSON) hold all values of others: a baseline may lack axes that it has no option for."""
    values = json.loads(axes)
    return all(values.get(k) == v for k, v in json.loads(part).items())


def _is_comparable_baseline(baseline: CellRuns, cell: CellRuns) -> bool:
    """Return whether a baseline has the same axes, where it has them, and a seed in common."""
    alike = _within(baseline.name[3], cell.name[3])
    return alike and baseline.name != cell.name and bool(set(baseline.runs) & set(cell.runs))


def _difference(cell: CellRuns, baseline: CellRuns, name: str, predictions: _Predictions) -> _Test:
    seeds = [s for s in cell.runs if s in baseline.runs]
    scores = [[c.runs[s]["sets"][name]["metrics"][predictions.metric] for s in seeds] for c in (cell, baseline)]
    rows = [{(name, len(predictions.labels)): predictions.influences(c, seeds)} for c in (cell, baseline)]
    found = _paired(predictions.metric, seeds, scores, rows)
    classes = np.issubdtype(predictions.labels.dtype, np.integer)
    tests = [mcnemar(predictions.labels, predictions.of(cell, s), predictions.of(baseline, s)) for s in seeds]
    found.result["mcnemar"] = tests if classes else None
    return found


def _paired(metric: str, seeds: Sequence[int], scores: Sequence[Sequence[float]], rows: Sequence[Rows]) -> _Test:
    """Return the test of method − baseline from both scores by seed and the influences of the rows on them."""
    differences = np.subtract(scores[0], scores[1]).tolist()
    sets = sorted({*rows[0], *rows[1]})
    each = [np.asarray(rows[0].get(s, 0.0) - rows[1].get(s, 0.0)) for s in sets]  # 0: a set that one side lacks
    estimate = paired_difference(differences, each)
    result = {
        "seeds": list(seeds),
        "difference": statistics.fmean(differences),
        "se": estimate.error,
        "df": estimate.df,
        "ci": estimate.interval(),
    }
    return _Test(estimate, metric, result)
