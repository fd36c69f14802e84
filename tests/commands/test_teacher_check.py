"""The first look at a teacher and at a generator: whether they are better than chance."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import QUICK, arguments, lenient

from demiglace.cli import main
from demiglace.data.batching import Batch, collate
from demiglace.data.tokenize import select
from demiglace.distillation.teacher_check import GeneratorSkill, check_generator, check_teacher_accuracy
from demiglace.errors import ModelError
from demiglace.evaluation.predict import predict
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.masked_lm import lm_with_tied_head
from demiglace.runs.directory import read_manifest
from demiglace.signals.request import SignalRequest
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION
from demiglace.training.adversarial_generator import AdversarialGenerator, Vocabulary
from factories import VOCABULARY, tiny_model
from training_kit import random_examples


def test_rows_are_selected_whole_and_in_order():
    examples = random_examples(20)
    some = select(examples, np.array([7, 2, 2]))
    assert len(some) == 3
    for new, old in enumerate([7, 2, 2]):
        places = slice(examples.offsets[old], examples.offsets[old + 1])
        assert np.array_equal(some.ids[some.offsets[new] : some.offsets[new + 1]], examples.ids[places])
        assert some.labels[new] == examples.labels[old]
    assert len(some.type_ids) == len(some.ids)


def labelled_by(model, rows, wrong: int = 0):
    """The rows with the model's own answers as their labels, the first `wrong` of them false."""
    labels = predict(model, rows).argmax(axis=1)
    labels[:wrong] = (labels[:wrong] + 1) % 3
    return replace(rows, labels=labels)


def test_a_good_teacher_is_told_of(capsys):
    teacher = tiny_model("bert", seed=1)
    rows = labelled_by(teacher, random_examples(50), wrong=5)
    check_teacher_accuracy(teacher, rows, "fp32", 10_000, CLASSIFICATION)
    lines = capsys.readouterr().err.splitlines()
    chance = np.bincount(rows.labels).max() / 50
    assert lines[0] == f"teacher: in eval mode, accuracy 0.900 on 50 validation rows, {chance:.3f} by chance"
    assert ("warning" in "".join(lines)) == (chance >= 0.9)


def test_a_teacher_no_better_than_chance_is_warned_of(capsys):
    teacher = tiny_model("bert")
    rows = labelled_by(teacher, random_examples(300), wrong=300)
    check_teacher_accuracy(teacher, rows, "fp32", 10_000, CLASSIFICATION)
    shown, warning = capsys.readouterr().err.splitlines()
    assert "accuracy 0.000 on 156 validation rows" in shown
    assert warning.startswith("warning: the teacher is no better than chance")


@pytest.mark.parametrize(("training_rows", "looked_at"), [(10, 64), (6400, 100), (400_000, 256)])
def test_more_rows_are_looked_at_in_longer_runs(training_rows, looked_at, capsys):
    check_teacher_accuracy(tiny_model("bert"), random_examples(300), "fp32", training_rows, CLASSIFICATION)
    assert f" on {looked_at} validation rows" in capsys.readouterr().err


@pytest.mark.parametrize("training", [True, False])
def test_numbers_are_held_against_their_mean(training, capsys):
    teacher = tiny_model("bert", num_labels=1).train(training)
    check_teacher_accuracy(teacher, random_examples(30, regression=True), "fp32", 10_000, REGRESSION)
    shown = capsys.readouterr().err
    assert "R² " in shown
    assert "0.000 by chance" in shown
    assert ("not in eval mode" in shown) == training


def test_distill_tells_both(tmp_path, teacher, rows, capsys):
    given = {"teacher": teacher, "layers": 2, "method": "vanilla-kd"} | rows | QUICK
    assert main(arguments("distill", output=tmp_path / "run", **given)) == 0
    shown = capsys.readouterr().err
    assert "teacher: in eval mode, accuracy 0." in shown
    assert " on 12 validation rows, 0.583 by chance" in shown
    assert "first steps: loss terms and their shares of the gradient at layer " in shown
    assert main(arguments("distill", output=tmp_path / "off", diagnostics="off", **given)) == 0
    shown = capsys.readouterr().err
    assert "teacher: " not in shown
    assert "first steps" not in shown


class Knowing:
    """Stands for an adversary: its generator is right about this share of the tokens, all of which it refills."""

    device = torch.device("cpu")

    def __init__(self, share: float, **options: Any):
        self.options, self._share = AdversarialMasking(**options), share

    def predictions(self, batch: Batch, now: TrainingProgress) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = batch.input_ids[batch.attention_mask.bool()]
        is_right = torch.rand(len(tokens), generator=torch.Generator().manual_seed(0)) < self._share
        return tokens, torch.where(is_right, tokens, torch.zeros_like(tokens))


def test_a_good_generator_is_told_of(capsys):
    rows = random_examples(100)
    skill = check_generator(Knowing(0.4), rows, 10_000)
    assert skill.tokens == len(rows.ids)
    assert skill.accuracy == pytest.approx(0.4, abs=0.05)
    assert skill.most_frequent == np.bincount(rows.ids).max() / len(rows.ids)
    shown = (
        f"generator: predicts {skill.accuracy:.1%} of {skill.tokens:,} masked tokens; the most frequent token would be"
    )
    assert capsys.readouterr().err.startswith(shown)


def test_a_poor_generator_is_refused_unless_it_is_allowed(capsys):
    rows = random_examples(100)
    with pytest.raises(
        ModelError, match=r"made of the teacher's own body, predicts 0.0% of .*allow-poor-generator true"
    ):
        check_generator(Knowing(0.0), rows, 10_000)
    with pytest.raises(ModelError, match=r"the generator predicts .*demiglace pretrain --model"):
        check_generator(Knowing(0.05, generator="some/model"), rows, 10_000)
    assert check_generator(Knowing(0.0, allow_poor_generator=True), rows, 10_000).is_poor
    assert "generator: predicts 0.0% of" in capsys.readouterr().err


def test_predicting_the_most_frequent_token_alone_is_poor():
    assert GeneratorSkill(tokens=1000, accuracy=0.3, most_frequent=0.3).is_poor
    assert not GeneratorSkill(tokens=1000, accuracy=0.3, most_frequent=0.05).is_poor


def test_a_generators_accuracy_is_that_of_its_logits_at_the_refilled_tokens():
    teacher, rows = tiny_model("bert"), random_examples(40)
    masking, special = AdversarialMasking(allow_poor_generator=True), (0, 1, 2, 3, 4)
    vocabulary = Vocabulary(4, special, len(VOCABULARY))
    adversary = AdversarialGenerator(
        masking, lm_with_tied_head(teacher), teacher, SignalRequest(logits=True), vocabulary, "fp32"
    )
    skill = check_generator(adversary, rows, 10_000)
    batch = collate(rows, np.random.default_rng(0).permutation(40))
    batch = replace(batch, rows=np.arange(40))
    places, _ = adversary._sample_mask(batch, TrainingProgress(0, 0, 0))
    with torch.no_grad():
        inputs = batch.inputs | {"input_ids": batch.input_ids.masked_fill(places, 4)}
        logits = teacher.base_model(**inputs).last_hidden_state[places] @ teacher.get_input_embeddings().weight.T
    logits[:, : len(special)] = -torch.inf
    assert skill.tokens == int(places.sum())
    expected = (logits.argmax(-1) == batch.input_ids[places]).float().mean()
    assert skill.accuracy == pytest.approx(float(expected))


def test_distill_measures_the_generator_and_keeps_it(tmp_path, teacher, rows, capsys):
    given = {"teacher": teacher, "layers": 2, "method": "mate-kd"} | rows | QUICK
    assert main(arguments("distill", output=tmp_path / "refused", **given)) == 2
    assert "to train with this generator nevertheless" in capsys.readouterr().err.lower()
    assert not (tmp_path / "refused" / "checkpoints").exists()
    assert not (tmp_path / "refused" / "signals").exists()
    allowed = arguments("distill", output=tmp_path / "run", method_options=lenient("mate-kd"), **given)
    assert main(allowed) == 0
    assert "generator: predicts " in capsys.readouterr().err
    found = read_manifest(tmp_path / "run")["generator"]
    assert found["tokens"] > 0 and 0 <= found["accuracy"] < 0.3
