import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import write_demo, write_training

from demiglace.report.runs.charts import charts_of, heat_maps
from demiglace.report.runs.load import collect
from demiglace.report.runs.schema import Experiment
from demiglace.report.svg import BOTTOM, LEFT, RIGHT, TOP, Curve, chart, downsample, nice_ticks, powers_of_ten

NUMBERS = st.floats(-1e6, 1e6)


@given(NUMBERS, NUMBERS)
def test_ticks_cover_the_data_evenly(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    slack = 1e-9 * max(abs(low), abs(high), 1e-300)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 5
    assert all(t < u for t, u in itertools.pairwise(ticks))


@pytest.mark.parametrize(
    ("low", "high"), [(0.3, 0.3), (0.0, 0.0), (-2.0, -2.0), (0, 1e-9), (0, 5e-324), (-5e-324, 5e-324), (1, 1e12)]
)
def test_ticks_of_narrow_and_wide_ranges(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1] and ticks[0] < ticks[-1]


def test_epochs_get_whole_ticks() -> None:
    assert all(t == int(t) for t in nice_ticks(1, 3, integers=True))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=700))
def test_thinning_keeps_the_mean_and_the_limit(values: list[float]) -> None:
    thinned = downsample(list(enumerate(values)), most=50)
    assert len(thinned) <= 50
    if len(values) <= 50:
        assert [y for _, y in thinned] == values
    assert min(values) - 1e-9 <= min(y for _, y in thinned) and max(y for _, y in thinned) <= max(values) + 1e-9


def test_points_lie_inside_the_axes_and_high_is_up() -> None:
    drawn = chart("t", "x", [Curve("c", "s1", ((1, 5.0, ""), (2, 9.0, ""), (7, 6.5, "")))], str)
    assert drawn is not None
    points = drawn.series[0].points
    assert all(LEFT <= p.x <= RIGHT and TOP <= p.y <= BOTTOM for p in points)
    assert points[1].y < points[2].y < points[0].y and points[0].x < points[1].x < points[2].x
    assert all(math.isfinite(t.at) for t in drawn.x_ticks + drawn.y_ticks)


def test_powers_of_ten_cover_the_data() -> None:
    assert powers_of_ten(0.02, 5.4) == pytest.approx([0.01, 0.1, 1, 10])
    assert powers_of_ten(1.0, 1.0) == pytest.approx([1, 10])
    many = powers_of_ten(1e-9, 1e6)
    assert len(many) <= 7 and many[0] <= 1e-9 and many[-1] >= 1e6


@pytest.mark.parametrize(("low", "logarithmic"), [(0.1, True), (3.0, False), (0.0, False), (-0.1, False)])
def test_losses_are_logarithmic_only_where_they_fall_steeply(low: float, logarithmic: bool) -> None:
    drawn = chart(
        "Loss", "step", [Curve("c", "s1", ((1, 10.0, ""), (2, 1.0 + low, ""), (3, low, "")))], str, decades=True
    )
    assert drawn is not None and ("log scale" in drawn.title) is logarithmic
    assert all(TOP <= p.y <= BOTTOM for p in drawn.series[0].points)


def experiment_of(*paths: Path) -> Experiment:
    return collect(paths).experiments[0]


def test_a_demo_has_all_charts(tmp_path: Path) -> None:
    charts = charts_of(experiment_of(write_demo(tmp_path)))
    assert [c.title for c in charts] == [
        "Accuracy on validation rows",
        "Accuracy against latency",
        "Accuracy against size",
        "Loss of distilled, terms before weighting (log scale)",
        "Training loss (log scale)",
    ]
    learning, latency, _, terms, losses = charts
    assert [s.style for s in learning.series] == ["teacher", "s1", "baseline"]
    assert [p.title for p in latency.series[0].points] == ["teacher: 92.8, 14.5\u00a0ms"]
    assert [s.label for s in terms.series] == ["total loss", "labels", "soft labels", "layers"]
    assert [s.label for s in losses.series] == ["teacher", "baseline"]


def test_charts_without_data_are_left_out(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, 0.9)
    (run / "log.jsonl").unlink()
    assert charts_of(experiment_of(run)) == ()


def test_a_mapping_is_drawn_only_where_it_changed(tmp_path: Path) -> None:
    demo = write_demo(tmp_path)
    (found,) = heat_maps(experiment_of(demo))
    assert found.title == "distilled, layers" and found.students == (1, 2, 3)
    assert [label for label, _ in found.rows] == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    log = demo / "distilled" / "log.jsonl"
    lines = [line for line in log.read_text().splitlines() if '"mapping"' not in line or '"epoch": 0' in line]
    log.write_text("\n".join(lines))
    assert heat_maps(experiment_of(demo)) == ()


def test_a_mapping_that_changed_often_is_cut_and_says_so(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "distill", {"teacher": "t", "layers": 3}, 0.9)
    line = '{"kind": "mapping", "epoch": 0, "step": %d, "term": "layers", "pairs": [[1, %d]]}\n'
    (run / "log.jsonl").write_text("".join(line % (i, 1 + i % 5) for i in range(100)))
    (found,) = heat_maps(experiment_of(run))
    assert len(found.rows) + found.left_out == 100 and len(found.rows) < 30
    assert found.rows[1][0] == "step 1"


def test_noise_does_not_fill_an_axis_and_is_marked(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo", teacher=0.9181, student=0.918, baseline=0.9179)
    latency = next(c for c in charts_of(experiment_of(demo)) if c.title == "Accuracy against latency")
    heights = [p.y for s in latency.series for p in s.points]
    assert max(heights) - min(heights) < (BOTTOM - TOP) / 20
    ((top, bottom),) = latency.bands
    assert TOP < top < bottom < BOTTOM and "points, where differences are noise." in latency.note
    assert (bottom - top) < 0.55 * (BOTTOM - TOP)


def test_a_baseline_is_drawn_last_and_wider_than_the_others(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    size = next(c for c in charts_of(experiment_of(demo)) if c.title == "Accuracy against size")
    assert size.series[-1].style == "baseline"
    assert size.series[-1].radius > max(s.radius for s in size.series[:-1])


def test_a_least_span_widens_an_axis_around_its_values() -> None:
    drawn = chart("t", "x", [Curve("c", "s1", ((1, 0.50, ""), (2, 0.51, "")))], str, least_span=0.2)
    assert drawn is not None
    low, high = (float(t.label) for t in (drawn.y_ticks[0], drawn.y_ticks[-1]))
    assert low <= 0.405 and high >= 0.605
