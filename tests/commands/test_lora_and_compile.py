"""--lora-rank and --compile in the commands that train: plain models at the end, resumed runs, and what is refused."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from command_kit import QUICK, arguments, in_child, records, strike, weights
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from demiglace.cli import main
from demiglace.models import compilation
from demiglace.runs.directory import read_manifest
from demiglace.training import loop
from text_kit import save_lm, sentences, write_jsonl

BLOCKS = QUICK | {"block_size": 16, "learning_rate": 1e-2}


def run(command: str, output: Path, **options: Any) -> Path:
    """The run directory of a command that succeeds."""
    assert main(arguments(command, output=output, **options)) == 0
    return output


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_jsonl(tmp_path_factory.mktemp("text") / "a.jsonl", sentences(40)))


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The changes of the weights that changed, by name."""
    assert before.keys() == after.keys()
    return {name: after[name] - old for name, old in before.items() if not torch.equal(after[name], old)}


def test_lora_changes_the_layers_by_low_rank_and_the_head_in_full(
    tmp_path: Path, base: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = run("finetune", tmp_path / "run", model=base, lora_rank=2, **rows, **QUICK)
    assert "LoRA: rank 2 on 24 linear maps" in capsys.readouterr().err
    manifest = read_manifest(done)
    model = AutoModelForSequenceClassification.from_pretrained(done / "model")
    assert model.num_parameters() == manifest["parameters"] > 4 * manifest["trained_parameters"]
    found = changed(weights(tmp_path / "..", str(base)), weights(done))
    in_layers = {name: change for name, change in found.items() if ".encoder.layer." in name}
    assert len(in_layers) == 24 and all(int(torch.linalg.matrix_rank(c, rtol=1e-3)) <= 2 for c in in_layers.values())
    outside = found.keys() - in_layers.keys()
    assert {"classifier.weight", "bert.pooler.dense.weight", "bert.embeddings.LayerNorm.weight"} <= outside
    assert not any("word_embeddings" in name or "position_embeddings" in name for name in outside)


def test_lora_of_a_distilled_student_resumes_to_the_same_result(
    tmp_path: Path, teacher: Path, rows: dict[str, str]
) -> None:
    options = {
        "teacher": teacher,
        "layers": 2,
        "method": "rail-kd-l",
        "lora_rank": 4,
        "lora_alpha": 16,
        "freeze": "pooler",
        "checkpoint_seconds": 0,
    }
    full = run("distill", tmp_path / "full", **options, **rows, **QUICK)
    line = arguments("distill", output=tmp_path / "parts", **options, **rows, **QUICK)
    assert in_child(line, lambda: strike(loop.Loop, "_save", 6, after=True)) < 0
    assert main(line) == 0
    for which in ("model", "last"):
        ours, theirs = weights(full, which), weights(tmp_path / "parts", which)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    frozen = next(name for name in weights(full) if "pooler" in name)
    assert torch.equal(weights(full)[frozen], weights(teacher)[frozen])


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_lora_of_language_models(arch: str, tmp_path: Path, text: str) -> None:
    start = save_lm(tmp_path / "lm", arch)
    healed = run("pretrain", tmp_path / "pretrain", model=start, corpus=text, lora_rank=2, **BLOCKS)
    found = changed(weights(tmp_path / "lm" / "..", "lm"), weights(healed))
    assert found and not any(name.endswith(("wte.weight", "embed_tokens.weight", "lm_head.weight")) for name in found)
    options = {"teacher": healed, "layers": 2, "strategy": "alternate", "method": "vanilla-kd", "lora_rank": 2}
    student = run("distill", tmp_path / "distill", corpus=text, gradient_checkpointing=True, **options, **BLOCKS)
    model = AutoModelForCausalLM.from_pretrained(student / "model")
    assert set(weights(student)) <= set(model.state_dict()) and model.config.num_hidden_layers == 2
    losses = [epoch["metrics"]["loss"] for epoch in records(student, "epoch")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_alpha": 8}, "--lora-alpha 8 was given without --lora-rank"),
        ({"lora_rank": 2, "sharding": "full"}, "--lora-rank 2 was given with --sharding full, which is not supported"),
        ({"compile": "true", "sharding": "full"}, "--sharding full was given with --compile"),
    ],
)
def test_options_that_exclude_each_other(
    options: dict, message: str, tmp_path: Path, base: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("finetune", model=base, output=tmp_path / "run", **rows, **QUICK, **options)) == 2
    assert message in capsys.readouterr().err


def test_lora_without_peft_or_on_new_weights_is_refused(
    tmp_path: Path,
    base: Path,
    rows: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = {"architecture": "gpt2", "tokenizer": str(save_lm(tmp_path / "lm")), "hidden_size": 32, "num_layers": 1}
    assert main(arguments("pretrain", output=tmp_path / "new", corpus=text, lora_rank=2, **new)) == 2
    assert "--architecture has new ones" in capsys.readouterr().err
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "peft" else found(name, *args))
    assert main(arguments("finetune", model=base, output=tmp_path / "run", lora_rank=2, **rows)) == 2
    assert "--lora-rank needs peft: pip install 'peft>=" in capsys.readouterr().err


def test_compile_is_refused_where_it_cannot_work(
    tmp_path: Path, teacher: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = {"teacher": teacher, "layers": 2, "compile": "true"} | rows | QUICK
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    method = {"method": "minilmv2", "max_steps": 20}
    assert main(arguments("distill", output=tmp_path / "queries", **method, **options)) == 2
    assert "method minilmv2 compares queries, keys and values, which --compile hides" in capsys.readouterr().err

    def broken(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compilation, "BACKEND", broken)
    assert main(arguments("distill", output=tmp_path / "none", **options)) == 2
    message = capsys.readouterr().err
    assert "--compile was given, and torch.compile fails here (" in message and "leave --compile out." in message
