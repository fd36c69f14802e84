"""The outputs of a kept head are put into the order of the data's labels."""

import copy

import pytest
import torch

from demiglace.errors import ModelError
from demiglace.labels import Match
from demiglace.models.labels import adopt_labels, label_names_of, reorder_outputs, set_labels, task_of_config
from demiglace.models.loading import load_classifier
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION
from factories import ARCHITECTURES, save_tiny, tiny_config, tiny_model

COLOURS = ("blue", "green", "red")


def logits_of(model):
    ids = torch.tensor([[5, 7, 9, 11, 12], [6, 8, 10, 12, 14]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_outputs_are_permuted(arch):
    model = tiny_model(arch, num_layers=2)
    before = logits_of(model)
    adopt_labels(model, COLOURS, Match((2, 0, 1), "name"))
    torch.testing.assert_close(logits_of(model), before[:, [2, 0, 1]])
    assert label_names_of(model) == COLOURS
    assert model.config.label2id == {"blue": 0, "green": 1, "red": 2}


def test_the_current_order_changes_nothing():
    model = tiny_model("bert", num_layers=1)
    before = copy.deepcopy(model.state_dict())
    reorder_outputs(model, (0, 1, 2))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_head_whose_logits_do_not_follow_is_an_error():
    model = tiny_model("bert", num_layers=1)
    frozen = torch.tensor([0.5, 0.3, 0.2])
    model.register_forward_hook(lambda module, given, output: type(output)(logits=output.logits + frozen))
    with pytest.raises(ModelError, match="cannot be put into another order"):
        reorder_outputs(model, (1, 2, 0))


@pytest.mark.parametrize(
    ("own", "order", "line"),
    [
        (("red", "blue", "green"), [1, 2, 0], "in another order: red, blue, green"),
        (("BLUE", "GREEN", "RED"), [0, 1, 2], "without regard to case: blue = BLUE"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2], "have no names; they are taken in the order of the labels"),
    ],
)
def test_a_kept_head_is_put_into_the_order_of_the_labels(own, order, line, tmp_path, capsys):
    path = save_tiny(tmp_path, num_layers=1, label_names=own)
    model = load_classifier(path, COLOURS)
    torch.testing.assert_close(logits_of(model), logits_of(tiny_model("bert", num_layers=1))[:, order])
    assert label_names_of(model) == COLOURS
    assert line in capsys.readouterr().err


def test_unnamed_outputs_for_named_labels_get_a_new_head(tmp_path, capsys):
    load_classifier(save_tiny(tmp_path, num_layers=1, label_names=COLOURS), ("0", "1", "2"))
    assert "head is new" in capsys.readouterr().err


def test_the_class_of_a_hub_model_tells_that_it_has_tags_of_words():
    config = tiny_config("bert")
    config.architectures = ["BertForTokenClassification"]
    set_labels(config, ("O", "B-X"), TOKEN_CLASSIFICATION)
    assert not hasattr(config, "demiglace_task") and task_of_config(config) is TOKEN_CLASSIFICATION
    set_labels(config, COLOURS, CLASSIFICATION)  # as the base of a classifier of texts
    assert task_of_config(config) is CLASSIFICATION
