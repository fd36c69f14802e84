"""Total loss of the attention methods on one batch: equal to NumPy float64 written from the equations."""

import numpy as np
import pytest
from reference_kit import HEADS, SECOND, Facts, Model, kl, softmax


def products(one: np.ndarray, other: np.ndarray, heads: int) -> np.ndarray:
    """Return the scaled products of each head: [L, d] and [L, d] to [heads, L, L]."""
    size = one.shape[-1] // heads
    cuts = [slice(h * size, (h + 1) * size) for h in range(heads)]
    return np.stack([one[:, c] @ other[:, c].T / np.sqrt(size) for c in cuts])


def relation(facts: Facts, model: Model, kinds: tuple[str, str], layer: int, heads: int = HEADS) -> list[np.ndarray]:
    """Return the relation of each row over its real tokens, [heads, length, length]."""
    one, other = (model.input(kind, layer) for kind in kinds)
    real = facts.mask.astype(bool)
    return [products(x[keep], y[keep], heads) for x, y, keep in zip(one, other, real, strict=True)]


def squared(facts: Facts, kinds: tuple[str, str], own: int, other: int) -> float:
    pairs = zip(relation(facts, facts.student, kinds, own), relation(facts, facts.teacher, kinds, other), strict=True)
    return float(np.mean([((s - t) ** 2).mean() for s, t in pairs]))


def divergence(facts: Facts, kinds: tuple[str, str], own: int, other: int, heads: int = HEADS) -> float:
    ours, theirs = (relation(facts, m, kinds, i, heads) for m, i in ((facts.student, own), (facts.teacher, other)))
    return float(np.mean([kl(softmax(t), softmax(s)).mean() for s, t in zip(ours, theirs, strict=True)]))


def test_tinybert() -> None:
    weights = {"attention_weight": 0.5, "hidden_weight": 2.0, "embedding_weight": 3.0}
    facts = Facts("tinybert", weights)
    attention = sum(squared(facts, ("query", "key"), i, 2 * i) for i in (1, 2, 3))
    (w_h,), (w_e,) = facts.weights("student"), facts.weights("student", "layers2")

    def states(own: int, other: int, w: np.ndarray) -> float:
        return facts.over_tokens(((facts.h_s[own] @ w - facts.h_t[other]) ** 2).mean(-1))

    hidden = sum(states(i, 2 * i, w_h) for i in (1, 2, 3))
    assert facts.found == pytest.approx(0.5 * attention + 2 * hidden + 3 * states(0, 0, w_e), rel=1e-4)


def test_tinybert_on_attention_probabilities() -> None:
    nothing = {"hidden_weight": 0.0, "embedding_weight": 0.0}
    facts = Facts("tinybert", nothing | {"attention_on": "kl"})
    expected = sum(divergence(facts, ("query", "key"), i, 2 * i) for i in (1, 2, 3))
    assert facts.found == pytest.approx(expected, rel=1e-4)
    facts = Facts("tinybert", nothing | {"attention_on": "probabilities"})
    total = 0.0
    for i in (1, 2, 3):
        ours, theirs = (
            relation(facts, m, ("query", "key"), k) for m, k in ((facts.student, i), (facts.teacher, 2 * i))
        )
        total += np.mean([((softmax(s) - softmax(t)) ** 2).mean() for s, t in zip(ours, theirs, strict=True)])
    assert facts.found == pytest.approx(total, rel=1e-4)


def test_tinybert_predicts_in_its_second_phase() -> None:
    facts = Facts("tinybert", {}, SECOND)
    assert facts.found == pytest.approx(facts.kd(1.0), rel=1e-4)
    facts = Facts("tinybert", {"task_weight": 0.3, "temperature": 2.0}, SECOND)
    assert facts.found == pytest.approx(facts.kd(2.0) + 0.3 * facts.ce(), rel=1e-4)


def test_minilm() -> None:
    facts = Facts("minilm", {"attention_weight": 0.5, "value_weight": 2.0})
    attention, values = (divergence(facts, kinds, 3, 6) for kinds in (("query", "key"), ("value", "value")))
    assert facts.found == pytest.approx(0.5 * attention + 2 * values, rel=1e-4)
    second = Facts("minilm", {}, SECOND)
    assert second.found == pytest.approx(second.ce(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "layer", "heads"), [({}, 6, 4), ({"relation_heads": 16, "teacher_layer": 5}, 5, 16)]
)
def test_minilmv2(options: dict, layer: int, heads: int) -> None:
    facts = Facts("minilmv2", options)
    expected = sum(divergence(facts, (kind, kind), 3, layer, heads) for kind in ("query", "key", "value"))
    assert facts.found == pytest.approx(expected, rel=1e-4)
    second = Facts("minilmv2", options, SECOND)
    assert second.found == pytest.approx(second.ce(), rel=1e-5)
