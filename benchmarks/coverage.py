"""Measure the false positive rate, coverage and power of the tests of `demiglace compare` by simulation.

    python benchmarks/coverage.py [--comparisons 3000]

Simulates comparisons of a method with its control, with 3, 5 or 8 units (seeds or replicates) of each, all evaluated on
the same 400 test rows. Writes results/coverage.json in about fifteen minutes on one core. A run is right on a row if

    ability + row + row x method + unit x method + residual > 0,

where all terms but the ability are independent normal numbers. The designs differ in their standard deviations: `unit x
method` is the variance of replicates, `row x method` the variance of test rows that all units share. Under the null
hypothesis both methods have the same mean on new units and new rows. With an effect, the accuracy of the method is
higher by it. 30 % of the labels are 1, and F1 is of class 1.

For each design: size (rejections at nominal 5 % without an effect), coverage of the 95 % interval, the median MDE
(minimum detectable effect at 80 % power), power at stated effects and at the median MDE, and `equivalence`: how often
TOST calls the methods equivalent within the effect although they differ by it (nominal: at most 5 %). `old` is the
verdict of earlier versions: a paired t-test over seeds *and* a percentile bootstrap interval over rows x seeds.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import kit
import numpy as np
from scipy import stats

from demiglace.evaluation.bootstrap_metrics import SUMMED
from demiglace.evaluation.significance import ALPHA, PairedDifference, influence, paired_difference, paired_t_test

UNITS, METRICS, EFFECTS = (3, 5, 8), ("accuracy", "f1"), (0.02, 0.04)
RESAMPLES = 400  # for the old method, which used 10,000


@dataclass(frozen=True)
class Design:
    """The standard deviations and sizes of a simulated comparison."""

    row: float = 1.0  # difficulty of a row, the same for all runs
    row_method: float = 0.0
    unit_method: float = 0.0
    residual: float = 0.7
    rows: int = 400
    units: int = 5
    ability: float = 0.8  # accuracy of the control
    positive: float = 0.3  # share of rows with label 1

    @property
    def scale(self) -> float:
        """Return the standard deviation of the sum of all terms."""
        return float(np.sqrt(self.row**2 + self.row_method**2 + self.unit_method**2 + self.residual**2))


DESIGNS = {
    "residual noise": Design(),
    "unit variance": Design(unit_method=0.12),
    "test-row variance": Design(row_method=0.7),
    "both": Design(unit_method=0.12, row_method=0.7),
}
Runs = tuple[np.ndarray, np.ndarray]  # labels [N], predictions [2, S, N] of method and control


def draw(design: Design, effect: float, generator: np.random.Generator) -> Runs:
    """Simulate a comparison in which the accuracy of the method is `effect` above the control's."""
    shape = (2, design.units, design.rows)
    latent = design.row * generator.standard_normal(design.rows)
    latent = latent + design.row_method * generator.standard_normal((2, 1, design.rows))
    latent = latent + design.unit_method * generator.standard_normal((2, design.units, 1))
    latent = latent + design.residual * generator.standard_normal(shape)
    shares = np.array([design.ability + effect, design.ability])
    right = latent > -design.scale * stats.norm.ppf(shares)[:, None, None]
    labels = (generator.random(design.rows) < design.positive).astype(int)
    return labels, np.where(right, labels, 1 - labels)


def estimate(metric: str, runs: Runs) -> PairedDifference:
    """Return what `demiglace compare` estimates."""
    labels, predictions = runs
    method, control = (np.stack([influence(metric, labels, p) for p in side]) for side in predictions)
    scores = SUMMED[metric].value(_features(metric, runs).sum(2))
    return paired_difference(scores[0] - scores[1], [method - control])


def old_rejects(metric: str, runs: Runs, weights: np.ndarray, generator: np.random.Generator) -> bool:
    """Return the verdict of earlier versions; weights: count of each row in each bootstrap sample [R, N]."""
    features = _features(metric, runs)
    method, control = SUMMED[metric].value(weights @ features)  # [S, R] of each
    seeds = len(method)
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), len(weights)) / seeds
    low, high = np.quantile(((method - control).T * drawn).sum(axis=1), [ALPHA / 2, 1 - ALPHA / 2])
    return _significant(paired_t_test(*SUMMED[metric].value(features.sum(2)))) and not low <= 0 <= high


def _features(metric: str, runs: Runs) -> np.ndarray:
    """Return the summands of the metric for every row of every run [2, S, N, K]."""
    labels, predictions = runs
    found = SUMMED[metric].features(np.broadcast_to(labels, predictions.shape).ravel(), predictions.ravel())
    return found.reshape(*predictions.shape, -1)


def simulate(design: Design, metric: str, effect: float, counts: tuple[int, int], seed: int) -> dict[str, float]:
    """Simulate comparisons and return shares of them.

    Args:
        design: of the comparisons.
        metric: "accuracy" or "f1".
        effect: difference in accuracy.
        counts: comparisons for the new and the old test.
        seed: of the simulation.
    """
    parts = (design.units, design.row_method, design.unit_method, effect)
    generator = np.random.default_rng([seed, *(round(1e6 * part) for part in parts)])
    weights = generator.multinomial(design.rows, np.full(design.rows, 1 / design.rows), RESAMPLES).astype(float)
    runs = [draw(design, effect, generator) for _ in range(counts[0])]
    found = [estimate(metric, each) for each in runs]
    truth = float(np.mean([f.mean for f in found])) if effect else 0.0
    intervals = [f.interval() for f in found]
    result = {
        "difference": truth,
        "rejected": _share([_significant(f.p()) for f in found]),
        "covered": _share([ends is None or ends[0] <= truth <= ends[1] for ends in intervals]),
        "mde": float(np.median([f.detectable() or np.nan for f in found])),
    }
    if effect:
        result["equivalence"] = _share([_significant(f.equivalence(abs(truth))) for f in found])
    if counts[1]:
        result["old"] = _share([old_rejects(metric, each, weights, generator) for each in runs[: counts[1]]])
    return result


def _significant(p: float | None) -> bool:
    return p is not None and p < ALPHA


def _share(found: list[bool]) -> float:
    return float(np.mean(found))


def study(design: Design, metric: str, count: int, seed: int) -> dict[str, Any]:
    """Return size, coverage, MDE and power of a design. All but size and coverage use a quarter of the comparisons."""
    null = simulate(design, metric, 0.0, (count, count // 4), seed)
    result: dict[str, Any] = {"size": null["rejected"], "size_old": null["old"], "coverage": null["covered"]}
    result |= {"mde": null["mde"], "effects": []}
    for effect in EFFECTS:
        found = simulate(design, metric, effect, (count // 4, count // 4), seed)
        kept = {"effect": found["difference"], "power": found["rejected"], "power_old": found["old"]}
        result["effects"].append(kept | {k: found[k] for k in ("covered", "equivalence")})
    if metric == "accuracy":  # the effects are given in accuracy
        result["power_at_mde"] = simulate(design, metric, null["mde"], (count // 4, 0), seed)["rejected"]
    return _rounded(result)


def _rounded(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {k: _rounded(v) for k, v in found.items()}
    return [_rounded(v) for v in found] if isinstance(found, list) else round(found, 4)


def main() -> None:
    """Run all designs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = {
        f"{name}, {units} units, {metric}": study(replace(design, units=units), metric, args.comparisons, args.seed)
        for name, design in DESIGNS.items()
        for units in UNITS
        for metric in METRICS
    }
    config = vars(args) | {"designs": {n: asdict(d) for n, d in DESIGNS.items()}, "bootstrap_samples": RESAMPLES}
    kit.write("coverage", config, results)


if __name__ == "__main__":
    main()
