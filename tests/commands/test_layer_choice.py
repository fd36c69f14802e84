"""`distill` with a strategy that is measured on its own training examples, in one command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import SAVED, arguments, in_child, strike, weights

import demiglace
from demiglace.cli import main
from demiglace.config.data import ReadConfig
from demiglace.data.text.blocks import all_blocks
from demiglace.data.text.calibration_sample import drawn_rows
from demiglace.data.text.token_shards import load_corpus
from demiglace.distillation import student
from demiglace.models.greedy import ablation_loss, greedy
from demiglace.models.importance import Inputs, block_influence, least_influential
from demiglace.models.layer_stack import layer_stack
from demiglace.models.loading import load_as_saved, load_classifier, load_tokenizer
from demiglace.runs.directory import read_manifest
from demiglace.training import loop
from text_kit import save_lm, sentences, write_jsonl

STILL = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-12}  # training that leaves the weights nearly as they are
BLOCKS = {"block_size": 16, **STILL}


def uneven(path: Path, arch: str) -> Path:
    """A language model of four layers that do more or less; the second and third do least."""
    save_lm(path, arch)
    model = load_as_saved(path)
    with torch.no_grad():
        for layer, factor in zip(layer_stack(model), (2.0, 0.3, 0.5, 1.5), strict=True):
            for parameter in layer.parameters():
                parameter.mul_(factor if parameter.dim() > 1 else 1.0)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("text")
    held_out = str(write_jsonl(home / "validation.jsonl", sentences(4, seed=1)))
    return {"corpus": str(write_jsonl(home / "train.jsonl", sentences(12))), "validation_corpus": held_out}


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uneven(tmp_path_factory.mktemp("lm") / "gpt2", "gpt2")


def blocks_of(model: Path, corpus: str, home: Path) -> Inputs:
    """All blocks of a corpus as one batch."""
    blocks = all_blocks(load_corpus(home, [corpus], load_tokenizer(model), ReadConfig()), 16)
    return blocks.batch(np.arange(len(blocks)), "cpu", 1.0, 0).inputs


def kept(run: Path, teacher: Path, name: str, layers: int = 4) -> list[int]:
    """Which of the teacher's layers the student's layers are, by their weights of this name."""
    ours, theirs = weights(run), load_as_saved(teacher).state_dict()

    def source(number: int) -> int:
        own = ours[name.format(number)]
        return min(range(layers), key=lambda i: float((own - theirs[name.format(i)]).abs().max()))

    return [source(i) for i in range(read_manifest(run)["layers"])]


@pytest.mark.parametrize("strategy", [None, "block-influence", "greedy"])
def test_a_causal_student_is_cut_by_its_own_corpus(
    strategy: str | None, tmp_path: Path, lm: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"teacher": lm, "layers": 2, "strategy": strategy, "method": "vanilla-kd", **text, **BLOCKS}
    assert main(arguments("distill", output=tmp_path / "run", **given)) == 0
    batch, model = blocks_of(lm, text["corpus"], tmp_path / "tokens"), load_as_saved(lm)
    if strategy == "greedy":
        dropped = [r.layer for r in greedy(model, [batch], 2, ablation_loss(model))[1]]
        expected = [i for i in range(4) if i not in dropped]
    else:
        expected = list(least_influential(block_influence(model, [batch]), 2))
    assert expected != [0, 2]  # what `alternate` keeps
    assert kept(tmp_path / "run", lm, "transformer.h.{}.mlp.c_fc.weight") == expected
    manifest, name = read_manifest(tmp_path / "run"), strategy or "block-influence"
    rows = len(batch["input_ids"])
    assert (manifest["keep"], manifest["strategy"]) == (expected, name)
    assert (manifest["importance"]["rows"], manifest["importance"]["tokens"]) == (rows, 16 * rows)
    line = f"strategy: {name}, measured on {rows} blocks of the corpus ({16 * rows} tokens); layers kept: "
    assert line + ", ".join(map(str, expected)) in capsys.readouterr().err


@pytest.mark.parametrize(("strategy", "expected"), [(None, [0, 2]), ("block-influence", [0, 3])])
def test_a_masked_student_is_cut_by_its_corpus_only_if_asked(
    strategy: str | None, expected: list[int], tmp_path: Path, text: dict[str, str]
) -> None:
    teacher = uneven(tmp_path / "bert", "bert")
    given = {"teacher": teacher, "layers": 2, "strategy": strategy, "method": "vanilla-kd", **text, **BLOCKS}
    assert main(arguments("distill", output=tmp_path / "run", **given)) == 0
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["keep"], manifest["strategy"]) == (expected, strategy or "alternate")
    if strategy:
        batch = blocks_of(teacher, text["corpus"], tmp_path / "tokens")
        assert list(least_influential(block_influence(load_as_saved(teacher), [batch]), 2)) == expected
        assert kept(tmp_path / "run", teacher, "bert.encoder.layer.{}.output.dense.weight") == expected


@pytest.mark.parametrize("strategy", ["block-influence", "greedy"])
def test_a_classifier_is_cut_by_its_rows(strategy: str, tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    given = {"teacher": teacher, "layers": 2, "strategy": strategy, "method": "vanilla-kd", **rows, **STILL}
    assert main(arguments("distill", output=tmp_path / "run", **given)) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest["importance"]["rows"] == manifest["rows"]["train"]
    assert kept(tmp_path / "run", teacher / "model", "bert.encoder.layer.{}.output.dense.weight") == manifest["keep"]
    texts = [line.split(",")[0] for line in Path(rows["data"]).read_text().splitlines()[1:]]
    batch = dict(load_tokenizer(teacher)(texts, padding=True, return_tensors="pt"))
    model = load_classifier(str(teacher), None)
    if strategy == "greedy":
        gone = [r.layer for r in greedy(model, [batch], 2, ablation_loss(model))[1]]
        assert manifest["keep"] == [i for i in range(4) if i not in gone]
    else:
        assert manifest["keep"] == list(least_influential(block_influence(model, [batch]), 2))


def test_a_resumed_run_keeps_its_layers_unmeasured(
    tmp_path: Path, lm: Path, text: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"teacher": lm, "layers": 2, "method": "vanilla-kd", "block_size": 16, **text, **SAVED}
    line = arguments("distill", output=tmp_path / "run", **given)
    assert main(arguments("distill", output=tmp_path / "undisturbed", **given)) == 0
    assert in_child(line, lambda: strike(loop, "save_checkpoint", 3, after=True)) < 0
    measured = json.loads((tmp_path / "run" / "layers.json").read_text())

    def again(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(student, "choose_by_text", again)
    assert main(line) == 0
    assert read_manifest(tmp_path / "run")["keep"] == measured["keep"]
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "undisturbed")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": [0, 1], "strategy": "greedy"}, "--layers instead of --keep"),
        ({"layers": 9, "strategy": "block-influence"}, "the model has 4"),
        ({"layers": 2, "freeze": "no.such.weight"}, "matches no parameter"),
    ],
)
def test_a_wrong_choice_is_refused_before_the_text_is_read(
    options: dict[str, Any], words: str, tmp_path: Path, lm: Path, text: dict[str, str], capsys: Any
) -> None:
    given = {"teacher": lm, "method": "vanilla-kd", **options, **text, **BLOCKS}
    assert main(arguments("distill", output=tmp_path / "run", **given)) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "tokens").exists()


def test_a_run_by_measured_layers_can_be_planned(lm: Path, text: dict[str, str]) -> None:
    given: dict[str, Any] = {"teacher": str(lm), "layers": 3, "method": "vanilla-kd", "flops": 1e9, "block_size": 16}
    plans = [demiglace.plan(strategy=name, **given, **text) for name in ("auto", "greedy", "alternate")]
    # free memory and disk space change while the plans are made
    auto, greedy, alternate = ([line for line in plan.lines if " free" not in line] for plan in plans)
    assert auto == greedy == alternate and len(auto) > 5
    assert len({replace(plan, lines=()) for plan in plans}) == 1


def test_so_many_training_examples_are_drawn_as_hold_the_tokens(lm: Path, text: dict[str, str], tmp_path: Path) -> None:
    blocks = all_blocks(load_corpus(tmp_path, [text["corpus"]], load_tokenizer(lm), ReadConfig()), 32)
    drawn = drawn_rows(blocks, tokens=100, row_tokens=20)
    assert drawn.lengths.tolist() == [20] * 5
    beginnings = {blocks.corpus.read(32 * i, 32 * i + 20).tobytes() for i in range(len(blocks))}
    assert len({row.astype(np.int64).tobytes() for row in np.split(drawn.ids, 5)} & beginnings) == 5
    assert len(drawn_rows(blocks, tokens=1, row_tokens=20)) == 1
