"""Data sets and models of the hub by name and revision, and uploads; against a stand-in server on this machine."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets.config
import huggingface_hub.constants as constants
import pytest
from command_kit import QUICK, arguments

import demiglace
from demiglace.cli import main
from demiglace.data.rows.hub import HubRows, parse_hub
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.runs.directory import read_manifest
from factories import save_tiny
from hub_server import COMMIT, Hub, serve

TOKEN = "hf_secret_of_a_user"
SETTINGS = QUICK | {"epochs": 1}
CARD = """---
dataset_info:
- config_name: plain
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': negative, '1': positive}}}
configs:
- config_name: plain
  data_files:
  - {split: train, path: train.csv}
  - {split: validation, path: validation.csv}
  - {split: test, path: hidden.csv}
---
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str], base: Path) -> Iterator[Hub]:
    """A hub with the rows of the other tests, labels as numbers and hidden ones in test, and the untrained model."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "datasets" / "me" / "mood"
    folder.mkdir(parents=True)
    for split, file in (("train", rows["data"]), ("validation", rows["validation"]), ("hidden", rows["test"])):
        ids = ("-1", "-1") if split == "hidden" else ("0", "1")
        text = Path(file).read_text().replace(",negative", f",{ids[0]}").replace(",positive", f",{ids[1]}")
        (folder / f"{split}.csv").write_text(text)
    (folder / "README.md").write_text(CARD)
    shutil.copytree(base, root / "models" / "me" / "tiny")
    with serve(Hub(root)) as served, pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr(constants, "ENDPOINT", served.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(datasets.config, "HF_ENDPOINT", served.url)
        patch.setattr(datasets.config, "HUB_DATASETS_URL", served.url + "/datasets/{repo_id}/resolve/{revision}/{path}")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ("hf://stanfordnlp/imdb", HubRows("stanfordnlp/imdb")),
        ("hf://datasets/nyu-mll/glue/sst2:validation", HubRows("nyu-mll/glue", None, "sst2", "validation")),
        ("hf://a/b@v1.0:train[:10%]", HubRows("a/b", "v1.0", None, "train[:10%]")),
        ("hf://a/b@refs/pr/3/en", HubRows("a/b", "refs/pr/3", "en", None)),
        ("hf://a/b@my%2Fbranch", HubRows("a/b", "my/branch", None, None)),
    ],
)
def test_an_address_has_its_parts(spec, rows):
    assert parse_hub(spec) == rows


def test_a_wrong_address_is_refused_without_the_network(capsys, tmp_path, base):
    with pytest.raises(DataError, match=r"hf://OWNER/NAME\[@REVISION\]"):
        parse_hub("hf://imdb")
    assert main(arguments("finetune", model=base, data="hf://a/b/c/d/e", output=tmp_path / "run")) == 2
    assert "expected hf://OWNER/NAME" in capsys.readouterr().err


def test_rows_of_the_hub_train_as_files_do(hub, rows, base, teacher, tmp_path, capsys):
    words = arguments("finetune", model=base, data="hf://me/mood@v1/plain", output=tmp_path / "run", **QUICK)
    assert main(words) == 0
    assert "has no public labels" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["labels"], manifest["rows"]) == (["negative", "positive"], {"train": 36, "validation": 12})
    assert (manifest["hub"], manifest["data_revision"]) == (["me/mood", "plain"], COMMIT)
    assert manifest["metrics"]["validation"] == read_manifest(teacher)["metrics"]["validation"]
    assert "datasets:\n- me/mood" in (tmp_path / "run" / "model" / "README.md").read_text()
    scored = demiglace.evaluate(tmp_path / "run", data="hf://me/mood:validation")
    assert scored.metrics["hf://me/mood:validation"]["accuracy"] == manifest["metrics"]["validation"]["accuracy"]


def test_an_evaluation_keeps_the_commit_of_its_set(hub, teacher, tmp_path):
    run = demiglace.evaluate(teacher, data="hf://me/mood:validation", output=tmp_path / "run").path
    assert read_manifest(run)["sets"]["hf://me/mood:validation"]["data_revision"] == COMMIT


def test_unlabelled_rows_of_the_hub_are_those_of_a_file(hub, rows, teacher, tmp_path):
    runs, labelled = {}, {name: file for name, file in rows.items() if name != "test"}
    for name, texts in (("hub", "hf://me/mood:test"), ("file", rows["test"])):
        options = SETTINGS | {"layers": 1, "unlabelled": [texts]}
        runs[name] = demiglace.distill(teacher, output=tmp_path / name, **labelled, **options).path
    hub_run, file_run = (read_manifest(run) for run in runs.values())
    assert hub_run["rows"] == file_run["rows"] and hub_run["rows"]["unlabelled"] > 0
    assert hub_run["inputs"]["unlabelled"] == f"hf://me/mood@{COMMIT}:test"
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in runs.values()]
    assert weights[0] == weights[1]


def test_what_the_hub_has_not_is_refused_in_words(hub, base, tmp_path):
    for spec in ("hf://me/none", "hf://me/mood@v9", "hf://me/mood:dev"):
        with pytest.raises(DataError, match="could not be read from the hub") as caught:
            demiglace.finetune(base, data=spec, output=tmp_path / "run")
        assert TOKEN not in str(caught.value)


def test_a_model_of_a_revision_keeps_its_commit(hub, rows, teacher, tmp_path, capsys):
    words = arguments("finetune", model="me/tiny", revision="v1", output=tmp_path / "run", **rows, **SETTINGS)
    assert main(words) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest["inputs"]["model"] == COMMIT
    assert manifest["config"]["model"] == "me/tiny@v1"
    assert "base_model: me/tiny\n" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert main(words) == 0
    assert "is up to date" in capsys.readouterr().err
    with pytest.raises(ModelError, match="expected a model on the Hugging Face hub"):
        demiglace.finetune(teacher, revision="v1", output=tmp_path / "other", **rows)
    with pytest.raises(ConfigError, match="--architecture was given"):
        demiglace.pretrain(architecture="gpt2", revision="v1", corpus=["a.txt"], output=tmp_path / "other")


def test_a_finished_run_is_uploaded_and_a_failed_upload_leaves_it_intact(hub, rows, base, tmp_path, capsys):
    words = arguments("finetune", model=base, output=tmp_path / "run", push_to_hub="me/new", **rows, **SETTINGS)
    hub.fail_uploads, before = True, len(hub.commits)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "is complete, but was not uploaded to me/new: " in err and "Traceback" not in err and TOKEN not in err
    assert read_manifest(tmp_path / "run")["metrics"]
    hub.fail_uploads = False
    assert main(words) == 0
    assert f"uploaded to {hub.url}/me/new" in capsys.readouterr().err
    (files,) = hub.commits[before:]
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= files.keys()
    assert files["model.safetensors"] == (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert hub.private is True
    written = [f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert not any(TOKEN.encode() in content for content in (*written, *files.values()))
    assert "push_to_hub" not in json.loads((tmp_path / "run" / "run.json").read_text())["config"]


def test_records_of_a_run_with_local_paths_are_not_uploaded(hub, tmp_path):
    before, model = len(hub.commits), save_tiny(tmp_path / "model")
    demiglace.truncate(model, layers=2, output=tmp_path / "run", push_to_hub="me/cut")
    (files,) = hub.commits[before:]
    assert {"model.safetensors", "config.json"} <= files.keys()
    assert files.keys().isdisjoint({"run.json", "manifest.json", ".lock"})
