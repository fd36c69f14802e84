"""The estimate against what a run really computes, keeps and asks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from command_kit import QUICK, arguments, lenient
from torch.utils.flop_counter import FlopCounterMode

from demiglace.cli import main
from demiglace.config.training import TrainConfig
from demiglace.costs.estimate import CostInputs, Seconds, Speed, estimate
from demiglace.costs.flops import activation_bytes
from demiglace.errors import ConfigError
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.loading import load_classifier
from demiglace.models.shape import ModelShape
from demiglace.signals.online import OnlineTeacher
from training_kit import make_loop, objective_of, random_examples, teacher_and_student

LENGTHS = {"train": random_examples(60).lengths, "validation": np.array([4, 9]), "test": np.array([12])}
TRAINING = TrainConfig(epochs=3, batch_size=8, batch_tokens=40)


@pytest.fixture(scope="module")
def shapes() -> tuple[ModelShape, ModelShape]:
    teacher, student = teacher_and_student()
    return ModelShape.of(teacher), ModelShape.of(student)


def setup_of(method: str, **options) -> CostInputs:
    return CostInputs(build_method(method, {}), replace(TRAINING, **options))


def test_operations_are_those_of_a_run(tmp_path, monkeypatch):
    teacher, student = teacher_and_student()
    for model in (teacher, student):
        model.set_attn_implementation("eager")  # the others have no count of their operations
    objective, source = objective_of("vanilla-kd", {}, teacher, student)
    examples = random_examples(16)
    requested = 0

    def fetch(self, batch, phase=0, fetch=OnlineTeacher.fetch):
        nonlocal requested
        with FlopCounterMode(display=False) as counter:
            signals = fetch(self, batch, phase)
        requested += counter.get_total_flops()
        return signals

    monkeypatch.setattr(OnlineTeacher, "fetch", fetch)
    options = {"epochs": 1, "batch_tokens": 40, "diagnostics": "off"}
    loop = make_loop(tmp_path / "run", objective, source, examples, **options)
    with FlopCounterMode(display=False) as counter:
        loop.run()
    setup = replace(setup_of("vanilla-kd", epochs=1), cache=False)
    found = estimate(ModelShape.of(teacher), ModelShape.of(student), {"train": examples.lengths}, setup)
    # biases, norms and the pooler are few, but of so small a model not nothing
    assert found.teacher_flops == pytest.approx(requested, rel=0.1)
    assert found.student_flops == pytest.approx(counter.get_total_flops() - requested, rel=0.1)


def test_operations_on_perturbed_text_are_those_of_a_run(tmp_path):
    teacher, student = teacher_and_student()
    for model in (teacher, student):
        model.set_attn_implementation("eager")
    objective, source = objective_of("combined-kd", {"generator_steps": 1, "student_steps": 2}, teacher, student)
    loop = make_loop(
        tmp_path / "run", objective, source, random_examples(16), epochs=4, batch_tokens=40, diagnostics="off"
    )
    with FlopCounterMode(display=False) as counter:
        loop.run()
    method = build_method("combined-kd", {"generator_steps": 1, "student_steps": 2})
    setup = CostInputs(method, replace(TRAINING, epochs=4), cache=False)
    found = estimate(ModelShape.of(teacher), ModelShape.of(student), {"train": random_examples(16).lengths}, setup)
    assert (found.teacher_passes, found.perturbed_passes) == (3, 3)  # the labels alone in the last of 4 epochs
    shown = (4 + 3) * found.student_flops + 3 * (found.teacher_flops + found.perturbed_flops)
    assert shown == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_process_has_whole_passes_of_its_share(shapes):
    """The loop shares out a step's rows first, and then cuts each share into forward passes."""
    lengths = {"train": np.full(64, 10)}
    setup = setup_of("none", batch_size=16, batch_tokens=40)
    alone, four = (estimate(None, shapes[1], lengths, replace(setup, devices=n)).memory for n in (1, 4))
    assert four.activations == alone.activations == activation_bytes(shapes[1], 4, 10, "fp32", "sdpa")
    wide = replace(setup, devices=4, training=replace(setup.training, batch_tokens=10_000))
    assert estimate(None, shapes[1], lengths, wide).memory == alone  # 4 of 16 rows


def test_memory_of_perturbed_text(shapes):
    teacher, student = shapes
    plain, mate = (estimate(*shapes, LENGTHS, setup_of(method)).memory for method in ("vanilla-kd", "mate-kd"))
    assert (plain.teacher, plain.generator, mate.capture) == (0, 0, 0)
    assert (mate.teacher, mate.generator) == (4 * teacher.parameters, 16 * teacher.parameters)
    assert mate.activations > 3 * plain.activations  # of a generator's step: a student of 3 layers, two models of 6
    masking = AdversarialMasking(train_generator=False)
    fixed = replace(setup_of("mate-kd"), method=replace(build_method("mate-kd", {}), augmentation=masking))
    found = estimate(*shapes, LENGTHS, replace(fixed, generator=student)).memory
    assert (found.generator, found.activations) == (4 * student.parameters, 2 * plain.activations)


@pytest.mark.parametrize("method", ["vanilla-kd", "rail-kd-l", "pkd", "rail-mate"])
def test_the_cache_has_the_size_that_was_told(method, tmp_path, teacher, rows):
    given = {"layers": 2, "method": method, "cache": tmp_path / "cache", "output": tmp_path / "run"} | rows | QUICK
    given["method_options"] = lenient(method)
    assert main(arguments("distill", teacher=teacher, **given)) == 0
    arrays = [np.load(file) for file in (tmp_path / "cache").rglob("*.npy")]
    shape = ModelShape.of(load_classifier(teacher, None))
    lengths = {"train": np.full(len(arrays[0]), 5)}
    found = estimate(shape, replace(shape, num_layers=2), lengths, setup_of(method))
    assert found.cache_bytes == sum(a.nbytes for a in arrays) > 0
    assert found.teacher_passes == 1


def test_seconds_are_operations_over_speed(shapes):
    teacher, student = shapes
    speed = Speed(forward=1e6, training=1e5, update=0.5)
    found = estimate(teacher, student, LENGTHS, setup_of("pkd"), speed)
    assert found.steps == 8
    assert found.seconds == Seconds(
        capture=found.teacher_flops / 1e6,
        training=3 * (found.student_flops / 1e5 + 8 * 0.5),
        validation=found.validation_flops / 1e6,
    )
    online = estimate(teacher, student, LENGTHS, replace(setup_of("pkd"), cache=False), speed)
    assert (online.cache_bytes, online.seconds.capture) == (0, 0)
    asking = 3 * online.teacher_flops / 1e6
    assert online.seconds.training == pytest.approx(3 * (online.student_flops / 1e5 + 8 * 0.5) + asking)
    shared = estimate(teacher, student, LENGTHS, replace(setup_of("pkd"), devices=4), replace(speed, update=0))
    assert shared.seconds.capture == found.seconds.capture / 4
    assert shared.seconds.training == pytest.approx((found.seconds.training - 3 * 8 * 0.5) / 4)
    assert shared.seconds.validation == found.seconds.validation  # every process does all of it
    assert estimate(teacher, student, LENGTHS, setup_of("pkd")) == replace(found, seconds=None)


def test_gradient_checkpointing_costs_a_forward_pass_and_saves_memory(shapes):
    plain = setup_of("pkd")
    less = replace(plain, training=replace(plain.training, gradient_checkpointing=True))
    found, reference = estimate(*shapes, LENGTHS, less), estimate(*shapes, LENGTHS, plain)
    assert 3 * found.student_flops == 4 * reference.student_flops
    assert found.memory.activations < 0.8 * reference.memory.activations


def test_max_steps_count_the_last_epoch_by_its_share(shapes):
    """8 steps an epoch; Annealing-KD has labels alone in its last quarter, here 10 of 26 steps."""
    setup = replace(setup_of("annealing-kd", epochs=1), cache=False)
    setup = replace(setup, training=replace(setup.training, max_steps=26))
    found = estimate(*shapes, LENGTHS, setup, Speed(1e6, 1e5, update=0.5))
    assert (found.steps, found.epochs, found.teacher_passes) == (8, 26 / 8, 3)
    online = 3 * found.teacher_flops / 1e6
    assert found.seconds.training == pytest.approx(26 * (found.student_flops / 8 / 1e5 + 0.5) + online)


def test_without_distillation_no_teacher_is_asked(shapes):
    teacher, student = shapes
    for given in (teacher, None):
        found = estimate(given, student, LENGTHS, setup_of("none"), Speed(1e6, 1e6))
        assert (found.teacher, found.teacher_passes, found.teacher_flops, found.cache_bytes) == (None, 0, 0, 0)
        assert found.seconds.capture == 0
        assert found.memory.teacher == found.memory.capture == 0


def test_a_teacher_that_is_not_cached_is_asked_in_the_phases_that_need_it(shapes):
    annealing = replace(setup_of("annealing-kd", epochs=8), cache=False)  # labels alone in the last quarter
    assert estimate(*shapes, LENGTHS, annealing).teacher_passes == 6
    assert estimate(*shapes, LENGTHS, replace(setup_of("vanilla-kd", epochs=8), cache=False)).teacher_passes == 8


def test_what_is_kept_for_every_token_is_never_cached(shapes):
    found = estimate(*shapes, LENGTHS, setup_of("distil", epochs=8))
    assert (found.cache_bytes, found.teacher_passes) == (0, 8)
    assert found.memory.teacher == 4 * shapes[0].parameters


def test_tokens_are_counted_as_the_loop_pads_them(shapes):
    found = estimate(*shapes, LENGTHS, setup_of("none"))
    assert (found.rows, found.tokens) == (60, LENGTHS["train"].sum())
    assert found.tokens <= found.padded_tokens < 60 * LENGTHS["train"].max()


def test_what_does_not_suit_is_refused(shapes):
    with pytest.raises(ConfigError, match="2 phases and --epochs is 1"):
        estimate(*shapes, LENGTHS, replace(setup_of("annealing-kd", epochs=1), cache=False))


def test_the_random_state_is_left_alone(shapes):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    estimate(*shapes, LENGTHS, setup_of("rail-kd-l"))
    assert torch.equal(torch.get_rng_state(), before)
