"""torchdistill 1.1.5: its distillation box with KDLoss, given the labels that its own GLUE script leaves out."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from entry import Entry
from loader import collate_rows
from material import Material, Race
from meter import Meter
from torch import Tensor, nn
from torch.utils.data import RandomSampler


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Stand-ins for the image models that torchdistill imports; gone afterwards, or transformers would find them."""
    names = {
        "models": (),
        "models.densenet": ("_DenseBlock", "_Transition"),
        "models.resnet": ("BasicBlock", "conv1x1"),
    }
    stubs = {"torchvision": types.ModuleType("torchvision"), "torchvision.datasets": types.ModuleType("datasets")}
    for name, parts in names.items():
        stubs[f"torchvision.{name}"] = types.ModuleType(name)
        for part in parts:
            setattr(stubs[f"torchvision.{name}"], part, type(part, (nn.Module,), {}))
    stubs["torchvision"].models = stubs["torchvision.models"]
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


with _without_torchvision():
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.datasets.registry import register_collate_func
    from torchdistill.losses import mid_level  # noqa: F401  (its import enters KDLoss in a registry)


def train(material: Material, entry: Entry, meter: Meter) -> None:
    """Train with KDLoss: the labels' loss and τ²·KL."""
    race, examples = material.race, material.examples(entry.rows(material.race))
    teacher, student = material.teacher(), material.student()
    collate = collate_rows(examples, entry.padding)

    def pairs(rows: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        batch = collate(rows)
        return batch, batch.pop("labels")

    register_collate_func(pairs, key="pairs")
    rows = {"rows": np.arange(len(examples))}
    torch.manual_seed(race.seed)  # the order of the rows
    box = get_distillation_box(teacher, student, rows, _config(race), torch.device("cpu"), None, False, 1)
    box.teacher_model.eval()
    meter.mark()
    for epoch in range(race.epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch, labels in box.train_data_loader:
            box.post_forward_process(box.forward_process(batch, targets=labels))
        meter.mark()


def _config(race: Race) -> dict[str, Any]:
    signals = {"forward_proc": "forward_batch_only_as_kwargs", "forward_hook": {"input": [], "output": ["classifier"]}}
    logits = {f"{who}_module_{what}" for who in ("student", "teacher") for what in ("path", "io")}
    where = {name: "classifier" if name.endswith("path") else "output" for name in logits}
    loss = {"key": "KDLoss", "kwargs": where | {"temperature": race.temperature, "alpha": 0.5}}
    return {
        "num_epochs": race.epochs,
        "train_data_loader": {
            "dataset_id": "rows",
            "requires_supp": False,
            "sampler": {"class_or_func": RandomSampler},
            "collate_fn": "pairs",
            "kwargs": {"batch_size": race.batch_size},
        },
        "teacher": signals | {"requires_grad": False},
        "student": dict(signals),
        "optimizer": {"key": "AdamW", "kwargs": {"lr": race.lr, "fused": True}, "max_grad_norm": race.clip},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }
