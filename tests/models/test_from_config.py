"""Models built from a config without weights."""

import shutil

import pytest
import torch

from demiglace.errors import ModelError
from demiglace.models.from_config import classifier_config, random_model, shape_of_config
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_config, truncate_model
from factories import ARCHITECTURES, save_tiny, tiny_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_config_has_the_shape_of_its_model(arch):
    model = tiny_model(arch)
    assert shape_of_config(model.config) == ModelShape.of(model)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_truncated_config_has_the_shape_of_the_truncated_model(arch):
    model = tiny_model(arch)
    assert shape_of_config(truncate_config(model.config, (0, 2))) == ModelShape.of(truncate_model(model, (0, 2)))


def test_no_weights_are_needed(tmp_path):
    path = save_tiny(tmp_path / "model")
    (path / "model.safetensors").unlink()
    config = classifier_config(path, ("a", "b", "c", "d"), dropout=0.25)
    assert (config.num_labels, config.id2label[3], config.hidden_dropout_prob) == (4, "d", 0.25)
    shutil.rmtree(path)
    with pytest.raises(ModelError, match="there is no model at"):
        classifier_config(path, ("a", "b"))


def test_random_weights_do_not_change_the_global_generator():
    config = tiny_model("bert").config
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model = random_model(config, CPU, "eager")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert model.config._attn_implementation == "eager"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.get_input_embeddings().weight.std() > 0
    assert config._attn_implementation != "eager"  # the one that was given is as it was
