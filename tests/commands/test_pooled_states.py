"""`distill` on a decoder with an attention sink: what it prints, what it keeps, and that caches are not mixed up."""

from pathlib import Path
from typing import Any

import pytest
from command_kit import QUICK, SAVED, arguments, close, in_child, records, strike
from transformers import AutoModelForSequenceClassification

from demiglace.cli import main
from demiglace.models.loading import save_model
from demiglace.runs.directory import read_manifest
from demiglace.training import loop
from factories import plant_sink, save_decoder

FOUND = {"rows": 32, "layers": [1, 2, 3], "first": 32, "last": 0, "between": 0}


@pytest.fixture(scope="module")
def given(rows: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of `distill` with an untrained GPT-2 of four layers, its first token an attention sink, as teacher."""
    path = save_decoder(tmp_path_factory.mktemp("sinks") / "gpt2")
    model = plant_sink(AutoModelForSequenceClassification.from_pretrained(path))
    model.config.id2label = {0: "negative", 1: "positive"}
    save_model(model, path)
    return {"teacher": path, "layers": 2, "method": "rail-kd-l", **rows, **QUICK}


def run(output: Path, given: dict[str, Any], **options: Any) -> int:
    return main(arguments("distill", **given | {"output": output} | options))


def variances(run: Path) -> list[float]:
    return [record["diagnostics"]["layers.feature_variance"] for record in records(run, "step")]


def test_sinks_are_printed_and_kept(tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "auto", given) == 0
    said = capsys.readouterr().err
    expected = (
        "hidden states: pooled by normalized-mean; attention sinks in the teacher's layers 1 to 3: 32 first tokens"
    )
    assert said.count(expected) == 1
    assert "with the pooling" not in said
    kept = read_manifest(tmp_path / "auto")["hidden_states"]
    assert kept["poolings"] == ["normalized-mean"]
    assert kept["sinks"].pop("largest_ratio") > 10
    assert kept["sinks"] == FOUND
    assert min(variances(tmp_path / "auto")) > 0.01

    assert run(tmp_path / "mean", given, method_options={"pooling": "mean"}) == 0
    assert "warning: with the pooling mean, attention sinks make" in capsys.readouterr().err
    assert max(variances(tmp_path / "mean")) < 0.01

    assert run(tmp_path / "off", given, diagnostics="off") == 0
    assert "hidden states: " not in capsys.readouterr().err
    assert "hidden_states" not in read_manifest(tmp_path / "off")


def test_an_encoder_has_none(
    tmp_path: Path, teacher: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"teacher": teacher, "layers": 2, "method": "rail-kd-l"} | rows | QUICK
    assert run(tmp_path / "run", options) == 0
    assert "hidden states: pooled by mean; no attention sinks in the teacher on 32 rows" in capsys.readouterr().err
    assert read_manifest(tmp_path / "run")["hidden_states"]["sinks"]["layers"] == []
    assert run(tmp_path / "logits", options | {"method": "vanilla-kd"}) == 0
    assert "hidden states: " not in capsys.readouterr().err


def test_cached_states_are_those_of_the_teacher_online(tmp_path: Path, given: dict[str, Any]) -> None:
    assert run(tmp_path / "cached", given, cache_dtype="float32") == 0
    assert run(tmp_path / "online", given, cache="off") == 0
    close(tmp_path / "cached", tmp_path / "online", 2e-5)


def test_no_cache_of_another_pooling_is_used(tmp_path: Path, given: dict[str, Any]) -> None:
    for pooling in ("auto", "mean", "normalized-mean"):
        options = {"cache": tmp_path / "cache", "method_options": {"pooling": pooling}}
        assert run(tmp_path / pooling, given, **options) == 0
    held = {file.name for file in (tmp_path / "cache").rglob("hidden-*.npy")}
    assert held == {"hidden-mean.npy", "hidden-normalized-mean.npy"}
    assert len(list((tmp_path / "cache").rglob("cache.json"))) == 2  # auto is normalized-mean, in one cache with it
    close(tmp_path / "auto", tmp_path / "normalized-mean", 0.0)


def test_a_killed_run_resumes_to_the_same_result(tmp_path: Path, given: dict[str, Any]) -> None:
    assert run(tmp_path / "whole", given) == 0
    line = arguments("distill", **given | SAVED, output=tmp_path / "cut")
    assert in_child(line, lambda: strike(loop, "save_checkpoint", 7, after=True)) < 0
    assert main(line) == 0
    close(tmp_path / "cut", tmp_path / "whole", 0.0)
    assert read_manifest(tmp_path / "cut")["hidden_states"] == read_manifest(tmp_path / "whole")["hidden_states"]
