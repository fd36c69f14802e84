"""The generator of MATE-KD: the perturbed text and the generator's training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForMaskedLM

from demiglace.data.batching import Batch, collate
from demiglace.errors import ModelError
from demiglace.losses.divergences import forward_kl
from demiglace.methods.base import TrainingProgress
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.masked_lm import lm_with_tied_head, load_masked_lm
from demiglace.signals.request import SignalRequest
from demiglace.training.adversarial_generator import AdversarialGenerator, Vocabulary, _logits_of, _sample_tokens
from factories import ARCHITECTURES, DECODERS, VOCABULARY, tiny_model
from training_kit import ADVERSARIES, make_loop, objective_of, random_examples, teacher_and_student

NOW = TrainingProgress(seed=0, epoch=0, step=0)
SPECIAL = (0, 1, 2, 3, 4)


def adversary_of(teacher: Any, **options: Any) -> AdversarialGenerator:
    masking = AdversarialMasking(**options)
    vocabulary = Vocabulary(4, SPECIAL, len(VOCABULARY))
    return AdversarialGenerator(
        masking, lm_with_tied_head(teacher), teacher, SignalRequest(logits=True), vocabulary, "fp32"
    )


def batch_of(count: int, rows: list[int] | None = None, special: bool = True) -> Batch:
    examples = random_examples(count)
    if special:  # the first token of each row is one that must stay
        examples.ids[examples.offsets[:-1]] = 2
    return collate(examples, np.arange(count) if rows is None else np.array(rows))


def same(value: torch.Tensor) -> torch.Tensor:
    return value


def test_the_given_share_of_tokens_is_replaced_but_no_special_ones() -> None:
    teacher, _ = teacher_and_student()
    batch = batch_of(200)
    places, _ = adversary_of(teacher, mask_share=0.3)._sample_mask(batch, NOW)
    ordinary = batch.attention_mask.bool() & (batch.input_ids != 2)
    assert not places[~ordinary].any()
    assert places[ordinary].float().mean().item() == pytest.approx(0.3, abs=0.04)
    ids = adversary_of(teacher, mask_share=1.0).perturb(batch, NOW).batch.input_ids
    assert (ids[~ordinary] == batch.input_ids[~ordinary]).all()
    assert not torch.isin(ids[ordinary], torch.tensor(SPECIAL)).any()
    assert (ids[ordinary] != batch.input_ids[ordinary]).float().mean() > 0.9


def test_a_mask_token_that_is_a_word_is_neither_masked_nor_generated() -> None:
    teacher, _ = teacher_and_student()
    word, special = 50, SPECIAL[:4]
    adversary = adversary_of(teacher, mask_share=1.0)
    adversary._vocabulary = Vocabulary(word, special, len(VOCABULARY))
    adversary._generator.body.get_input_embeddings().weight.data[word] *= 100  # it would often be drawn
    batch = batch_of(20)
    batch.input_ids[:, 1] = word
    places, _ = adversary._sample_mask(batch, NOW)
    ids = adversary.perturb(batch, NOW).batch.input_ids
    assert not places[batch.input_ids == word].any() and places.any()
    assert (ids[places] != word).all()
    assert Vocabulary(60, special, 60).protected == Vocabulary(None, special, 60).protected == list(special)


def test_perturbed_text_depends_only_on_seed_epoch_and_row() -> None:
    teacher, _ = teacher_and_student()
    adversary = adversary_of(teacher)
    whole = adversary.perturb(batch_of(12), NOW).batch
    part = adversary.perturb(batch_of(12, [7, 2]), replace(NOW, step=99)).batch
    for i, row in enumerate([7, 2]):
        size = int(part.attention_mask[i].sum())
        assert torch.equal(part.input_ids[i, :size], whole.input_ids[row, :size])
    for other in (replace(NOW, epoch=1), replace(NOW, seed=1)):
        assert not torch.equal(adversary.perturb(batch_of(12), other).batch.input_ids, whole.input_ids)


def test_the_teachers_signals_are_for_the_perturbed_text() -> None:
    teacher, _ = teacher_and_student()
    perturbed = adversary_of(teacher).perturb(batch_of(6), NOW)
    with torch.no_grad():
        expected = teacher(**perturbed.batch.inputs).logits
    assert perturbed.teacher.logits is not None
    torch.testing.assert_close(perturbed.teacher.logits, expected)
    assert not perturbed.teacher.logits.requires_grad


def divergence(adversary: AdversarialGenerator, student: Any, batch: Batch) -> float:
    """Return the mean KL(T ‖ S) over the perturbed text of twenty epochs."""
    values = []
    for epoch in range(20):
        perturbed = adversary.perturb(batch, replace(NOW, epoch=epoch))
        with torch.no_grad():
            own = student(**perturbed.batch.inputs).logits
        values.append(forward_kl(own, perturbed.teacher.logits, 1.0).mean().item())
    return float(np.mean(values))


@pytest.mark.parametrize("seed", [0, 1])
def test_training_the_generator_increases_the_divergence(seed: int) -> None:
    torch.manual_seed(seed)
    teacher, student = teacher_and_student()
    with torch.no_grad():  # so that there is something to part
        teacher.classifier.weight.mul_(20)
        student.classifier.weight.mul_(20)
    batch = batch_of(16)
    trained = adversary_of(teacher, generator_lr=1e-2)
    random = adversary_of(teacher, train_generator=False)
    before = divergence(trained, student, batch)
    assert before == pytest.approx(divergence(random, student, batch))
    for epoch in range(15):
        trained.train_step(student, [batch], 16.0, replace(NOW, epoch=100 + epoch), same)
    with torch.no_grad():
        plain = forward_kl(student(**batch.inputs).logits, teacher(**batch.inputs).logits, 1.0).mean().item()
    after = divergence(trained, student, batch)
    assert after > 1.2 * before
    assert after > plain
    assert trained.diagnostics()["generator_divergence"] > 0


def test_only_the_generator_gets_gradients() -> None:
    teacher, student = teacher_and_student()
    adversary = adversary_of(teacher, generator_lr=1e-2)
    weights = [{n: p.clone() for n, p in m.named_parameters()} for m in (teacher, student, adversary._generator)]
    student.train()
    adversary.train_step(student, [batch_of(6)], 6.0, NOW, same)
    assert student.training
    assert all(p.grad is None for m in (teacher, student) for p in m.parameters())
    for model, before in zip((teacher, student), weights, strict=False):
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert any(not torch.equal(p, weights[2][n]) for n, p in adversary._generator.named_parameters())


def test_a_step_in_microbatches_equals_one_batch() -> None:
    teacher, student = teacher_and_student()
    one, parts = (adversary_of(teacher, generator_lr=1e-2) for _ in range(2))
    whole_gradients: list[torch.Tensor] = []
    parts_gradients: list[torch.Tensor] = []
    one.train_step(student, [batch_of(6)], 6.0, NOW, lambda g: whole_gradients.append(g) or g)
    parts.train_step(student, [batch_of(6, [i]) for i in range(6)], 6.0, NOW, lambda g: parts_gradients.append(g) or g)
    assert one.divergence == pytest.approx(parts.divergence, rel=1e-4)
    for whole, part in zip(whole_gradients, parts_gradients, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-3, atol=1e-6)


def test_forward_pass_uses_hard_one_hot_tokens() -> None:
    teacher, _ = teacher_and_student()
    adversary = adversary_of(teacher)
    logits = torch.randn(7, 60, requires_grad=True)
    chosen = adversary._straight_through(logits, torch.zeros(7, 60))
    assert torch.equal(chosen.detach().round().sum(-1), torch.ones(7))
    torch.testing.assert_close(chosen.detach(), chosen.detach().round())
    (chosen * torch.randn(7, 60)).sum().backward()
    assert logits.grad is not None and (logits.grad != 0).all()


def test_samples_follow_the_generators_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.0, 0.2]).log().expand(20_000, 4)
    found = _sample_tokens(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    assert torch.bincount(found, minlength=4) / 20_000 == pytest.approx([0.5, 0.3, 0.0, 0.2], abs=0.02)


def test_gumbel_samples_follow_the_generators_probabilities() -> None:
    teacher, _ = teacher_and_student()
    adversary, batch = adversary_of(teacher, mask_share=1.0), batch_of(60)
    places, _ = adversary._sample_mask(batch, NOW)
    logits = torch.zeros(int(places.sum()), teacher.config.vocab_size)
    logits[:, 7] = 5.0
    chosen = adversary._straight_through(logits, adversary._noise(batch, places, NOW))
    assert chosen[:, 7].mean().item() == pytest.approx(logits[0].softmax(-1)[7].item(), abs=0.08)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_hot_rows_equal_the_tokens(arch: str) -> None:
    model, batch = tiny_model(arch), batch_of(6)
    if arch in DECODERS:  # they have no segments
        batch = replace(batch, token_type_ids=None)
    places = batch.attention_mask.bool()
    chosen = torch.nn.functional.one_hot(batch.input_ids[places], model.config.vocab_size).float()
    with torch.no_grad():
        expected = model(**batch.inputs).logits
        torch.testing.assert_close(_logits_of(model, batch, places, chosen), expected, rtol=1e-4, atol=1e-5)


def test_the_log_has_the_divergence_of_the_generators_last_step(tmp_path: Path) -> None:
    teacher, student = teacher_and_student()
    objective, source = objective_of("mate-kd", {"generator_steps": 1, "student_steps": 3}, teacher, student)
    adversary, found = ADVERSARIES[objective], {}
    original = adversary.train_step

    def noted(*args: Any) -> None:
        original(*args)
        found[args[3].step] = adversary.divergence

    adversary.train_step = noted  # type: ignore[method-assign]
    make_loop(tmp_path, objective, source, random_examples(40)).run()
    assert list(found) == [0, 3, 6, 9]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = [r["diagnostics"]["generator_divergence"] for r in lines if r["kind"] == "step"]
    assert logged == [found[step - step % 3] for step in range(10)]


@pytest.mark.parametrize("objective", ["kl", "mse"])
def test_the_generator_maximizes_its_objective(objective: str) -> None:
    """MATE-KD: KL(teacher ‖ student); Combined-KD: the mean squared error of the logits, averaged over the classes."""
    teacher, student = teacher_and_student()
    with torch.no_grad():
        teacher.classifier.weight.mul_(20)
    adversary, batch = adversary_of(teacher, objective=objective, generator_lr=0.0), batch_of(6)
    seen, original = [], adversary._straight_through

    def noted(logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        seen.append(original(logits, noise))
        return seen[-1]

    adversary._straight_through = noted  # type: ignore[method-assign]
    adversary.train_step(student, [batch], 6.0, NOW, same)
    ids, (places, _) = batch.input_ids.clone(), adversary._sample_mask(batch, NOW)
    ids[places] = seen[0].argmax(-1)
    with torch.no_grad():
        ours, theirs = (m(**batch.inputs | {"input_ids": ids}).logits for m in (student.eval(), teacher))
    expected = forward_kl(ours, theirs, 1.0).mean() if objective == "kl" else F.mse_loss(ours, theirs)
    assert adversary.divergence == pytest.approx(float(expected), rel=1e-4)


def test_the_objective_of_each_method() -> None:
    made = {name: build_method(name, {}).augmentation for name in ("mate-kd", "rail-mate", "combined-kd")}
    assert {name: m.objective for name, m in made.items()} == {"mate-kd": "kl", "rail-mate": "kl", "combined-kd": "mse"}
    assert build_method("combined-kd", {"objective": "kl"}).augmentation == AdversarialMasking()


def test_the_generator_trains_ten_steps_in_a_hundred() -> None:
    options = AdversarialMasking()
    assert [s for s in range(300) if options.trains_at(s)] == [*range(10), *range(100, 110), *range(200, 210)]
    assert not AdversarialMasking(train_generator=False).trains_at(0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "distilbert"])
def test_masked_language_models_predict_at_selected_positions(kind: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    config = AutoConfig.for_model(kind, vocab_size=60, max_position_embeddings=40, **sizes)
    model = AutoModelForMaskedLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    inputs = {"input_ids": torch.randint(5, 60, (3, 8)), "attention_mask": torch.ones(3, 8, dtype=torch.long)}
    places = torch.rand(3, 8) < 0.4
    with torch.no_grad():
        found = load_masked_lm(str(tmp_path)).eval()(inputs, places)
        torch.testing.assert_close(found, model(**inputs).logits[places])


def test_a_generator_of_another_kind_is_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("deberta-v2", num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match="is a deberta-v2 model; give a causal language model, or a masked one of type bert, roberta"
    ):
        load_masked_lm(str(tmp_path))
