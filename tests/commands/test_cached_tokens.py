"""`distill --corpus --cache-tokens` from the command line: the teacher's tokens are computed once and cached."""

import re
from pathlib import Path
from typing import Any

import pytest
from command_kit import arguments, close, in_child, records, strike

from demiglace.cli import main
from demiglace.errors import ConfigError
from demiglace.methods.registry import METHODS, build_method
from demiglace.methods.terms.token_level import sparse_temperature
from demiglace.models.shape import ModelShape
from demiglace.runs.directory import read_manifest
from demiglace.signals import shard_store, sparse_logit_cache
from demiglace.training import loop
from text_kit import save_lm, sentences, tiny_lm, write_jsonl

QUICK = {"block_size": 16, "epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "log_steps": 1}
SAVED = QUICK | {"checkpoint_seconds": 0}  # a checkpoint after every step
LEARNERS: dict[str, dict[str, Any]] = {
    **{
        name: {}
        for name in ("vanilla-kd", "rail-kd-l", "rail-kd-c", "pkd", "alp-kd", "ckd", "rail-balanced", "last-layer-kd")
    },
    "distil": {"pooling": "mean"},
}
ON_PLAIN_TEXT = [name for name in METHODS if build_method(name, {}).augmentation is None]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A teacher that has learned something, and text."""
    home = tmp_path_factory.mktemp("cached")
    text = {
        "corpus": str(write_jsonl(home / "train.jsonl", sentences(30))),
        "validation_corpus": str(write_jsonl(home / "validation.jsonl", sentences(6, seed=1))),
    }
    teacher = {"model": save_lm(home / "lm"), "output": home / "teacher"} | QUICK | {"epochs": 3}
    assert main(arguments("pretrain", **teacher, **text)) == 0
    return {"teacher": home / "teacher", "layers": 2, **text, **QUICK}


def distilled(output: Path, given: dict[str, Any], method: str = "vanilla-kd", **options: Any) -> list[str]:
    return arguments("distill", **given | {"method": method, "cache_tokens": "sampled", "output": output} | options)


def validation_loss(run: Path) -> float:
    return read_manifest(run)["metrics"]["validation"]["loss"]


def test_drawn_tokens_teach_what_the_teacher_itself_teaches_and_its_likeliest_do_not(
    tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for kind in ("none", "sampled", "top-k"):
        run = tmp_path / kind
        assert main(distilled(run, given, cache_tokens=kind, method_options={"task_weight": 0.0})) == 0
        assert ("warning: --cache-tokens top-k is biased" in capsys.readouterr().err) == (kind == "top-k")
        found[kind] = records(run, "step")[0]["terms"]["kd"], validation_loss(run)
        assert not (run / "signals").exists() and not (run / "tokens").exists()
        assert (read_manifest(run)["seconds"]["capture"] > 0) == (kind != "none")
    (kd, loss), (sampled_kd, sampled_loss), (top_kd, top_loss) = found.values()
    assert abs(sampled_kd - kd) < 0.1 * abs(top_kd - kd)
    assert abs(sampled_loss - loss) < 0.5 * abs(top_loss - loss)


@pytest.mark.parametrize("method", ["distil", "rail-kd-c"])
def test_methods_that_learn_from_them(tmp_path: Path, given: dict[str, Any], method: str) -> None:
    line = distilled(tmp_path / "run", given, method, method_options=LEARNERS[method])
    assert main(line) == 0
    steps = records(tmp_path / "run", "step")
    assert steps[-1]["terms"]["task"] < steps[0]["terms"]["task"]


def test_one_cache_serves_further_students(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = given | {"cache": tmp_path / "cache"}
    assert main(distilled(tmp_path / "first", shared)) == 0
    held = sorted((tmp_path / "cache").rglob("*.npy"))
    assert [file.name for file in held] == ["entropy.npy", "ids.npy"]

    def requested(*args: Any) -> None:
        raise AssertionError("the teacher's signals were computed again")

    monkeypatch.setattr(sparse_logit_cache, "_capture_shard", requested)
    others = {"seed": 5, "epochs": 1, "layers": 3, "method_options": {"task_weight": 0.1}}
    assert main(distilled(tmp_path / "second", shared, **others)) == 0
    assert sorted((tmp_path / "cache").rglob("*.npy")) == held
    first, second = (read_manifest(tmp_path / name)["seconds"]["capture"] for name in ("first", "second"))
    assert first == second
    monkeypatch.undo()
    warmer = {"method_options": {"temperature": 4.0}}
    assert main(distilled(tmp_path / "third", shared, **warmer)) == 0
    assert len(sorted((tmp_path / "cache").rglob("ids.npy"))) == 2


def test_two_forward_passes_are_one(tmp_path: Path, given: dict[str, Any]) -> None:
    for name, tokens in (("whole", 8192), ("parts", 40)):
        assert main(distilled(tmp_path / name, given, epochs=1, batch_tokens=tokens)) == 0
    whole, parts = (records(tmp_path / name, "step") for name in ("whole", "parts"))
    for key in ("loss", "gradient_norm"):
        assert [r[key] for r in whole] == pytest.approx([r[key] for r in parts], rel=2e-4)


def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_logit_cache, "SHARD_TOKENS", 32 * 16)
    line = distilled(tmp_path / "cut", given | SAVED, dropout=0.1)
    assert main(distilled(tmp_path / "whole", given, dropout=0.1)) == 0
    assert in_child(line, lambda: strike(shard_store, "_write_shard", 2)) < 0
    assert len(list((tmp_path / "cut").glob("signals/*/shard-*.json"))) == 1
    assert in_child(line, lambda: strike(loop, "save_checkpoint", 7, after=True)) < 0
    assert main(line) == 0
    close(tmp_path / "cut", tmp_path / "whole", 0.0)


def test_a_damaged_cache_is_told(tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    shared = given | {"cache": tmp_path / "cache"}
    assert main(distilled(tmp_path / "first", shared)) == 0
    (file,) = (tmp_path / "cache").rglob("ids.npy")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert main(distilled(tmp_path / "second", shared)) == 2
    assert re.search(r"shard 0 of ids .* is corrupt; remove .* repeat the command", capsys.readouterr().err)


BAD = [
    ({"method": "distil"}, "method distil cannot learn .* hidden states of every token"),
    ({"method": "minilmv2"}, "method minilmv2 cannot learn .* attention"),
    ({"method": "reverse-kl"}, r"method reverse-kl cannot learn .* KL\(teacher ‖ student\)"),
    ({"method": "annealing-kd"}, "method annealing-kd cannot learn"),
    ({"method": "none"}, "method none cannot learn .* no logits"),
    ({"cache": "off"}, "--cache off was given with --cache-tokens sampled"),
    ({"cached_per_token": 0}, "at least 1"),
    ({"cached_per_token": 9999, "cache_tokens": "top-k"}, "--cached-per-token 9999: the teacher has only 257"),
    ({"cache_tokens": "topk"}, "one of none, sampled, top-k"),
    ({"teacher": "{masked}"}, "is for causal models"),
    ({"corpus": None, "validation_corpus": None, "data": "banking77"}, "--cache-tokens sampled needs --corpus"),
    ({"layers": None, "student": "{wide}"}, "outputs for 300 tokens and the teacher for 257"),
]


@pytest.mark.parametrize(("changed", "said"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_before_any_work(
    tmp_path: Path, given: dict[str, Any], changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "{masked}" in changed.values():
        save_lm(tmp_path / "bert", "bert")
    if "{wide}" in changed.values():
        save_lm(tmp_path / "wide")
        tiny_lm("gpt2", 300).save_pretrained(tmp_path / "wide")
    places = {"{masked}": tmp_path / "bert", "{wide}": tmp_path / "wide"}
    options = {name: places.get(str(value), value) for name, value in changed.items()}
    assert main(distilled(tmp_path / "run", given, **options)) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.glob("run/signals/*")) and not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("method", ON_PLAIN_TEXT)
def test_every_method_is_judged(method: str) -> None:
    student, teacher = (ModelShape.of(tiny_lm("gpt2", 40, layers)) for layers in (2, 4))
    made = build_method(method, LEARNERS.get(method, {}))
    if method in LEARNERS:
        assert sparse_temperature(method, made, student, teacher) > 0
    else:
        with pytest.raises(ConfigError, match="--cache-tokens none"):
            sparse_temperature(method, made, student, teacher)
