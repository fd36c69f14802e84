"""TextBrewer 0.2.1: PKD's layer matches with the logits, and its cache of logits in memory (which has no layers)."""

import tempfile
from typing import Any
from unittest import mock

import textbrewer
import torch
from entry import Entry
from loader import batches
from material import Material, Race
from meter import Meter


def train(material: Material, entry: Entry, meter: Meter) -> None:
    """Train with GeneralDistiller ("pkd") or BasicDistiller ("cached")."""
    race, examples = material.race, material.examples(entry.rows(material.race))
    teacher, student = material.teacher(), material.student()
    loader = batches(examples, race, entry)
    optimizer = torch.optim.AdamW(student.parameters(), lr=race.lr, fused=True)
    cached = entry.method == "cached"
    kind = textbrewer.BasicDistiller if cached else textbrewer.GeneralDistiller
    with tempfile.TemporaryDirectory() as directory:
        training = textbrewer.TrainingConfig(output_dir=directory, device="cpu")
        distiller = kind(training, _config(race, cached), teacher, student, _heard_teacher, _heard_student)
        meter.mark()
        with distiller, mock.patch.object(torch, "save", meter.timed_saving(torch.save)):
            distiller.train(
                optimizer,
                loader,
                num_epochs=race.epochs,
                max_grad_norm=race.clip,
                callback=lambda model, step: meter.mark(),
                output_hidden_states=not cached,
            )


def _config(race: Race, cached: bool) -> textbrewer.DistillationConfig:
    step = race.teacher_layers // race.student_layers
    pairs = [] if cached else [(i * step, i) for i in range(1, race.student_layers)]
    matches = [{"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "pkd", "weight": 0.1} for t, s in pairs]
    return textbrewer.DistillationConfig(
        temperature=race.temperature,
        hard_label_weight=0.5,
        kd_loss_weight=0.5,
        intermediate_matches=matches,
        is_caching_logits=cached,
    )


def _heard_teacher(batch: dict[str, Any], output: Any) -> dict[str, Any]:
    return {"logits": (output.logits,), "hidden": output.hidden_states or ()}


def _heard_student(batch: dict[str, Any], output: Any) -> dict[str, Any]:
    return _heard_teacher(batch, output) | {"losses": (output.loss,)}
