"""Sentence embedding: its divergence, its scores, and the modules of sentence-transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from demiglace.data.rows.schema import Split
from demiglace.data.rows.units import outputs_of_rows, units_of
from demiglace.errors import ModelError
from demiglace.evaluation.bootstrap_metrics import SUMMED
from demiglace.evaluation.scores import agreement, compute
from demiglace.losses.divergences import forward_kl
from demiglace.models.loading import fingerprint_model, load_classifier
from demiglace.models.sentence_encoder import POOL
from demiglace.models.sentence_modules import poolings_of, read_modules
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.sentence_embedding import RETRIEVAL, SENTENCE_EMBEDDING
from factories import save_sentence_encoder

FLAT = np.random.default_rng(0)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    return forward_kl(student, teacher, 2.0)


def test_the_divergence_is_the_cosine_distance_plus_that_of_the_similarities_to_other_texts():
    student, teacher = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    for i, found in enumerate(SENTENCE_EMBEDDING.divergence(student, teacher, kl)):
        others = [j for j in range(5) if j != i]
        relation = kl(20 * (s[others] @ s[i])[None], 20 * (t[others] @ t[i])[None])[0]
        torch.testing.assert_close(found, (s[i] - t[i]).square().sum() / 2 + relation)


def test_a_text_alone_has_no_similarities():
    student, teacher = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    expected = 1 - F.cosine_similarity(student, teacher)
    torch.testing.assert_close(SENTENCE_EMBEDDING.divergence(student, teacher, kl), expected)


def test_the_divergence_ignores_the_length_of_vectors():
    student, teacher = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    one, other = (SENTENCE_EMBEDDING.divergence(x, teacher, kl) for x in (student, 3 * student))
    torch.testing.assert_close(one, other)


def test_ranks_are_those_of_a_sorted_list_of_distinct_candidates():
    logits = FLAT.normal(size=(40, 12))
    logits[7, 6:] = logits[3, 6:]  # one second text occurs twice
    unit = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in np.split(logits, 2, axis=1)]
    distinct = np.delete(unit[1], 7, axis=0)
    for i, rank in enumerate(RETRIEVAL.decode(logits)):
        order = np.argsort(-distinct @ unit[0][i])
        right = next(k for k, j in enumerate(order) if np.allclose(distinct[j], unit[1][i]))
        assert rank == right + 1


def test_metrics_of_retrieval_count_the_pairs_that_belong_together():
    labels, ranks = np.array([1, 1, 0, 1.0]), np.array([1.0, 4.0, 1.0, 20.0])
    functions = {name: metric.function for name, metric in RETRIEVAL.metrics.items()}
    found = {name: function(labels, ranks) for name, function in functions.items() if function}
    assert found == pytest.approx({"mrr": (1 + 1 / 4 + 1 / 20) / 3, "recall_at_1": 1 / 3, "recall_at_10": 2 / 3})
    for name, value in found.items():
        assert SUMMED[name].value(SUMMED[name].features(labels, ranks).sum(0)) == pytest.approx(value)


def test_perfect_pairs_are_retrieved_first_and_similar():
    unit = np.eye(6)
    logits, labels = np.concatenate([unit, unit], axis=1), np.ones(6, np.float32)
    assert compute(list(RETRIEVAL.metrics), labels, logits, RETRIEVAL) == dict.fromkeys(RETRIEVAL.metrics, 1.0)
    turned = np.concatenate([unit, np.roll(unit, 1, 0)], axis=1)
    assert compute(["recall_at_1"], labels, turned, RETRIEVAL) == {"recall_at_1": 0.0}


def test_agreement_is_the_mean_cosine_or_for_other_widths_the_correlation_of_similarities():
    teacher = FLAT.normal(size=(9, 8))
    student = teacher + FLAT.normal(size=teacher.shape)
    cosines = F.cosine_similarity(torch.from_numpy(student), torch.from_numpy(teacher))
    assert agreement(student, teacher, SENTENCE_EMBEDDING) == pytest.approx(float(cosines.mean()))
    wider = np.concatenate([student[:, :4], np.zeros((9, 2)), student[:, 4:], np.zeros((9, 2))], axis=1)
    assert agreement(wider, student, SENTENCE_EMBEDDING) == pytest.approx(1.0)


def test_pairs_are_read_one_text_at_a_time_and_put_together_again():
    split = Split("test", ["a", "b"], ["c", "d"], np.array([1, 2.0]), [("f", 1), ("f", 2)])
    assert units_of(split, SENTENCE_EMBEDDING).texts == ["a", "c", "b", "d"]
    assert units_of(split, CLASSIFICATION) is split
    outputs = np.arange(8).reshape(4, 2)
    np.testing.assert_array_equal(outputs_of_rows(split, outputs), [[0, 1, 2, 3], [4, 5, 6, 7]])


def pooled(name: str, states: np.ndarray) -> np.ndarray:
    """The pooling of one text, from its real tokens [L, d]."""
    match name:
        case "cls":
            return states[0]
        case "lasttoken":
            return states[-1]
        case "max":
            return states.max(0)
        case "mean":
            return states.mean(0)
        case "mean_sqrt_len_tokens":
            return states.sum(0) / len(states) ** 0.5
    weights = np.arange(1, len(states) + 1)
    return weights @ states / weights.sum()


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("name", POOL)
def test_poolings_read_real_tokens_alone(name, left):
    states, lengths = FLAT.normal(size=(3, 6, 4)).astype(np.float32), (6, 4, 1)
    masks = [[0] * (6 - n) + [1] * n if left else [1] * n + [0] * (6 - n) for n in lengths]
    found = POOL[name](torch.from_numpy(states), torch.tensor(masks)).numpy()
    for i, mask in enumerate(masks):
        np.testing.assert_allclose(found[i], pooled(name, states[i, np.array(mask) == 1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "poolings"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"word_embedding_dimension": 8}, ("mean",)),
        ({"embedding_dimension": 8, "pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
    ],
)
def test_poolings_of_old_and_new_configs(config, poolings):
    assert poolings_of(config) == poolings


def changed(path: Path, file: str, content: object) -> Path:
    (path / file).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "its pooling is attention"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is set"),
        ("modules.json", [{"type": "x.models.WordEmbeddings", "path": ""}], "starts with a WordEmbeddings"),
        ("modules.json", [{"type": "x.Transformer", "path": "0_Transformer"}], "in the directory itself"),
        ("modules.json", [{"type": "x.Transformer", "path": ""}], "do not start with a single Pooling"),
        ("modules.json", [{"type": "x.Transformer", "path": "../.."}], "outside of the model"),
        ("modules.json", {"type": "x.Transformer"}, "not a list of modules"),
    ],
)
def test_other_modules_are_refused_in_words(tmp_path, file, content, message):
    path = changed(save_sentence_encoder(tmp_path, num_layers=1), file, content)
    with pytest.raises(ModelError, match=message):
        read_modules(path)


def test_an_unknown_module_is_refused_with_the_known_ones(tmp_path):
    path = save_sentence_encoder(tmp_path, num_layers=1)
    modules = json.loads((path / "modules.json").read_text())
    changed(path, "modules.json", [*modules, {"type": "x.models.LSTM", "path": "3_LSTM"}])
    with pytest.raises(ModelError, match=r"it has a module LSTM; demiglace reads .* Pooling"):
        load_classifier(path, None)


def test_the_modules_count_for_the_identity_of_a_model(tmp_path):
    path = save_sentence_encoder(tmp_path, num_layers=1)
    before = fingerprint_model(path)
    assert fingerprint_model(changed(path, "1_Pooling/config.json", {"pooling_mode": "cls"})) != before
