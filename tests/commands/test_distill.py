"""`distill` end to end: every method and architecture, both sources of signals, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import QUICK, RESULTS, SAVED, arguments, close, lenient, records, weights, write_csv, write_rows
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import demiglace
from demiglace.cli import main
from demiglace.methods.registry import METHODS, build_method
from demiglace.runs.directory import read_manifest
from demiglace.signals import hidden_state_cache
from demiglace.training import run as fit
from demiglace.training.adversarial_generator import AdversarialGenerator
from demiglace.training.objective import term_names
from factories import ARCHITECTURES, save_tiny, tiny_config, tiny_tokenizer

LABELS = ("negative", "positive")
OUTPUTS_ALONE = {  # methods that match no layers
    *("none", "vanilla-kd", "pseudo-labels", "annealing-kd", "continuation-kd", "mate-kd", "combined-kd"),
    *("jsd", "reverse-kl", "skew-kl", "skew-reverse-kl"),
}


def run(output: Path, teacher: Path, **options: Any) -> int:
    """The exit code of `demiglace distill`."""
    return main(arguments("distill", teacher=teacher, output=output, **options))


def test_projections_stay_outside_of_the_student(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    (tmp_path / "options.yaml").write_text("method_options: {projection: per-layer}\n")
    options = {"layers": 2, "method": "rail-kd-l", "config": tmp_path / "options.yaml"}
    assert run(tmp_path / "run", teacher, **options, **rows, **QUICK) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert set(weights(tmp_path / "run")) == set(model.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_whole_run(method: str, tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    given = {"layers": 2, "method": method, "method_options": lenient(method)} | rows | QUICK
    assert run(tmp_path / "run", teacher, **given) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest.keys() >= RESULTS
    assert (manifest["method"], manifest["layers"]) == (method, 2)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.num_hidden_layers == 2
    assert model.num_parameters() == manifest["parameters"]
    assert set(weights(tmp_path / "run")) == set(model.state_dict())
    steps = records(tmp_path / "run", "step")
    assert len(steps) == 10
    assert all(np.isfinite(s["loss"]) for s in steps)
    built = build_method(method, {})
    assert list(steps[0]["terms"]) == term_names(built)
    matched = set() if method in OUTPUTS_ALONE else {0, 1} if len(built.phases) == 1 else {0}
    assert {m["epoch"] for m in records(tmp_path / "run", "mapping")} == matched
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"manifest.json", "run.json", "log.jsonl", "model", "last", ".lock"}


@pytest.mark.parametrize("method", ["tinybert", "minilmv2"])
def test_what_is_kept_for_every_token_is_never_cached(
    method: str, tmp_path: Path, teacher: Path, rows: dict[str, str]
) -> None:
    given = {"layers": 2, "method": method, "cache": tmp_path / "cache", "method_options": lenient(method)}
    assert run(tmp_path / "run", teacher, **given, **rows, **QUICK) == 0
    assert not (tmp_path / "cache").exists()


def test_no_method_is_plain_fine_tuning(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    assert main([*arguments("truncate", output=tmp_path / "cut", layers=2), str(teacher)]) == 0
    assert main(arguments("finetune", model=tmp_path / "cut", output=tmp_path / "plain", **rows, **QUICK)) == 0
    given = rows | QUICK | {"method": "none"}
    assert run(tmp_path / "run", teacher, layers=2, **given) == 0
    assert run(tmp_path / "given", teacher, student=tmp_path / "cut", **given) == 0
    expected = weights(tmp_path / "plain")
    for name in ("run", "given"):
        found = weights(tmp_path / name)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("kind", ["pairs", "integers", "regression"])
def test_every_kind_of_rows(kind: str, tmp_path: Path, base: Path) -> None:
    given = write_rows(tmp_path / "rows", kind) | QUICK
    assert main(arguments("finetune", model=base, output=tmp_path / "teacher", **given)) == 0
    assert run(tmp_path / "run", tmp_path / "teacher", layers=2, **given) == 0
    ours, teachers = read_manifest(tmp_path / "run"), read_manifest(tmp_path / "teacher")
    assert (ours["labels"], ours["problem"]) == (teachers["labels"], teachers["problem"])
    assert ours["metrics"]["test"].keys() == teachers["metrics"]["test"].keys()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture(arch: str, tmp_path: Path, rows: dict[str, str]) -> None:
    teacher = save_tiny(tmp_path / "teacher", arch, label_names=LABELS)
    assert run(tmp_path / "run", teacher, layers=2, **rows, **QUICK) == 0
    assert read_manifest(tmp_path / "run")["layers"] == 2
    kept = records(tmp_path / "run", "mapping")[0]["pairs"]
    assert kept[0][0] == 1
    assert 1 <= kept[0][1] <= 3
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(("choice", "layers"), [({"layers": 3, "strategy": "top"}, 3), ({"keep": [0, 3]}, 2)])
def test_the_student_is_cut_as_asked(
    choice: dict[str, Any], layers: int, tmp_path: Path, teacher: Path, rows: dict[str, str]
) -> None:
    # at this learning rate the weights stay those of the layers that were kept
    start = QUICK | {"learning_rate": 1e-12, "epochs": 1, "method": "vanilla-kd"}
    assert run(tmp_path / "run", teacher, **choice, **rows, **start) == 0
    ours, theirs = weights(tmp_path / "run"), weights(teacher)
    keep = choice.get("keep", [1, 2, 3])
    assert read_manifest(tmp_path / "run")["layers"] == layers
    for new, old in enumerate(keep):
        name = "bert.encoder.layer.{}.output.dense.weight"
        torch.testing.assert_close(ours[name.format(new)], theirs[name.format(old)], rtol=0, atol=1e-6)


def test_cached_signals_train_as_the_teacher_itself(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    given = {"layers": 2, "method": "pkd"} | rows | QUICK
    assert run(tmp_path / "cached", teacher, **given, cache_dtype="float32") == 0
    assert run(tmp_path / "online", teacher, **given, cache="off") == 0
    close(tmp_path / "cached", tmp_path / "online", 2e-5)
    assert read_manifest(tmp_path / "online")["seconds"]["capture"] == 0
    ours, theirs = (records(tmp_path / name, "step") for name in ("cached", "online"))
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-4)


def test_one_cache_serves_several_methods(
    tmp_path: Path, teacher: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"layers": 2, "cache": tmp_path / "cache"} | rows | QUICK
    assert run(tmp_path / "first", teacher, **given, method="rail-kd-l") == 0
    held = sorted((tmp_path / "cache").rglob("*.npy"))
    assert held

    def requested(*args: Any) -> None:
        raise AssertionError("the teacher's signals were computed again")

    monkeypatch.setattr(hidden_state_cache, "_capture_shard", requested)
    assert run(tmp_path / "second", teacher, **given, method="rail-kd-c") == 0
    assert run(tmp_path / "third", teacher, **given | {"epochs": 1, "seed": 5}, method="rail-kd-l") == 0
    assert sorted((tmp_path / "cache").rglob("*.npy")) == held
    first, second = (read_manifest(tmp_path / name)["seconds"]["capture"] for name in ("first", "second"))
    assert first == second  # what the capture took, in whichever run it was made


def test_rows_without_labels_get_the_teachers_terms(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    texts = [f"{a} {b} {c}" for a in ("lost", "it") for b in ("a", "the", "red") for c in ("film", "this", "money")]
    file = write_csv(tmp_path / "more.csv", [{"text": t} for t in texts])
    given = {"layers": 2, "method": "vanilla-kd", "unlabelled": file} | rows | QUICK
    assert run(tmp_path / "run", teacher, **given) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest["rows"] == {"train": 36, "validation": 12, "test": 12, "unlabelled": len(texts)}
    assert len(records(tmp_path / "run", "step")) == 2 * -(-(36 + len(texts)) // 8)
    mixed = write_csv(tmp_path / "more.csv", [{"text": t + " no"} for t in texts])
    assert run(tmp_path / "run", teacher, **given | {"unlabelled": mixed}) == 2  # the same file, other rows


def test_a_step_of_unlabelled_rows_alone(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    texts = [" ".join(["card", *["red"] * 20, *["blue"] * i]) for i in range(24)]  # longer than all, so by themselves
    file = write_csv(tmp_path / "more.csv", [{"text": t} for t in texts])
    given = {"layers": 2, "method": "vanilla-kd", "unlabelled": file} | rows | QUICK
    assert run(tmp_path / "run", teacher, **given) == 0
    terms = [r["terms"] for r in records(tmp_path / "run", "step")]
    assert any(t["task"] == 0 and t["kd"] > 0 for t in terms)
    assert all(np.isfinite(t["kd"]) for t in terms)


def test_another_seed_draws_other_layers_and_the_same_one_the_same(
    tmp_path: Path, teacher: Path, rows: dict[str, str]
) -> None:
    def pairs(seed: int, name: str) -> list[Any]:
        given = {"layers": 2, "seed": seed, "epochs": 4} | rows
        assert run(tmp_path / name, teacher, **QUICK | given) == 0
        return [m["pairs"] for m in records(tmp_path / name, "mapping")]

    assert pairs(1, "one") == pairs(1, "same")
    assert pairs(2, "two") != pairs(1, "again")


def test_method_options_decide_the_run(
    tmp_path: Path, teacher: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"layers": 2, "method": "vanilla-kd"} | rows | QUICK
    assert run(tmp_path / "run", teacher, **given, method_options={"temperature": 3}) == 0
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["method_options"] == {"temperature": 3}
    assert run(tmp_path / "run", teacher, **given, method_options={"temperature": 4}) == 2
    assert "method_options.temperature: 3 there, 4 now" in capsys.readouterr().err


def test_a_python_call_is_the_command(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    assert run(tmp_path / "command", teacher, layers=2, **rows, **QUICK) == 0
    result = demiglace.distill(teacher=str(teacher), layers=2, output=tmp_path / "call", **rows, **QUICK)
    assert result.path == tmp_path / "call"
    ours, theirs = weights(tmp_path / "call"), weights(tmp_path / "command")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_same_command_again_is_up_to_date_without_loading_a_model(
    tmp_path: Path,
    teacher: Path,
    rows: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / "run", teacher, layers=2, **rows, **QUICK) == 0

    def loaded(*args: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("demiglace.distillation.classifier.load_classifier", loaded)
    assert run(tmp_path / "run", teacher, layers=2, **rows, **QUICK) == 0
    assert run(tmp_path / "run", teacher, layers=3, **rows, **QUICK) == 2
    assert "layers: 2 there, 3 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither was given"),
        ({"layers": 2, "student": "x"}, "both were given"),
        ({"keep": [0], "student": "x"}, "both were given"),
        ({"layers": 2, "method": "rail-kd"}, "unknown method 'rail-kd'; did you mean 'rail-kd-"),
        ({"layers": 2, "method_options": {"temprature": 2}}, "did you mean 'temperature'"),
        ({"layers": 2, "method_options": {"temperature": 0}}, "above 0"),
        ({"layers": 2, "method_options": {"sampling": "weekly"}}, "epoch"),
        ({"layers": 2, "metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"layers": 2, "report_to": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"layers": 2, "metod": "pkd"}, "did you mean"),
        ({"layers": 2, "cache_dtype": "float8"}, "float16"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    teacher: Path,
    rows: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / "run", teacher, **rows, **QUICK, **options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def with_other_words(path: Path) -> Path:
    """A model whose tokenizer has two ids exchanged."""
    file = save_tiny(path, num_layers=2, label_names=LABELS) / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    file.write_text(json.dumps(content))
    return path


def without_head_for(path: Path) -> Path:
    """A teacher of three other labels."""
    return save_tiny(path, label_names=("red", "green", "blue"))


def too_small(path: Path) -> Path:
    """A model with fewer embeddings than its tokenizer has ids."""
    model = AutoModelForSequenceClassification.from_pretrained(save_tiny(path, label_names=LABELS))
    model.resize_token_embeddings(30)
    model.save_pretrained(path)
    tiny_tokenizer(path)
    return path


@pytest.mark.parametrize(
    ("make", "role", "message"),
    [
        (with_other_words, "student", "different vocabularies: .*'bad' is id"),
        (without_head_for, "teacher", "the teacher's labels are red, green, blue, the rows' are negative, positive"),
        (too_small, "teacher", "the tokenizer does not match the model: it has ids up to"),
    ],
)
def test_models_that_do_not_go_together_are_refused_and_do_not_bar_the_mended_command(
    make: Any,
    role: str,
    message: str,
    tmp_path: Path,
    teacher: Path,
    rows: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = make(tmp_path / "wrong")
    models = {"teacher": teacher, "student": save_tiny(tmp_path / "student", num_layers=2, label_names=LABELS)}
    given = {"output": tmp_path / "run"} | rows | QUICK
    assert main(arguments("distill", **models | {role: wrong}, **given)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert {p.name for p in (tmp_path / "run").glob("*")} in (set(), {"run.json", ".lock"})
    assert main(arguments("distill", **models, **given)) == 0


def test_a_student_that_is_too_small_for_the_method(
    tmp_path: Path, teacher: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"count": "2"}
    assert run(tmp_path / "run", teacher, layers=1, method="rail-kd-l", method_options=options, **rows, **QUICK) == 2
    assert "count=2 was given, but only 1 student layer(s) can be matched" in capsys.readouterr().err
    assert run(tmp_path / "run", teacher, layers=1, method="rail-kd-l", **rows, **QUICK) == 0


def test_an_interrupted_run_keeps_its_directory(
    tmp_path: Path, teacher: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit.Loop, "_end_epoch", interrupted)
        assert run(tmp_path / "run", teacher, layers=2, **rows, **SAVED) == 130
    assert run(tmp_path / "run", teacher, layers=2, **rows, **QUICK | {"learning_rate": 1e-3}) == 2
    assert run(tmp_path / "run", teacher, layers=2, **rows, **QUICK) == 0


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    """A masked language model of the tiny vocabulary, its output layer tied to its embeddings."""
    model = AutoModelForMaskedLM.from_config(tiny_config("bert", num_layers=1))
    model.save_pretrained(tmp_path / "generator")
    tiny_tokenizer(tmp_path / "generator", segments=True)
    return tmp_path / "generator"


def test_a_named_generator_is_trained_and_never_saved_with_the_student(
    tmp_path: Path, teacher: Path, rows: dict[str, str], generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, original = [], AdversarialGenerator.train_step

    def noted(self: AdversarialGenerator, *args: Any) -> None:
        original(self, *args)
        shown.append({k: v.clone() for k, v in self.tensors().items() if k.startswith("generator.")})

    monkeypatch.setattr(AdversarialGenerator, "train_step", noted)
    options = {"generator": generator, "generator_lr": 1e-3, "generator_steps": 1, "student_steps": 2}
    options |= lenient("mate-kd")
    assert run(tmp_path / "run", teacher, layers=2, method="mate-kd", method_options=options, **rows, **QUICK) == 0
    assert len(shown) == 5
    assert any(not torch.equal(shown[0][k], shown[-1][k]) for k in shown[0])
    plain = tmp_path / "plain"
    assert run(plain, teacher, layers=2, method="none", **rows, **QUICK) == 0
    assert weights(tmp_path / "run").keys() == weights(plain).keys()


def test_a_generator_of_other_words_is_refused(
    tmp_path: Path, teacher: Path, rows: dict[str, str], generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = with_other_words(tmp_path / "other")
    options = {"generator": other}
    assert run(tmp_path / "run", teacher, layers=2, method="mate-kd", method_options=options, **rows, **QUICK) == 2
    assert "teacher and generator have different vocabularies" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": "wpe"}, "--freeze wpe matches no parameter"),
        ({"method": "mate-kd", "method_options": {"generator": "unknown"}}, "is a electra model; give a causal"),
    ],
)
def test_what_only_the_weights_tell_is_refused_before_the_teacher_is_asked(
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    teacher: Path,
    rows: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "method" in options:
        options = options | {"method_options": {"generator": save_tiny(tmp_path / "unknown", "electra")}}
    assert run(tmp_path / "run", teacher, **{"layers": 2} | rows | QUICK | options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "signals").exists()
    assert run(tmp_path / "run", teacher, layers=2, **rows, **QUICK) == 0  # another run, and not barred


def test_a_teacher_of_narrow_embeddings_is_no_generator(
    tmp_path: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save_tiny(tmp_path / "teacher", "electra", label_names=LABELS)
    assert run(tmp_path / "run", teacher, layers=2, method="mate-kd", **rows, **QUICK) == 2
    assert "embeddings are 16 wide and its hidden states 32" in capsys.readouterr().err
    assert not (tmp_path / "run" / "signals").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mate-kd", "sharding": "full"}, "method mate-kd rewrites text with the student's gradients"),
        ({"unlabelled": "nowhere.csv"}, "there is no file nowhere.csv; check the path."),
    ],
)
def test_what_no_model_is_needed_for_is_refused_at_once(
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    teacher: Path,
    rows: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"layers": 2} | rows | QUICK | options
    assert run(tmp_path / "run", teacher, **given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(arguments("plan", teacher=teacher, flops=1e9, **given)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arch", "method", "shown"), [("gpt2", "pkd", 1), ("gpt2", "rail-kd-l", 0), ("bert", "pkd", 0)]
)
def test_a_causal_students_first_token_is_warned_of(
    arch: str, method: str, shown: int, tmp_path: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save_tiny(tmp_path / "teacher", arch, label_names=LABELS)
    assert run(tmp_path / "run", teacher, layers=2, method=method, **rows, **QUICK) == 0
    assert capsys.readouterr().err.count("compares the hidden states of the first token") == shown


def test_masking_needs_a_mask(
    tmp_path: Path, teacher: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    maskless = shutil.copytree(teacher / "model", tmp_path / "maskless")
    tokenizer = AutoTokenizer.from_pretrained(maskless)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(maskless)
    assert run(tmp_path / "run", maskless, layers=2, method="mate-kd", **rows, **QUICK) == 2
    assert "has no mask token; take a teacher" in capsys.readouterr().err
