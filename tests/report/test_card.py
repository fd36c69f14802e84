"""The model card: metadata that Hugging Face reads, what it says, and what it must not let through."""

from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from report_runs import write_demo, write_run, write_training
from test_report_page import HOSTILE

from demiglace.report.model_card import escaped, model_card, write_card
from demiglace.runs.directory import read_manifest


def read(text: str) -> ModelCard:
    return ModelCard(text)  # parses the front matter, model-index included; raises where it is not valid


def test_the_metadata_reads_back(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    card = read(model_card(demo / "distilled", {}))
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert card.data.datasets is None and "knowledge-distillation" in card.data.tags  # the package carries its rows
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert found["test", "accuracy"] == 0.918 and found["validation", "accuracy"] == 0.908


def test_it_names_the_base_on_the_hub_and_no_local_path(tmp_path: Path) -> None:
    teacher = write_training(tmp_path / "teacher", "finetune", {"model": "org/base"}, 0.9, layers=6)
    student = write_training(tmp_path / "s", "distill", {"teacher": str(teacher), "layers": 3, "method": "pkd"}, 0.8)
    text = model_card(student / "model", {})
    assert read(text).data.base_model == "org/base"
    assert "distilled from a teacher of 6 with the method `pkd`" in text
    assert str(tmp_path) not in text
    local = write_training(tmp_path / "own", "finetune", {"model": str(tmp_path / "bert")}, 0.9)
    assert read(model_card(local, {})).data.base_model is None
    assert "**Initialised from:** bert" in model_card(local, {})


def test_a_comparison_gives_the_baselines_score_and_the_layers_kept(tmp_path: Path) -> None:
    start = write_run(tmp_path / "start", "truncate", {"model": "m", "layers": 2}, keep=[0, 3])
    teacher = write_training(tmp_path / "teacher", "finetune", {"model": "m"}, 0.95)
    for method, accuracy in (("none", 0.7), ("pkd", 0.8)):
        options = {"teacher": str(teacher), "student": str(start), "method": method}
        write_training(tmp_path / method / "seed-0", "distill", options, accuracy, method=method)
    text = model_card(tmp_path / "pkd" / "seed-0", {})
    assert "| test | Accuracy | 80.0 | 95.0 | 70.0 |" in text
    assert "layers kept: 0, 3, counted from 0" in text
    assert "70.0" not in model_card(tmp_path / "none" / "seed-0", {}).split("No teacher |")[0]


def test_a_trimmed_vocabulary_is_named(tmp_path: Path) -> None:
    options, kept = {"teacher": "m", "method": "none"}, {"kept": 2840, "full": 30522, "drops": {}}
    text = model_card(write_training(tmp_path / "a", "distill", options, 0.7, vocabulary=kept), {})
    assert "- **Vocabulary:** 2,840 of 30,522 tokens; words" in text
    assert "Vocabulary" not in model_card(write_training(tmp_path / "b", "distill", options, 0.7), {})


def test_the_baseline_is_not_called_distilled(tmp_path: Path) -> None:
    teacher = write_training(tmp_path / "teacher", "finetune", {"model": "org/base"}, 0.9, layers=6)
    options = {"teacher": str(teacher), "method": "none"}
    text = model_card(
        write_training(tmp_path / "none" / "seed-0", "distill", options, 0.7, layers=3, method="none"), {}
    )
    assert (
        "A student of 3 layers, truncated from a model of 6 and trained on the labels alone, without a teacher." in text
    )
    assert read(text).data.tags == ["demiglace"] and "distilled" not in text


def test_a_method_file_is_named_without_its_path(tmp_path: Path) -> None:
    options = {"teacher": "t", "method": "secret/my_method.yaml"}
    text = model_card(write_training(tmp_path / "run", "distill", options, 0.7), {})
    assert "with the method `my_method.yaml`" in text and "secret" not in text


def test_rows_and_metrics_have_the_names_that_the_hub_has_for_them(tmp_path: Path) -> None:
    values = {"metrics": {"validation": {"matthews": 0.4, "accuracy": 0.7}}, "hub": ["nyu-mll/glue", "cola"]}
    run = write_training(tmp_path / "run", "finetune", {"model": "org/base"}, 0.9, task="cola", **values)
    card = read(model_card(run, {}))
    assert card.data.datasets == ["nyu-mll/glue"]
    first, second = card.data.eval_results
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == ("nyu-mll/glue", "cola", "validation")
    assert (first.metric_type, first.metric_value) == ("matthews_correlation", 0.4)
    assert second.metric_type == "accuracy" and card.data.metrics == ["matthews_correlation", "accuracy"]


def test_a_model_of_pairs_is_shown_with_a_pair(tmp_path: Path) -> None:
    for pairs, call in ((True, '("a text", "another"'), (False, '("a text"')):
        run = write_training(tmp_path / str(pairs), "finetune", {"model": "org/base"}, 0.9, pairs=pairs)
        text, onnx = model_card(run, {}), model_card(run, {"artefacts": []} | {"machine": {}})
        assert f"tokenizer{call}, truncation=True" in text and f"tokenizer.encode{call})" in onnx
        assert ("For pairs of texts like its training rows" in text) is pairs


def test_names_that_the_hub_has_not_are_not_given_to_it(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "学生", "finetune", {"model": "m", "data": "data/support"}, 0.9, task="support")
    card = read(model_card(folder, {}))
    assert card.data.datasets is None and card.data.eval_results[0].dataset_type == "custom"
    assert card.data.model_name


def test_the_baseline_of_a_grids_axis_is_that_of_the_same_value(tmp_path: Path) -> None:
    for method, rate, accuracy in (("none", 0.1, 0.6), ("none", 0.2, 0.7), ("pkd", 0.2, 0.8)):
        run = tmp_path / "sst2" / "half" / method / f"lr={rate}" / "seed-0"
        write_training(run, "distill", {"teacher": str(tmp_path / "t"), "method": method}, accuracy, method=method)
    assert "| test | Accuracy | 80.0 | – | 70.0 |" in model_card(run, {})


def test_an_export_has_its_files_measured(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    write_card(demo / "export", str(demo / "distilled"), exported=read_manifest(demo / "export"))
    text = (demo / "export" / "README.md").read_text("utf-8")
    assert read(text).data.eval_results
    assert "| ONNX int8 | 17.6 MB | 1.60 ms | 32.0 ms | 99.2 % |" in text.replace("\u00a0", " ")
    assert "PyTorch teacher" not in text and 'InferenceSession("model.onnx")' in text
    assert read(text).data.library_name == "onnx" and "onnx" in read(text).data.tags
    assert read_manifest(demo / "export")["artefacts"]


def exported_as(problem: str, model_type: str, precisions: tuple[str, ...] = ("fp32", "int4", "int8")) -> dict:
    """The manifest of an ONNX export, as far as the card reads it."""
    artefacts = [
        {"name": p, "format": "onnx", "precision": p, "role": "export", "file": f"{p}.onnx"} for p in precisions
    ]
    labels = [] if problem in ("regression", "sentence-embedding") else ["bad", "good"]
    return {"artefacts": artefacts, "problem": problem, "labels": labels, "model_type": model_type}


def javascript(text: str) -> str:
    return text.partition("```js\n")[2].partition("```")[0]


def test_an_exports_card_shows_how_to_call_it_from_javascript(tmp_path: Path) -> None:
    code = javascript(model_card(tmp_path, exported_as("classification", "bert")))
    assert 'await pipeline("text-classification", "onnx", { dtype: "q8" })' in code
    code = javascript(model_card(tmp_path, exported_as("classification", "bert", ("fp32",))))
    assert 'dtype: "fp32"' in code
    text = model_card(tmp_path, exported_as("token-classification", "distilbert"))
    assert 'pipeline("token-classification"' in javascript(text) and "to each token, not to each word" in text
    pairs = write_training(tmp_path / "pairs", "finetune", {"model": "m"}, 0.9, pairs=True, labels=["a", "b"])
    text = model_card(pairs, exported_as("classification", "bert"))
    assert 'tokenizer("a text", { text_pair: "another" })' in javascript(text) and "takes no pairs" in text


def test_a_card_states_what_transformers_js_cannot_do(tmp_path: Path) -> None:
    text = model_card(tmp_path, exported_as("regression", "bert"))
    assert "would return 1 for every text" in text and "console.log(logits.data);" in javascript(text)
    for kind in ("gpt2", "llama"):
        text = model_card(tmp_path, exported_as("classification", kind))
        assert f"transformers.js has no classifier of the type {kind}; run the file with onnxruntime-web" in text
        assert not javascript(text)
    text = model_card(tmp_path, exported_as("sentence-embedding", "bert"))
    assert "AutoModel.from_pretrained" in javascript(text) and "const { sentence_embedding }" in text
    without = exported_as("classification", "bert")
    del without["model_type"]  # an export of an earlier version
    assert "transformers.js" not in model_card(tmp_path, without)


def test_a_regressors_card_prints_its_number(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "org/base"}, 0.9, problem="regression", labels=[])
    text = model_card(run, {})
    assert "print(float(logits[0][0]))" in text and "id2label" not in text and "the labels above" not in text


def test_a_language_model_of_version_0_1_has_a_card(tmp_path: Path) -> None:
    run = write_training(tmp_path / "lm", "finetune", {"model": "org/base"}, 0.9, problem="language")
    assert read(model_card(run, {})).data.pipeline_tag == "text-generation"


def test_a_model_without_a_manifest_has_a_card_too(tmp_path: Path) -> None:
    text = model_card(tmp_path / "elsewhere", {})
    assert read(text).data.eval_results is None and "no manifest records how it was trained" in text


def test_hostile_names_change_neither_metadata_nor_page(tmp_path: Path) -> None:
    name = f"{HOSTILE}\n---\nlicense: mit\n# big | [x](javascript:alert(1))"
    run = write_training(tmp_path / "run", "finetune", {"model": name}, 0.9, task=name, labels=[name, "b"])
    text = model_card(run, {})
    card = read(text)
    assert card.data.license is None and card.data.datasets is None and card.data.base_model is None
    assert card.data.eval_results[0].dataset_type == "custom"
    assert "<script" not in card.text and "\n# big" not in text and "[x](" not in text and "\u202e" not in text
    assert text.count("\n---\n") == 1
    yaml.safe_load(text.split("---\n")[1])


def test_escaping() -> None:
    assert escaped("a_b*c|<i>\nd") == r"a\_b\*c\|&lt;i&gt; d"
    assert len(escaped("x" * 999)) == 200
