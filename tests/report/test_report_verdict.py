import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_runs import artefact, write_demo, write_run, write_training

from demiglace.report.runs.load import collect
from demiglace.report.runs.verdict import Verdict, noise_of, verdict


def verdict_of(*paths: Path) -> Verdict:
    page = collect(paths)
    found = verdict(page.experiments[0], page)
    assert found is not None
    return found


def shown(*paths: Path) -> str:
    found = verdict_of(*paths)
    return " ".join((found.headline, *found.notes)).replace("\u00a0", " ")


def test_the_headline_says_what_is_kept_and_saved(tmp_path: Path) -> None:
    headline = verdict_of(write_demo(tmp_path)).headline.replace("\u00a0", " ")
    assert headline == (
        "The 3-layer student keeps 98.9 % of the teacher’s accuracy (91.8 against 92.8) "
        "at 76 % of its size and 3.1× lower latency."
    )


@pytest.mark.parametrize(
    ("student", "baseline", "words"),
    [
        (0.918, 0.915, "91.5, 0.3 points less: too little to tell from noise"),
        (0.918, 0.880, "88.0, 3.8 points less: more than the noise of the rows; repeat it with other seeds"),
        (0.918, 0.922, "92.2, 0.4 points more: the distilled student is not better here."),
        (0.880, 0.922, "92.2, 4.2 points more: the distilled student is not better here, by more than the noise"),
        (0.918, 0.91801, "the same 91.8: no gain from the teacher is visible here"),
    ],
)
def test_the_baseline_is_judged_honestly(tmp_path: Path, student: float, baseline: float, words: str) -> None:
    assert words in shown(write_demo(tmp_path, student=student, baseline=baseline))


def test_one_seed_is_said_to_be_one_seed_and_nothing_significant(tmp_path: Path) -> None:
    text = shown(write_demo(tmp_path, student=0.92, baseline=0.80))
    assert "one run with one seed: on 3,080 test rows, differences under about 1.4 points are noise" in text
    assert "significan" not in text


def test_the_noise_is_that_of_two_independent_shares() -> None:
    assert noise_of(0.918, 3080) == pytest.approx(1.96 * math.sqrt(2 * 0.918 * 0.082 / 3080))
    assert noise_of(1.0, 100) == 0


def test_the_int8_file_is_told(tmp_path: Path) -> None:
    text = shown(write_demo(tmp_path))
    assert "As ONNX int8 it takes 17.6 MB" in text
    assert "1.60 ms (median, one row at a time) against 14.5 ms for the PyTorch teacher" in text
    assert "gives the PyTorch student’s label for 99.2 % of the rows checked" in text and "itself" not in text
    manifest = tmp_path / "export" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["artefacts"][-1]["metrics"] = {"accuracy": 0.905}
    manifest.write_text(json.dumps(content))
    assert "for the PyTorch teacher, scores 90.5 itself and gives" in shown(tmp_path)


def test_a_language_models_file_has_its_speed(tmp_path: Path) -> None:
    write_training(tmp_path / "s", "distill", {"teacher": "m", "layers": 3}, 0.4, problem="language-modelling")
    speed = {"tokens_per_second": {"prefill": 310.0, "decode": 41.25}, "label_agreement": 0.983}
    file = artefact("ONNX int4", "export", "onnx/model_q4.onnx", 92.4, 1.0) | speed | {"latency_ms": None}
    write_run(tmp_path / "e", "export", {"model": str(tmp_path / "s")}, artefacts=[file])
    assert (
        "As ONNX int4 it takes 92.4 MB, writes 41.2 tokens per second (median, one text at a time) and predicts the "
        "PyTorch student’s next token after 98.3 % of the tokens checked."
    ) in shown(tmp_path)


def test_a_student_above_its_teacher_reaches_more_than_all(tmp_path: Path) -> None:
    assert "reaches 100.5 % of the teacher’s accuracy" in shown(write_demo(tmp_path, student=0.933))


def pair(tmp_path: Path, **results: Any) -> list[Path]:
    teacher = write_training(tmp_path / "t", "finetune", {"model": "m"}, None, layers=6, **results)
    values = results | {"metrics": {s: {k: v + 0.1 for k, v in m.items()} for s, m in results["metrics"].items()}}
    return [teacher, write_training(tmp_path / "s", "distill", {"teacher": str(teacher), "layers": 3}, None, **values)]


def test_an_error_has_no_share_that_is_kept(tmp_path: Path) -> None:
    text = shown(*pair(tmp_path, problem="regression", metrics={"test": {"mse": 0.3}}))
    assert "has mean squared error 0.400 against the teacher’s 0.300" in text
    assert "small differences are noise" in text and "points" not in text


def test_scores_on_validation_rows_are_called_so(tmp_path: Path) -> None:
    text = shown(*pair(tmp_path, metrics={"validation": {"accuracy": 0.8}}, bytes=None))
    assert "1,000 validation rows" in text and "These rows also chose the best epoch" in text
    assert "with 76 % of its parameters" in text  # no file was measured


def test_without_a_student_the_model_itself_is_told(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, 0.928, layers=6)
    assert "The 6-layer model reaches accuracy 92.8 on 3,080 test rows." in shown(run)


def test_of_several_students_the_validation_rows_choose(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo", student=0.918)
    options = {"teacher": str(demo / "teacher"), "layers": 3, "method": "pkd"}
    lucky = {"validation": {"accuracy": 0.80}, "test": {"accuracy": 0.99}}  # better on test only
    write_training(demo / "pkd", "distill", options, None, metrics=lucky)
    text = shown(demo)
    assert "keeps 98.9 %" in text
    assert "Of 2 distilled students this is distilled (rail-kd-l), the best on the validation rows." in text


def test_runs_without_scores_have_no_verdict(tmp_path: Path) -> None:
    page = collect([write_training(tmp_path / "run", "finetune", {"model": "m"}, None)])
    assert verdict(page.experiments[0], page) is None
