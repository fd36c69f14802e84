"""Hand-written loops: teacher and student forward for every batch, and the student alone, which bounds everybody."""

import numpy as np
import torch
import torch.nn.functional as F
from entry import Entry
from loader import batches
from material import Material, model_inputs
from meter import Meter
from torch import Tensor

from demiglace.data.batching import epoch_steps
from demiglace.losses.divergences import forward_kl
from demiglace.models.precision import autocast


def train(material: Material, entry: Entry, meter: Meter) -> None:
    """ "kd": random batches; "kd-bucketed" and "student": batches of like length, the latter without a teacher."""
    race, examples = material.race, material.examples(entry.rows(material.race))
    teacher = None if entry.method == "student" else material.teacher()
    student = material.student()
    optimizer = torch.optim.AdamW(student.parameters(), lr=race.lr, fused=True)
    random = batches(examples, race, entry)
    meter.mark()
    for epoch in range(race.epochs):
        plan = epoch_steps(examples.lengths, race.batch_size, race.seed, epoch)
        like = (model_inputs(examples, rows, None) for rows in plan)
        for batch in random if entry.method == "kd" else like:
            with autocast(entry.precision, torch.device("cpu")):
                logits = student(**_text(batch)).logits.float()
                other = None if teacher is None else _ask(teacher, batch)
            loss = F.cross_entropy(logits, batch["labels"])
            if other is not None:
                loss = 0.5 * loss + 0.5 * forward_kl(logits, other, race.temperature).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), race.clip)
            optimizer.step()
            optimizer.zero_grad()
        assert np.isfinite(loss.item())
        meter.mark()


def _ask(teacher: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return teacher(**_text(batch)).logits.float()


def _text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}
