"""Run one measurement of `language.py` and print it as JSON on the last line.

python language_measure.py WHAT SHAPE NUMBER CORE      SHAPE in JSON; NUMBER of steps or rounds
"""

import gc
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from language_sides import CLIP, LR, SIDES, Case
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.data.batching import Batch
from demiglace.methods.registry import build_method
from demiglace.models.shape import ModelShape
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.training import loop
from demiglace.training.loop import ModelSelection
from demiglace.training.objective import Objective

_CONFIG = TrainConfig(
    epochs=1,
    learning_rate=LR,
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=CLIP,
    checkpoint_seconds=1e9,
    diagnostics="off",
)


class Stepper:
    """The student, loss and optimizer of one side."""

    def __init__(self, name: str, case: Case, teacher: PreTrainedModel):
        self.student = case.student(teacher)
        self._loss = SIDES[name](teacher, self.student)
        self._optimizer = torch.optim.AdamW(self.student.parameters(), lr=LR, fused=True)

    def gradients(self, batch: Batch) -> Tensor:
        """Compute the loss and the gradients; return the loss."""
        loss = self._loss(batch)
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad()


def pair(case: Case, steps: int) -> dict[str, Any]:
    """Alternate steps of plain and ours after one step each; return CPU-seconds and the agreement of the first step."""
    teacher = case.teacher()
    sides = {name: Stepper(name, case, teacher) for name in ("plain", "ours")}
    batches = case.batches()
    found = {"agreement": _agreement(*sides.values(), next(batches)), "plain": [], "ours": []}
    for side in sides.values():
        side.update()
    for i, batch in enumerate(islice(batches, steps)):
        for name in list(sides)[:: 1 if i % 2 else -1]:
            begun = time.process_time()
            sides[name].gradients(batch)
            sides[name].update()
            found[name].append(time.process_time() - begun)
    return found


def _agreement(first: Stepper, second: Stepper, batch: Batch) -> dict[str, float]:
    """Return both losses, and the maximum of ‖g − g'‖ / ‖g‖ over the parameters."""
    losses = [float(side.gradients(batch)) for side in (first, second)]
    pairs = zip(first.student.parameters(), second.student.parameters(), strict=True)
    apart = [float((a.grad - b.grad).norm() / a.grad.norm()) for a, b in pairs]
    return {"plain loss": losses[0], "our loss": losses[1], "largest relative difference of a gradient": max(apart)}


def alone(case: Case, name: str, steps: int) -> dict[str, Any]:
    """Run one side; return peak memory above resting memory in MiB, and CPU-seconds of all steps but the first."""
    if name == "TRL GKD":
        from language_trl import gkd

        run = gkd(case, steps + 1)
    else:
        run = partial(_stepping, Stepper(name, case, case.teacher()), case, steps + 1)
    gc.collect()
    rest = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    seconds = run()
    return {"resting MiB": rest, "peak MiB": _resident("VmHWM") - rest, "seconds": seconds[1:]}


def _stepping(side: Stepper, case: Case, steps: int) -> list[float]:
    seconds = []
    begun = time.process_time()
    for batch in islice(case.batches(), steps):
        side.gradients(batch)
        side.update()
        seconds.append(time.process_time() - begun)
        begun = time.process_time()
    return seconds


def _resident(field: str) -> float:
    """Return a field of /proc/self/status in MiB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def training(case: Case, rounds: int) -> dict[str, Any]:
    """Alternate epochs of our loop and a bare one after one each; return CPU-seconds and mean losses."""
    found: dict[str, Any] = {"ours": [], "bare": [], "losses": {}}
    for i in range(rounds + 1):
        for name in ("ours", "bare")[:: 1 if i % 2 else -1]:
            student = case.student(case.teacher())
            begun = time.process_time()
            found["losses"][name] = looped(case, student) if name == "ours" else bare(case, student)
            found[name] += [time.process_time() - begun] if i else []
    return found


def looped(case: Case, student: PreTrainedModel) -> float:
    """Run an epoch of our loop and return its mean loss, without checkpoints and diagnostics.

    Both happen every so many seconds or steps, so a short epoch would pay for hundreds of steps.
    """
    config = replace(_CONFIG, batch_size=case.rows, batch_tokens=case.tokens, seed=case.seed, log_steps=case.steps)
    objective = Objective(student, build_method("none", {}), ModelShape.of(student), LANGUAGE_MODELLING, "fp32")
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(loop, "save_checkpoint"):
        run = loop.Loop(
            objective,
            case.blocks,
            None,
            ModelSelection(),
            config,
            Path(directory),
            Accelerator(cpu=True),
            case.blocks.lines,
        )
        run.run()
        lines = (Path(directory) / "log.jsonl").read_text().splitlines()
    return next(record["loss"] for record in map(json.loads, lines) if record["kind"] == "step")


def bare(case: Case, student: PreTrainedModel) -> float:
    """Run an epoch of a hand-written loop and return its mean loss."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=0.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (case.steps - step) / case.steps)
    losses = []
    for batch in islice(case.batches(), case.steps):
        logits = student(input_ids=batch.input_ids).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def main() -> None:
    what, case, number, core = sys.argv[1], Case(**json.loads(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    kinds = {"pair": pair, "training": training}
    print(json.dumps(kinds[what](case, number) if what in kinds else alone(case, what, number)))


if __name__ == "__main__":
    main()
