"""`plan --corpus`: what it tells of runs on text, against what such runs compute, keep and read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_kit import arguments
from torch.utils.flop_counter import FlopCounterMode

import demiglace
from demiglace.cli import main
from demiglace.commands.plan import run_of
from demiglace.config.command_options import DistillConfig, PlanConfig, PretrainConfig
from demiglace.config.options import build, read_yaml
from demiglace.config.training import TrainConfig
from demiglace.costs.estimate import _uniform_passes, epoch_passes
from demiglace.costs.flops import forward_passes
from demiglace.costs.measure_speed import time_steps
from demiglace.costs.run_spec import language_run_spec
from demiglace.data.batching import epoch_steps, sorted_batches, split_by_tokens
from demiglace.losses import language
from demiglace.models.from_config import shape_of_config
from demiglace.models.shape import ModelShape, forward_flops
from demiglace.runs.directory import read_manifest
from text_kit import byte_tokenizer, save_lm, sentences, tiny_lm, write_jsonl

RECIPES = Path(__file__).parent.parent.parent / "recipes"
QUICK = {"block_size": 16, "epochs": 2, "batch_size": 8, "batch_tokens": 64}
NEW = {"architecture": "gpt2", "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("text")
    return {"corpus": str(write_jsonl(home / "train.jsonl", sentences(40)))}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lm(tmp_path_factory.mktemp("teacher") / "gpt2")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer(path, mask=True)
    return path


def planned(**options: object) -> demiglace.costs.estimate.Estimate:
    return demiglace.plan(flops=1e9, **options)


def test_it_tells_everything_and_writes_nothing(
    tmp_path: Path, text: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = save_lm(tmp_path / "lm")
    (lm / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    line = arguments("plan", teacher=lm, layers=2, method="vanilla-kd", calibration_seconds=0.01, **text, **QUICK)
    assert main(line) == 0
    assert sorted(tmp_path.rglob("*")) == before
    shown = capsys.readouterr().out
    assert "GPT2LMHeadModel, 4 layers of 32" in shown and "GPT2LMHeadModel, 2 layers of 32" in shown
    assert "16 tokens each" in shown and "the teacher runs for every batch" in shown
    assert "caching the teacher's signals" not in shown and "validation" in shown


@pytest.mark.parametrize("stage", ["pretrain", "new", "distill", "held back", "some"])
def test_blocks_and_steps_are_those_of_the_run(
    stage: str, tmp_path: Path, text: dict[str, str], teacher: Path, tokenizer: Path
) -> None:
    options = QUICK | text | {"output": str(tmp_path / "run")}
    if stage != "held back":
        options |= {"validation_corpus": str(write_jsonl(tmp_path / "validation.jsonl", sentences(8, seed=1)))}
    if stage == "some":
        options |= {"max_tokens": 300}
    if stage == "distill":
        options |= {"teacher": str(teacher), "layers": 2, "method": "vanilla-kd"}
    elif stage == "new":
        options |= NEW | {"tokenizer": str(tokenizer)}
    else:
        options |= {"model": str(teacher)}
    found = planned(**options)
    (demiglace.distill if stage == "distill" else demiglace.pretrain)(**options)
    manifest = read_manifest(tmp_path / "run")
    assert (found.rows, found.tokens) == (manifest["rows"]["train"], manifest["tokens"]["train"])
    assert found.student.parameters == manifest["parameters"]
    held = manifest["rows"]["validation"]
    assert found.validation_flops == 3 * held * forward_flops(found.student, 16)  # two epochs, and at the end


@pytest.mark.parametrize("arch", ["gpt2", "bert"])
@pytest.mark.parametrize("method", ["none", "vanilla-kd", "rail-kd-l"])
def test_operations_are_those_of_a_run(
    arch: str, method: str, tmp_path: Path, text: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation and the teacher included; measuring the layers is not planned."""
    lm = save_lm(tmp_path / "lm", arch)
    options = text | QUICK | {"teacher": str(lm), "layers": 2, "strategy": "alternate", "method": method}
    options |= {"attention": "eager", "max_tokens": 600}
    found = planned(**options)
    # products in place have no count of their operations
    monkeypatch.setattr(language, "_add_product", lambda total, slope, states: total.add_(slope.T @ states))
    with FlopCounterMode(display=False) as counter:
        demiglace.distill(**options, output=tmp_path / "run", diagnostics="off")
    shown = 2 * (found.student_flops + found.teacher_flops) + found.validation_flops
    # of so small a model, biases and norms are not nothing
    assert shown == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("kind", ["sampled", "top-k"])
def test_the_cache_has_the_size_that_was_told(kind: str, tmp_path: Path, text: dict[str, str], teacher: Path) -> None:
    options = text | QUICK | {"teacher": str(teacher), "layers": 2, "method": "vanilla-kd", "cache_tokens": kind}
    found = planned(**options)
    demiglace.distill(**options, cache=str(tmp_path / "cache"), output=tmp_path / "run")
    arrays = [np.load(file) for file in (tmp_path / "cache").rglob("*.npy")]
    assert found.cache_bytes == sum(a.nbytes for a in arrays) > 0
    assert found.teacher_passes == 1 and found.seconds.capture > 0


@pytest.mark.parametrize("rows", [1, 7, 8, 61])
@pytest.mark.parametrize("most", [1, 16, 40, 4096])
def test_rows_of_one_length_need_not_be_planned_one_by_one(rows: int, most: int) -> None:
    lengths, training = np.full(rows, 16), TrainConfig(batch_size=8, batch_tokens=most)
    steps = epoch_steps(lengths, 8, 0, 0)
    parts = [part for step in steps for part in split_by_tokens(step, lengths, most)]
    assert epoch_passes(lengths, training) == (len(steps), forward_passes(lengths, parts))
    assert _uniform_passes(rows, 16, most) == forward_passes(lengths, sorted_batches(lengths, most))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("arch", ["gpt2", "llama", "bert"])
def test_a_head_is_counted_once_and_multiplied_with(arch: str, tied: bool) -> None:
    config = tiny_lm(arch, 300).config
    config.tie_word_embeddings = tied
    shape = shape_of_config(config, language=True)
    assert shape.head_parameters == 300 * 32 + (300 if arch == "bert" else 0)
    model = tiny_lm(arch, 300)
    if tied:
        assert shape == replace(
            ModelShape.of(model), parameters=shape.parameters, embedding_parameters=shape.embedding_parameters
        )
    assert forward_flops(shape, 16) - forward_flops(shape, 16, 0.0) == 2 * 16 * shape.head_parameters


METHODS = ("none", "vanilla-kd", "jsd", "distil", "minilmv2", "annealing-kd")


@pytest.mark.parametrize(
    ("method", "arch", "options"),
    [
        *((method, arch, {}) for method in METHODS for arch in ("gpt2", "bert")),
        ("vanilla-kd", "gpt2", {"cache_tokens": "sampled"}),
        ("vanilla-kd", "gpt2", {"cache_tokens": "top-k"}),
    ],
)
def test_methods_can_be_timed(
    method: str, arch: str, options: dict[str, str], tmp_path: Path, text: dict[str, str]
) -> None:
    lm = save_lm(tmp_path / "lm", arch)
    given = text | QUICK | {"teacher": str(lm), "layers": 2, "method": method, "output": "x"} | options
    subject = language_run_spec(build(DistillConfig, given))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    speed = time_steps(subject, seconds=0.01)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(0 < value < float("inf") for value in (speed.forward, speed.training, speed.update))
    assert subject.estimate(speed).seconds.total > 0


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("distill", DistillConfig), ("pretrain", PretrainConfig), ("wikitext103-pretrain", PretrainConfig)],
)
def test_the_papers_recipes_can_be_planned(stage: str, kind: type) -> None:
    content = read_yaml(RECIPES / f"paper1-{stage}.yaml")
    assert run_of(build(PlanConfig, content)) == build(kind, content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "given: none of them"),
        ({"model": None, "architecture": "gpt2"}, "has no tokenizer"),
        ({"hidden_size": 64}, "--hidden-size: only for a new model"),
        ({"block_size": 5000}, "--block-size 5000 is longer than"),
        ({"corpus": "/nowhere.jsonl"}, "/nowhere.jsonl does not exist"),
        ({"max_document_mb": 0.00001}, "no document to read"),
        ({"metric": "accuracy"}, "metric of language modelling"),
        ({"architecture": "gpt2"}, "given: --model, --architecture"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    options: dict[str, object],
    message: str,
    text: dict[str, str],
    teacher: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"model": teacher, "flops": 1e9} | text | QUICK | options
    line = arguments("plan", **{k: v for k, v in given.items() if v is not None})
    assert main(line) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mate-kd"}, "rewrites the rows of a task"),
        ({"data": "sst2"}, "--data and --corpus were both given"),
        ({"layers": None}, "neither was given"),
        ({"method": "jsd", "cache_tokens": "sampled"}, "cannot learn from --cache-tokens"),
        (
            {"cache_tokens": "sampled", "cache": "off", "method": "vanilla-kd"},
            "--cache off was given with --cache-tokens sampled",
        ),
    ],
)
def test_what_a_distillation_would_refuse_is_refused(
    options: dict[str, object],
    message: str,
    text: dict[str, str],
    teacher: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"teacher": teacher, "layers": 2, "flops": 1e9} | text | QUICK | options
    assert main(arguments("plan", **{k: v for k, v in given.items() if v is not None})) == 2
    assert message in capsys.readouterr().err
