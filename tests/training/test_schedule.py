"""The schedule: phases over epochs, and the learning rate."""

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from demiglace.config.training import TrainConfig, check_options
from demiglace.errors import ConfigError
from demiglace.methods.registry import METHODS, build_method
from demiglace.training.schedule import TrainingSchedule, check_max_steps, check_phases, phase_ends


def test_learning_rate_rises_and_falls() -> None:
    table = TrainingSchedule.of(TrainConfig(epochs=1, learning_rate=1.0, warmup_ratio=0.1), (1.0,), 100)
    rates = [table.learning_rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert 0 < rates[-1] < 0.02
    assert (
        TrainingSchedule.of(TrainConfig(epochs=1, learning_rate=1.0, warmup_ratio=0.0), (1.0,), 100).learning_rate(0)
        == 1.0
    )


def test_a_constant_learning_rate_stays_at_its_peak_after_the_warm_up() -> None:
    table = TrainingSchedule.of(
        TrainConfig(epochs=2, learning_rate=0.5, warmup_ratio=0.1, lr_scheduler="constant"), (1, 1), 50
    )
    rates = [table.learning_rate(step) for step in range(100)]
    rise = pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[:5] == rise and rates[50:55] == rise  # each phase has its warm-up
    assert set(rates[5:50] + rates[55:]) == {0.5}


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ("linear", "linear", {}),
        ("cosine", "cosine", {}),
        ("constant", "constant_with_warmup", {}),
        ("wsd", "warmup_stable_decay", {"num_decay_steps": 20, "decay_type": "1-sqrt"}),
    ],
)
def test_after_the_warm_up_the_schedules_are_those_of_transformers(ours: str, theirs: str, options: dict) -> None:
    config = TrainConfig(epochs=2, learning_rate=0.5, warmup_ratio=0.1, lr_scheduler=ours, decay_ratio=0.2)
    table = TrainingSchedule.of(config, (1.0,), 50)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    reference = get_scheduler(theirs, optimizer, 10, 100, scheduler_specific_kwargs=options).lr_lambdas[0]
    rates = [table.learning_rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert rates[10:] == pytest.approx([0.5 * reference(step) for step in range(10, 100)])


def test_shares_of_warm_up_and_decay_above_all_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--warmup-ratio 0.6 and --decay-ratio 0.5 are more than all steps"):
        check_options(TrainConfig(lr_scheduler="wsd", warmup_ratio=0.6, decay_ratio=0.5))


def test_the_learning_rate_falls_to_the_last_of_max_steps() -> None:
    config = TrainConfig(epochs=1, max_steps=70, learning_rate=1.0, warmup_ratio=0.0)
    table = TrainingSchedule.of(config, (1.0,), 20)
    assert (table.steps, table.epochs, table.ends) == (70, 4, (4,))
    assert table.learning_rate(0) == 1.0 and table.learning_rate(69) == pytest.approx(1 / 70)
    assert table.progress(35).fraction == 0.5
    two = TrainingSchedule.of(config, (0.5, 0.5), 20)
    assert (two.ends, two.steps_of_phase(0), two.steps_of_phase(1)) == ((2, 4), 40, 30)
    assert two.learning_rate(40) == 1.0 and two.learning_rate(69) == pytest.approx(1 / 30)


def test_max_steps_that_end_a_phase_too_early_are_refused() -> None:
    method = build_method("minilm", {})
    message = r"With --max-steps 29, in epochs of 10 steps, .* Give --max-steps 40 or more"
    with pytest.raises(ConfigError, match=message):
        check_max_steps("minilm", method, TrainConfig(max_steps=29, batch_size=8), 73)
    check_max_steps("minilm", method, TrainConfig(max_steps=31, batch_size=8), 73)
    check_max_steps("minilm", method, TrainConfig(max_steps=11, batch_size=8), 73, least=1)


def test_every_phase_has_its_own_rise_and_fall() -> None:
    table = TrainingSchedule.of(TrainConfig(epochs=10, learning_rate=1.0, warmup_ratio=0.0), (0.7, 0.3), 4)
    rates = [table.learning_rate(step) for step in range(table.steps)]
    assert rates[0] == rates[28] == 1.0
    assert rates[27] == pytest.approx(1 / 28)
    assert rates[39] == pytest.approx(1 / 12)


def test_progress_counts_within_the_phase() -> None:
    table = TrainingSchedule.of(TrainConfig(epochs=10, seed=3), (0.7, 0.3), 4)
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
def test_epochs_are_divided_among_phases(epochs: int, phases: tuple[float, ...], ends: tuple[int, ...]) -> None:
    assert phase_ends(epochs, phases) == ends


def test_fewer_epochs_than_phases_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 phases and --epochs is 1"):
        phase_ends(1, (0.5, 0.5))


def test_the_first_epoch_of_a_phase() -> None:
    table = TrainingSchedule.of(TrainConfig(epochs=6), (1, 1, 1), 4)
    assert [table.first_of_phase(epoch) for epoch in range(6)] == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize(
    ("name", "refused", "enough"),
    [("tinybert", 6, 7), ("annealing-kd", 5, 6), ("combined-kd", 5, 6), ("rail-annealing", 5, 6), ("minilm", 3, 4)],
)
def test_phases_of_one_epoch_are_refused(name: str, refused: int, enough: int) -> None:
    for epochs in (1, 3, refused):
        with pytest.raises(ConfigError, match=f"method {name} trains in 2 phases.* Give --epochs {enough} or more"):
            check_phases(name, build_method(name, {}), epochs)
    check_phases(name, build_method(name, {}), enough)
    check_phases(name, build_method(name, {"short_phases": True}), 2)


def test_short_phases_still_need_an_epoch_each() -> None:
    with pytest.raises(
        ConfigError, match=r"the shortest has 0, and each phase needs at least 1. Give --epochs 2 or more"
    ):
        check_phases("tinybert", build_method("tinybert", {"short_phases": True, "transfer_share": 0.99}), 1)


def test_a_small_share_needs_many_epochs() -> None:
    with pytest.raises(ConfigError, match=r"of 99% and 1% of the epochs. .* Give --epochs 150 or more"):
        check_phases("tinybert", build_method("tinybert", {"transfer_share": 0.99}), 100)


@pytest.mark.parametrize("name", [n for n in METHODS if len(build_method(n, {}).phases) == 1])
def test_methods_of_one_phase_accept_any_number_of_epochs(name: str) -> None:
    check_phases(name, build_method(name, {}), 1)


def test_the_papers_epochs_are_divided_as_in_the_papers() -> None:
    """TinyBERT: 10 and 3 epochs; Annealing-KD: 30 and 10."""
    assert phase_ends(13, build_method("tinybert", {}).phases) == (10, 13)
    assert phase_ends(40, build_method("annealing-kd", {}).phases) == (30, 40)
