"""The generator of MATE-KD for decoders: each position is predicted from earlier tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from demiglace.data.batching import Batch, collate
from demiglace.data.tokenize import TokenizedSplit
from demiglace.losses.divergences import forward_kl
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.masked_lm import lm_with_tied_head, load_masked_lm
from demiglace.signals.request import SignalRequest
from demiglace.training.adversarial_generator import AdversarialGenerator, Vocabulary
from factories import DECODERS, VOCABULARY, tiny_config, tiny_model
from training_kit import make_loop, objective_of, random_examples, teacher_and_student

NOW = TrainingProgress(seed=0, epoch=0, step=0)
SPECIAL = (0, 1, 2, 3)
decoders = pytest.mark.parametrize("arch", DECODERS)


def adversary_of(teacher: PreTrainedModel, **options: Any) -> AdversarialGenerator:
    vocabulary = Vocabulary(None, SPECIAL, len(VOCABULARY))
    masking = AdversarialMasking(**options)
    return AdversarialGenerator(
        masking, lm_with_tied_head(teacher), teacher, SignalRequest(logits=True), vocabulary, "fp32"
    )


def examples_of(count: int, left: bool = False) -> TokenizedSplit:
    return replace(random_examples(count), pad_left=left, type_ids=None)


def batch_of(count: int, left: bool = False) -> Batch:
    return collate(examples_of(count, left), np.arange(count))


def sharp(arch: str, seed: int) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a model with larger weights, so that teacher and student differ."""
    torch.manual_seed(seed)
    teacher, student = teacher_and_student(arch=arch)
    with torch.no_grad():
        for model in (teacher, student):
            model.score.weight.normal_(0, 0.5)
    return teacher, student


def divergence(teacher: PreTrainedModel, student: PreTrainedModel, batch: Batch) -> float:
    """Return the mean KL(T ‖ S)."""
    with torch.no_grad():
        return float(forward_kl(student(**batch.inputs).logits, teacher(**batch.inputs).logits, 1.0).mean())


def over_epochs(
    perturbed: Callable[[TrainingProgress], Batch], teacher: PreTrainedModel, student: PreTrainedModel
) -> float:
    return float(np.mean([divergence(teacher, student, perturbed(replace(NOW, epoch=e))) for e in range(20)]))


@decoders
@pytest.mark.parametrize("seed", [0, 1])
def test_perturbed_text_has_a_larger_divergence_than_random_or_plain_text(arch: str, seed: int) -> None:
    teacher, student = sharp(arch, seed)
    batch, adversary = batch_of(16), adversary_of(teacher, generator_lr=1e-2, mask_share=0.5)

    def at_random(now: TrainingProgress) -> Batch:
        """Return random tokens at the positions that the generator would replace."""
        places, _ = adversary._sample_mask(batch, now)
        ids = batch.input_ids.clone()
        drawn = torch.Generator().manual_seed(now.epoch)
        ids[places] = torch.randint(len(SPECIAL), len(VOCABULARY), (int(places.sum()),), generator=drawn)
        return replace(batch, input_ids=ids)

    before = over_epochs(lambda now: adversary.perturb(batch, now).batch, teacher, student)
    for epoch in range(20):
        adversary.train_step(student, [batch], 16.0, replace(NOW, epoch=100 + epoch), lambda value: value)
    after = over_epochs(lambda now: adversary.perturb(batch, now).batch, teacher, student)
    assert after > 1.2 * before
    assert after > 1.2 * over_epochs(at_random, teacher, student)
    assert after > 1.2 * divergence(teacher, student, batch)


@decoders
@pytest.mark.parametrize("left", [False, True])
def test_the_first_token_and_padding_are_never_replaced(arch: str, left: bool) -> None:
    teacher, _ = teacher_and_student(arch=arch)
    batch = batch_of(12, left)
    places, draws = adversary_of(teacher, mask_share=1.0)._sample_mask(batch, NOW)
    expected = batch.attention_mask.bool().clone()
    expected[torch.arange(12), batch.attention_mask.argmax(1)] = False
    assert torch.equal(places, expected)
    assert len(draws) == places.sum()
    ids = adversary_of(teacher, mask_share=1.0).perturb(batch, NOW).batch.input_ids
    assert torch.equal(ids[~places], batch.input_ids[~places])
    assert not torch.isin(ids[places], torch.tensor(SPECIAL)).any()
    assert (ids[places] != batch.input_ids[places]).float().mean() > 0.8


def test_perturbed_text_does_not_depend_on_the_padding_side() -> None:
    teacher, _ = teacher_and_student(arch="llama")
    ids = []
    for left in (False, True):
        perturbed = adversary_of(teacher).perturb(batch_of(12, left), NOW).batch
        ids.append(perturbed.input_ids[perturbed.attention_mask.bool()])
    assert torch.equal(*ids)
    assert not torch.equal(ids[0], batch_of(12).input_ids[batch_of(12).attention_mask.bool()])


@decoders
def test_a_position_is_predicted_only_from_earlier_tokens(arch: str) -> None:
    generator = lm_with_tied_head(tiny_model(arch, num_layers=2))
    inputs = {"input_ids": torch.randint(5, 60, (3, 8)), "attention_mask": torch.ones(3, 8, dtype=torch.long)}
    places = torch.zeros(3, 8, dtype=torch.bool)
    places[:, 4] = True
    with torch.no_grad():
        found = generator(inputs, places)
        for t, is_seen in ((3, True), (4, False), (6, False)):
            ids = inputs["input_ids"].clone()
            ids[:, t] = (ids[:, t] - 4) % 55 + 5
            assert torch.allclose(generator(inputs | {"input_ids": ids}, places), found, atol=1e-5) != is_seen


@decoders
def test_a_causal_language_model_is_a_generator(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(arch, num_layers=2)).eval()
    model.save_pretrained(tmp_path)
    inputs = {"input_ids": torch.randint(5, 60, (3, 8)), "attention_mask": torch.ones(3, 8, dtype=torch.long)}
    places = torch.rand(3, 8) < 0.4
    places[:, 0] = False
    with torch.no_grad():
        logits = model(**inputs).logits
        expected = [logits[row, place - 1] for row, place in places.nonzero().tolist()]
        found = load_masked_lm(str(tmp_path)).eval()(inputs, places)
    torch.testing.assert_close(found, torch.stack(expected))


@decoders
def test_only_the_generator_gets_gradients(arch: str) -> None:
    teacher, student = teacher_and_student(arch=arch)
    adversary = adversary_of(teacher, generator_lr=1e-2)
    before = [{n: p.clone() for n, p in m.named_parameters()} for m in (teacher, student, adversary._generator)]
    adversary.train_step(student, [batch_of(6)], 6.0, NOW, lambda value: value)
    assert all(p.grad is None for m in (teacher, student) for p in m.parameters())
    for model, weights in zip((teacher, student), before, strict=False):
        assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())
    assert any(not torch.equal(p, before[2][n]) for n, p in adversary._generator.named_parameters())


@decoders
@pytest.mark.parametrize("method", ["mate-kd", "combined-kd", "rail-mate"])
def test_resumed_equals_uninterrupted(arch: str, method: str, tmp_path: Path) -> None:
    options = {"generator_lr": 1e-2, "generator_steps": 1, "student_steps": 2}

    def train(directory: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        teacher, student = teacher_and_student(arch=arch)
        objective, source = objective_of(method, options, teacher, student)
        loop = make_loop(directory, objective, source, examples_of(40))
        if stop_at is None:
            loop.run()
        else:
            loop._check_finite = stopper(loop, stop_at)  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                loop.run()
        return {k: v.clone() for k, v in objective.state_dict().items()}

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", stop_at=3)
    resumed = train(tmp_path / "cut")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def stopper(loop: Any, step: int) -> Callable[..., None]:
    original = loop._check_finite

    def stop(*args: Any) -> None:
        original(*args)
        if loop.state.step == step:
            raise KeyboardInterrupt

    return stop
