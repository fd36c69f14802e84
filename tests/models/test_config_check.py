"""Values of a config.json that no model has are refused before anything is built."""

import json
from typing import Any

import pytest

from demiglace.cli import main
from demiglace.errors import ModelError
from demiglace.models.loading import load_classifier, load_config
from factories import save_tiny

HOSTILE: dict[str, Any] = {
    "num_hidden_layers": 10**9,
    "hidden_size": 10**9,
    "num_attention_heads": 0,
    "intermediate_size": 1.5,
    "vocab_size": "many",
    "pad_token_id": 10**9,
    "id2label": ["a", "b"],
    "max_position_embeddings": -1,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_no_model_has_is_named(tmp_path, name):
    directory = save_tiny(tmp_path / "m", num_layers=1)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: HOSTILE[name]}))
    with pytest.raises(ModelError, match=rf"config\.json is no config of a model: {name} is"):
        load_config(str(directory))


@pytest.mark.parametrize(
    ("content", "why"),
    [("[]", "holds no object"), ("{", "Expecting"), ('{"a": ' * 100_000, "nested too deeply"), ("\x00", "Expecting")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, content, why):
    directory = save_tiny(tmp_path / "m", num_layers=1)
    (directory / "config.json").write_text(content)
    with pytest.raises(ModelError, match=why):
        load_config(str(directory))


def test_sizes_that_are_possible_alone_and_not_together_are_refused(tmp_path):
    directory = save_tiny(tmp_path / "m", num_layers=1)
    values = {"num_hidden_layers": 2000, "hidden_size": 200_000}
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(ModelError, match="have more parameters than any model"):
        load_config(str(directory))


@pytest.mark.parametrize(
    "values", [{"dtype": "float17"}, {"num_attention_heads": 5}, {"hidden_act": 3}, {"model_type": []}]
)
def test_what_only_transformers_can_know_is_an_error_in_words_too(tmp_path, values, capsys):
    directory = save_tiny(tmp_path / "m", num_layers=1)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(ModelError):
        load_classifier(str(directory), None)
    assert main(["truncate", str(directory), "--layers", "1", "-o", str(tmp_path / "out")]) == 2
    assert str(directory) in capsys.readouterr().err
