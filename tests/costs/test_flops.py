"""FLOPs and memory computed from a shape, against those measured on a model."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from demiglace.costs.flops import activation_bytes, forward_passes, padded_flops, padded_tokens, training_memory
from demiglace.models.precision import autocast
from demiglace.models.shape import ModelShape, forward_flops
from factories import tiny_model

CPU = torch.device("cpu")


def kept_bytes(model, rows, tokens, precision):
    """Bytes that autograd keeps of a forward pass, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory.nbytes()
        return tensor

    ids = torch.full((rows, tokens), 10)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(precision, CPU):
        output = model.train()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert output.requires_grad  # and so alive, with all that it keeps
    return sum(kept.values())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "tokens"), [(16, 16), (4, 64)])
def test_activations_are_those_that_autograd_keeps(attention, precision, rows, tokens):
    config = BertConfig(
        vocab_size=100,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    expected = activation_bytes(ModelShape.of(model), rows, tokens, precision, attention)
    assert expected == pytest.approx(kept_bytes(model, rows, tokens, precision), rel=0.1)


def test_rows_are_counted_as_long_as_the_longest_beside_them():
    shape, lengths = ModelShape.of(tiny_model("bert")), np.array([3, 5, 4])
    passes = forward_passes(lengths, [np.array([0, 1]), np.array([2])])
    assert padded_tokens(passes) == 2 * 5 + 4
    assert padded_flops(shape, passes) == 2 * forward_flops(shape, 5) + forward_flops(shape, 4)


def test_a_teacher_is_held_beside_the_student_or_before_it():
    student, teacher = (ModelShape.of(tiny_model("bert", layers)) for layers in (2, 4))
    online = training_memory(student, 1000, teacher, cached=False)
    own, other = 4 * student.parameters, 4 * teacher.parameters
    assert online.total == 4 * own + 1000 + other
    cached = training_memory(student, 1000, teacher, cached=True)
    assert (cached.total, cached.capture) == (4 * own + 1000, own + other)
    giant = ModelShape.of(tiny_model("bert", 24))
    assert training_memory(student, 1000, giant, cached=True).total == own + 4 * giant.parameters
    assert training_memory(student, 0, None, cached=False).total == 4 * own
