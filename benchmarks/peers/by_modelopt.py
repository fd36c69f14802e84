"""NVIDIA Model-Optimizer 0.47: its distillation model and balancer of losses, in a loop as its documents show it."""

from typing import Any

import modelopt.torch.distill as mtd
import torch
from entry import Entry
from loader import batches
from material import Material
from meter import Meter
from torch import Tensor


class _Logits(mtd.LogitsDistillationLoss):
    """Its loss takes tensors; transformers' models return objects that hold them."""

    def forward(self, student: Any, teacher: Any) -> Tensor:
        return super().forward(student.logits, teacher.logits)


def train(material: Material, entry: Entry, meter: Meter) -> None:
    """Train on half the labels' loss and half the distillation of the logits."""
    race, examples = material.race, material.examples(entry.rows(material.race))
    config = {
        "teacher_model": material.teacher(),
        "criterion": _Logits(race.temperature, "batchmean"),
        "loss_balancer": mtd.StaticLossBalancer(0.5),
    }
    model = mtd.convert(material.student(), mode=[("kd_loss", config)])
    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=race.lr, fused=True)
    loader = batches(examples, race, entry)
    meter.mark()
    for _ in range(race.epochs):
        for batch in loader:
            model.compute_kd_loss(student_loss=model(**batch).loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), race.clip)
            optimizer.step()
            optimizer.zero_grad()
        meter.mark()
