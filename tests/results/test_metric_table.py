"""The table of metrics agrees with what `evaluate` computes."""

from demiglace.evaluation.scores import METRICS
from demiglace.results.metric_table import metric_of


def test_every_metric_of_evaluate_has_its_direction_and_name() -> None:
    for name, metric in METRICS.items():
        found = metric_of(name)
        assert (found.higher_is_better, found.phrase) == (metric.higher_is_better, metric.title)
        assert found.unit == ("points" if metric.higher_is_better else "plain")


def test_an_unknown_metric_is_a_plain_number_under_its_name() -> None:
    found = metric_of("my_metric")
    assert (found.title, found.unit, found.sign, found.scale) == ("my metric", "plain", 1, 1)
