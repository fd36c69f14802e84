"""Phases over epochs, and the learning rate."""

import numpy as np
import pytest

from demiglace.errors import ConfigError
from demiglace.training.config import TrainConfig
from demiglace.training.timetable import Timetable, phase_ends


def test_learning_rate_rises_and_falls() -> None:
    table = Timetable.of(TrainConfig(epochs=1, lr=1.0, warmup=0.1), (1.0,), 100)
    rates = [table.learning_rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert 0 < rates[-1] < 0.02
    assert Timetable.of(TrainConfig(epochs=1, lr=1.0, warmup=0.0), (1.0,), 100).learning_rate(0) == 1.0


def test_a_constant_learning_rate_stays_at_its_peak_after_the_warm_up() -> None:
    table = Timetable.of(TrainConfig(epochs=2, lr=0.5, warmup=0.1, lr_scheduler="constant"), (1, 1), 50)
    rates = [table.learning_rate(step) for step in range(100)]
    rise = pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[:5] == rise and rates[50:55] == rise  # each phase has its warm-up
    assert set(rates[5:50] + rates[55:]) == {0.5}


def test_every_phase_has_its_own_rise_and_fall() -> None:
    table = Timetable.of(TrainConfig(epochs=10, lr=1.0, warmup=0.0), (0.7, 0.3), 4)
    rates = [table.learning_rate(step) for step in range(table.steps)]
    assert rates[0] == rates[28] == 1.0
    assert rates[27] == pytest.approx(1 / 28)
    assert rates[39] == pytest.approx(1 / 12)


def test_progress_counts_within_the_phase() -> None:
    table = Timetable.of(TrainConfig(epochs=10, seed=3), (0.7, 0.3), 4)
    first, last = table.progress(27), table.progress(28)
    assert (first.phase, first.epoch, first.phase_epoch, first.phase_epochs) == (0, 6, 6, 7)
    assert first.fraction == pytest.approx(27 / 28)
    assert (last.phase, last.epoch, last.phase_epoch, last.phase_epochs, last.fraction) == (1, 7, 0, 3, 0.0)
    assert last.seed == 3
    assert table.last_phase == 7


@pytest.mark.parametrize(
    ("epochs", "phases", "ends"),
    [
        (3, (1.0,), (3,)),
        (10, (0.7, 0.3), (7, 10)),
        (2, (0.99, 0.01), (1, 2)),
        (2, (0.01, 0.99), (1, 2)),
        (13, (10, 3), (10, 13)),
        (4, (1, 1, 1), (1, 3, 4)),
    ],
)
def test_phases_share_the_epochs(epochs: int, phases: tuple[float, ...], ends: tuple[int, ...]) -> None:
    assert phase_ends(epochs, phases) == ends


def test_fewer_epochs_than_phases_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 phases and --epochs is 1"):
        phase_ends(1, (0.5, 0.5))
