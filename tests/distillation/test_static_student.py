"""The static model and how a teacher makes it: against independent computations with numpy and transformers."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from demiglace.distillation.static_student import (
    check_static_method,
    sif_weights,
    static_config,
    static_student,
    token_states,
    token_vectors,
)
from demiglace.errors import ConfigError, ModelError
from demiglace.methods.registry import METHODS, build_method
from demiglace.models.loading import load_classifier, load_tokenizer, save_model
from demiglace.models.static import StaticForSequenceClassification, register
from factories import VOCABULARY, save_decoder, save_tiny

NAMES = ("bad", "good", "none")
V, D = len(VOCABULARY), 32


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = save_tiny(tmp_path_factory.mktemp("teacher"), num_layers=2, label_names=NAMES)
    return load_classifier(path, None), load_tokenizer(path)


@pytest.fixture(scope="module")
def student(teacher):
    return static_student(*teacher, 8)


def test_a_token_s_states_are_those_of_a_text_of_it_alone(teacher):
    model, tokenizer = teacher
    found = token_states(model, tokenizer, [40, 7])
    for state, token in zip(found, (40, 7), strict=True):
        ids = torch.tensor([[tokenizer.cls_token_id, token, tokenizer.sep_token_id]])
        with torch.no_grad():
            expected = model.bert(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(state, expected)


def test_a_decoder_s_tokens_have_nothing_around_them(tmp_path):
    path = save_decoder(tmp_path, num_layers=1)
    model = load_classifier(path, None)
    with torch.no_grad():
        expected = model.transformer(input_ids=torch.tensor([[9]])).last_hidden_state[0, 0]
    torch.testing.assert_close(token_states(model, load_tokenizer(path), [9])[0], expected)


def test_vectors_are_weighted_principal_components(teacher):
    states = token_states(*teacher, range(V)).double().numpy()
    centred = states - states.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, np.argsort(-values)[:8]]
    ranks = 1 / np.arange(2, V + 2)
    expected = (centred @ axes) * (1e-4 / (1e-4 + ranks / ranks.sum()))[:, None]
    expected /= np.sqrt((expected**2).sum(1).mean())
    found = token_vectors(*teacher, range(V), 8).numpy()
    signs = np.sign((found * expected).sum(0))  # the direction of an axis is free
    np.testing.assert_allclose(found, expected * signs, rtol=1e-3, atol=1e-4)


def test_frequent_tokens_weigh_less():
    weights = sif_weights(30_522)
    assert (np.diff(weights) > 0).all()
    assert weights[0] < 0.01
    assert weights[-1] > 0.9


def test_the_table_holds_the_vectors_and_the_seed_makes_the_head(teacher, student):
    torch.testing.assert_close(student.get_input_embeddings().weight, token_vectors(*teacher, range(V), 8))
    again, other = static_student(*teacher, 8), static_student(*teacher, 8, seed=1)
    assert torch.equal(again.classifier.weight, student.classifier.weight)
    assert not torch.equal(other.classifier.weight, student.classifier.weight)
    assert student.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_of_the_mean_of_the_real_tokens(student, side):
    rows = [[5, 6, 7], [9]]
    padded = [row + [0] * (3 - len(row)) if side == "right" else [0] * (3 - len(row)) + row for row in rows]
    ids = torch.tensor(padded)
    with torch.no_grad():
        found = student(ids, ids.ne(0).long()).logits.numpy()
    table, head = student.static.embeddings.weight.detach().numpy(), student.classifier
    means = np.stack([table[row].mean(0) for row in rows])
    expected = means @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_row_without_tokens_has_finite_logits(student):
    ids = torch.zeros(1, 3, dtype=torch.int64)
    with torch.no_grad():
        torch.testing.assert_close(student(ids, ids).logits[0], student.classifier.bias)


def test_the_config_knows_the_number_of_parameters(teacher, student):
    model, tokenizer = teacher
    config = static_config(model.config, tokenizer, 8)
    assert config.parameters == sum(p.numel() for p in student.parameters()) == V * 8 + 9 * 3
    assert static_config(model.config, tokenizer).hidden_size == D  # its teacher has less than 256
    random = StaticForSequenceClassification(config)  # as for a measurement before training
    assert sum(p.numel() for p in random.parameters()) == config.parameters


def test_saving_and_loading_keeps_the_model(student, tmp_path):
    save_model(student, tmp_path)
    register()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, StaticForSequenceClassification)
    assert loaded.config.to_dict() == student.config.to_dict() | {"_name_or_path": loaded.config.name_or_path}
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded.eval()(ids).logits, student(ids).logits)


@pytest.mark.parametrize(
    ("size", "error", "message"), [(33, ConfigError, "have 32 dimensions"), (20, ModelError, "9 tokens")]
)
def test_sizes_that_cannot_be_are_refused(teacher, size, error, message):
    model, tokenizer = teacher
    with pytest.raises(error, match=message):
        if error is ConfigError:
            static_config(model.config, tokenizer, size)
        else:
            token_vectors(model, tokenizer, range(9), size)


OUTPUTS_ALONE = {
    *("none", "vanilla-kd", "pseudo-labels", "annealing-kd", "continuation-kd"),
    *("jsd", "reverse-kl", "skew-kl", "skew-reverse-kl"),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_need_layers_are_refused(name):
    method = build_method(name, {})
    if name in OUTPUTS_ALONE:
        check_static_method(name, method)
    else:
        with pytest.raises(ConfigError, match="give --method vanilla-kd, pseudo-labels or none"):
            check_static_method(name, method)
