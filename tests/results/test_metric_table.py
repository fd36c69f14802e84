"""Metrics by name: reports write those of the kinds of problems as the kinds define them."""

from demiglace.results.metric_table import metric_of
from demiglace.tasks.registry import TASK_KINDS, all_metrics, row_metrics


def test_every_metric_of_a_kind_has_its_direction_and_unit() -> None:
    lower = {"mse", "loss", "perplexity"}
    for name, metric in all_metrics().items():
        assert metric_of(name) is metric
        expected = (-1, "plain", 1) if name in lower else (1, "points", 100)
        assert (metric.sign, metric.unit, metric.scale) == expected, name


def test_metrics_of_rows_can_be_computed_and_those_of_one_name_are_written_alike() -> None:
    assert all(metric.function is not None for metric in row_metrics().values())
    for task in TASK_KINDS.values():
        for name, metric in task.metrics.items():
            known = metric_of(name)
            assert (metric.title, metric.phrase, metric.sign) == (known.title, known.phrase, known.sign), task.name


def test_an_unknown_metric_is_a_plain_number_under_its_name() -> None:
    found = metric_of("my_metric")
    assert (found.title, found.unit, found.sign, found.scale) == ("my metric", "plain", 1, 1)
