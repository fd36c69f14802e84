"""Values of `--model`: run directories, model directories, hub names; and fingerprints of models."""

import json

import pytest

from demiglace.errors import ModelError
from demiglace.models.files import check_weights, weight_files
from demiglace.models.loading import fingerprint_model, resolve_model
from demiglace.runs.directory import open_run
from factories import save_tiny, tiny_model


def test_a_model_directory_is_unchanged(tmp_path):
    save_tiny(tmp_path / "m", num_layers=1)
    assert resolve_model(tmp_path / "m") == str(tmp_path / "m")


def test_a_finished_run_resolves_to_its_model(tmp_path):
    run = open_run(tmp_path / "run", "finetune", {}, {})
    save_tiny(run.path / "model", num_layers=1)
    with pytest.raises(ModelError, match="unfinished run"):
        resolve_model(run.path)
    run.finish()
    assert resolve_model(run.path) == str(run.path / "model")


def test_a_truncated_run_is_the_model_directory(tmp_path):
    run = open_run(tmp_path / "run", "truncate", {}, {})
    save_tiny(run.path, num_layers=1)
    run.finish()
    assert resolve_model(run.path) == str(run.path)


def test_a_run_or_directory_without_a_model_is_refused(tmp_path):
    open_run(tmp_path / "run", "evaluate", {}, {}).finish()
    (tmp_path / "empty").mkdir()
    for name in ("run", "empty"):
        with pytest.raises(ModelError, match="contains no model"):
            resolve_model(tmp_path / name)


def test_a_file_is_refused(tmp_path):
    file = save_tiny(tmp_path, num_layers=1) / "model.safetensors"
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(file)


@pytest.mark.parametrize("name", ["bert-base-uncased", "microsoft/deberta-v3-small", "google/electra_small.v1"])
def test_hub_names_are_unchanged(name):
    assert resolve_model(name) == name


@pytest.mark.parametrize("name", ["./m", "../m", "/nowhere/m", "a/b/c", "m/", "~/nowhere", "", "a\\b"])
def test_paths_that_do_not_exist_are_refused(name):
    with pytest.raises(ModelError, match="there is no model at" if name else "config.json"):
        resolve_model(name)


def test_a_name_below_an_existing_directory_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no model at runs/teacher"):
        resolve_model("runs/teacher")


def test_fingerprint_covers_weights_config_and_tokenizer_only(tmp_path):
    one, other = save_tiny(tmp_path / "a", num_layers=1), save_tiny(tmp_path / "b", num_layers=1)
    assert fingerprint_model(one) == fingerprint_model(other)
    (other / "README.md").write_text("notes")
    assert fingerprint_model(one) == fingerprint_model(other)
    seen = {fingerprint_model(one), fingerprint_model(save_tiny(tmp_path / "c", num_layers=1, seed=1))}
    for name in ("config.json", "tokenizer.json"):
        with (other / name).open("a") as file:
            file.write("\n")
        seen.add(fingerprint_model(other))
    assert len(seen) == 4


def test_the_fingerprint_of_an_unreachable_name_is_an_error():
    with pytest.raises(
        ModelError,
        match=r"no directory nobody/nothing here\. As a name on the Hugging Face hub it is not in the local cache",
    ):
        fingerprint_model("nobody/nothing")


def sharded(model, directory):
    """Save a model as several files with an index."""
    model.save_pretrained(directory, max_shard_size="20KB")
    assert len(weight_files(directory)) > 2
    return directory / "model.safetensors.index.json"


def rewrite(index, name):
    """Let the first weight of an index be in another file."""
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = name
    index.write_text(json.dumps(content))


def test_the_fingerprint_covers_the_index_and_each_file_that_it_names(tmp_path):
    index = sharded(tiny_model("bert", num_layers=1), tmp_path)
    before = fingerprint_model(tmp_path)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / weight_files(tmp_path)[0].name).read_bytes())
    assert fingerprint_model(tmp_path) == before
    rewrite(index, "other.safetensors")
    named = fingerprint_model(tmp_path)
    assert named != before
    (tmp_path / "other.safetensors").write_bytes(b"changed")
    assert fingerprint_model(tmp_path) not in (before, named)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors", "gone.safetensors", ""]
)
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path, name):
    index = sharded(tiny_model("bert", num_layers=1), tmp_path / "model")
    (tmp_path / "outside.safetensors").write_bytes(weight_files(tmp_path / "model")[0].read_bytes())
    rewrite(index, name)
    for read in (fingerprint_model, lambda path: check_weights(path, allow_pickle=False)):
        with pytest.raises(ModelError, match="expected a file beside it"):
            read(tmp_path / "model")


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 1}', "{"])
def test_a_damaged_index_is_refused(tmp_path, content):
    index = sharded(tiny_model("bert", num_layers=1), tmp_path)
    index.write_text(content)
    with pytest.raises(ModelError, match="is damaged"):
        fingerprint_model(tmp_path)


def test_an_index_of_weights_that_are_not_read_does_not_matter(tmp_path):
    tiny_model("bert", num_layers=1).save_pretrained(tmp_path)
    before = fingerprint_model(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "gone.bin"}}')
    assert fingerprint_model(tmp_path) == before
