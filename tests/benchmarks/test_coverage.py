"""A small part of the simulation of the tests' size and power."""

from dataclasses import replace

import pytest


@pytest.fixture
def script(load):
    load("kit.py")
    return load("coverage.py")


@pytest.mark.parametrize(("design", "metric"), [("residual noise", "accuracy"), ("test-row variance", "f1")])
def test_without_an_effect_one_in_twenty_is_found(script, design, metric):
    setting = replace(script.DESIGNS[design], rows=150)
    found = script.simulate(setting, metric, 0.0, (500, 500), 1)
    # 0.05 ± 3 standard errors of 500 comparisons
    assert 0.021 < found["rejected"] < 0.079
    assert found["old"] < 0.021
    assert found["covered"] == pytest.approx(1 - found["rejected"])


def test_an_effect_is_found_more_often_than_by_the_old_test(script):
    setting = replace(script.DESIGNS["residual noise"], rows=150)
    found = script.simulate(setting, "accuracy", 0.05, (200, 200), 1)
    assert found["rejected"] > found["old"] + 0.1
    assert found["equivalence"] < 0.1  # methods that differ by the margin are not equivalent
