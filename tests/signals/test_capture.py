"""Captured signals: equal to the outputs of transformers, for all tested architectures."""

import numpy as np
import pytest
import torch

from demiglace.data.batching import Batch, collate
from demiglace.models.layer_stack import layer_stack
from demiglace.models.pooling import pool
from demiglace.signals.capture import capture
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, hidden_request
from factories import ARCHITECTURES, tiny_model
from training_kit import random_examples

EVERYTHING = SignalRequest(logits=True) | hidden_request("mean", range(5)) | hidden_request("last", [4])


def batch_for(arch: str) -> Batch:
    batch = collate(random_examples(6), np.arange(6))
    keep = arch in ("bert", "electra", "deberta-v2")
    return batch if keep else Batch(**{**vars(batch), "token_type_ids": None})


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_transformers_outputs(arch: str) -> None:
    model, batch = tiny_model(arch, num_layers=4), batch_for(arch)
    with torch.no_grad():
        found = capture(model, batch, EVERYTHING)
        expected = model(**batch.inputs, output_hidden_states=True)
    torch.testing.assert_close(found.logits, expected.logits)
    for layer in range(4):  # transformers' last hidden state has the final norm of decoders in it; ours has not
        mean = pool(expected.hidden_states[layer], batch.attention_mask, "mean")
        torch.testing.assert_close(found.states["mean", layer], mean)
    assert found.states["last", 4].shape == (6, 32)
    assert found.hidden("mean", [3, 1]).shape == (6, 2, 32)
    torch.testing.assert_close(found.hidden("mean", [3, 1])[:, 1], found.states["mean", 1])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradients_flow_and_hooks_are_removed(arch: str) -> None:
    model, batch = tiny_model(arch, num_layers=4), batch_for(arch)
    found = capture(model, batch, hidden_request("mean", [2]))
    assert found.logits is None
    found.states["mean", 2].sum().backward()
    stack = layer_stack(model)
    assert any(p.grad is not None for p in stack[1].parameters())
    assert all(p.grad is None for p in stack[2].parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in stack)


def test_hooks_are_removed_if_the_forward_pass_fails() -> None:
    model, batch = tiny_model("bert"), batch_for("bert")
    broken = Batch(**{**vars(batch), "input_ids": batch.input_ids + 10_000})
    with pytest.raises(IndexError):
        capture(model, broken, EVERYTHING)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in layer_stack(model))


def test_online_teacher_is_frozen_and_in_eval_mode() -> None:
    model = tiny_model("bert").train()
    signals = OnlineTeacher(model, EVERYTHING, "fp32").fetch(batch_for("bert"))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert signals.logits is not None
    assert not signals.logits.requires_grad
