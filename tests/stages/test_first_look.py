"""The first look at a teacher: its mode, and whether it is better than chance."""

from dataclasses import replace

import numpy as np
import pytest
from stage_kit import QUICK, arguments

from demiglace.cli import main
from demiglace.data.tokenise import select
from demiglace.evaluation.predict import predict
from demiglace.stages.first_look import look_at_teacher
from factories import tiny_model
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
    look_at_teacher(teacher, rows, "fp32", 10_000)
    lines = capsys.readouterr().err.splitlines()
    chance = np.bincount(rows.labels).max() / 50
    assert lines[0] == f"teacher: in eval mode, accuracy 0.900 on 50 validation rows, {chance:.3f} by chance"
    assert ("warning" in "".join(lines)) == (chance >= 0.9)


def test_a_teacher_no_better_than_chance_is_warned_of(capsys):
    teacher = tiny_model("bert")
    rows = labelled_by(teacher, random_examples(300), wrong=300)
    look_at_teacher(teacher, rows, "fp32", 10_000)
    told, warning = capsys.readouterr().err.splitlines()
    assert "accuracy 0.000 on 156 validation rows" in told
    assert warning.startswith("warning: the teacher is no better than chance")


@pytest.mark.parametrize(("training_rows", "looked_at"), [(10, 64), (6400, 100), (400_000, 256)])
def test_more_rows_are_looked_at_in_longer_runs(training_rows, looked_at, capsys):
    look_at_teacher(tiny_model("bert"), random_examples(300), "fp32", training_rows)
    assert f" on {looked_at} validation rows" in capsys.readouterr().err


@pytest.mark.parametrize("training", [True, False])
def test_numbers_are_held_against_their_mean(training, capsys):
    teacher = tiny_model("bert", num_labels=1).train(training)
    look_at_teacher(teacher, random_examples(30, regression=True), "fp32", 10_000)
    told = capsys.readouterr().err
    assert "R² " in told
    assert "0.000 by chance" in told
    assert ("not in eval mode" in told) == training


def test_distill_tells_both(tmp_path, teacher, rows, capsys):
    given = {"teacher": teacher, "layers": 2, "method": "vanilla-kd"} | rows | QUICK
    assert main(arguments("distill", output=tmp_path / "run", **given)) == 0
    told = capsys.readouterr().err
    assert "teacher: in eval mode, accuracy 0." in told
    assert " on 12 validation rows, 0.583 by chance" in told
    assert "first steps: loss terms and their shares of the gradient at layer " in told
    assert main(arguments("distill", output=tmp_path / "off", diagnostics="off", **given)) == 0
    told = capsys.readouterr().err
    assert "teacher: " not in told
    assert "first steps" not in told
