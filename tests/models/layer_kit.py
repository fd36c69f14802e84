"""Random batches, and language models with different layers."""

import torch
from transformers import AutoModelForCausalLM

from demiglace.models.layer_stack import layer_stack
from factories import tiny_config


def batch_of(rows, length, seed, left=False):
    """Return random tokens; every second row has two padding tokens."""
    ids = torch.randint(5, 60, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1::2, slice(0, 2) if left else slice(-2, None)] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


BATCHES = [batch_of(4, 9, 0), batch_of(3, 6, 1)]


def language_model(arch, seed=0, layers=4):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(arch, layers)).eval()
    with torch.no_grad():  # so that layers differ in what they do
        for i, layer in enumerate(layer_stack(model)):
            for p in layer.parameters():
                if p.dim() > 1:
                    p.mul_(0.2 + (3 * i % 4))
    return model
