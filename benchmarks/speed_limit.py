"""Compare the speed of the training loop with its limit.

(a) Plain fine-tuning of the student with our loop, (b) a bare PyTorch loop over the same batches, (c) RAIL-KD_l from
the signal cache, (d) RAIL-KD_l with the teacher online.

    python benchmarks/speed_limit.py [--rows 2048] [--rounds 7]

Each round runs one epoch of each. Ratios are taken within a round, and their median is reported.
"""

import argparse
import tempfile
import time
from pathlib import Path

import kit
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.data.batching import collate, epoch_steps
from demiglace.data.tokenize import TokenizedSplit
from demiglace.methods.registry import build_method
from demiglace.models.precision import autocast
from demiglace.models.shape import ModelShape
from demiglace.signals.hidden_state_cache import CacheKey, SignalCache, fill_cache
from demiglace.signals.online import OnlineTeacher, SignalSource
from demiglace.signals.shard_store import prepare_cache
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.training.loop import Loop, ModelSelection
from demiglace.training.objective import Objective

CONFIG = TrainConfig(epochs=1, batch_size=32, learning_rate=2e-4, checkpoint_seconds=1e9)


def ours(method: str, examples: TokenizedSplit, labels: tuple, source: SignalSource | None, shape: ModelShape) -> float:
    """Train one epoch with our loop; return the seconds."""
    objective = Objective(kit.student(labels), build_method(method, {}), shape, CLASSIFICATION, kit.PRECISION)
    with tempfile.TemporaryDirectory() as directory:
        accelerator = Accelerator(cpu=True)
        lines = [("rows", i) for i in range(len(examples))]
        loop = Loop(objective, examples, source, ModelSelection(), CONFIG, Path(directory), accelerator, lines)
        return loop.run().seconds


def bare(examples: TokenizedSplit, student: PreTrainedModel) -> float:
    """Train one epoch with a hand-written loop on prepared tensors; return the seconds."""
    steps = epoch_steps(examples.lengths, CONFIG.batch_size, CONFIG.seed, 0)
    batches = [collate(examples, rows) for rows in steps]
    optimizer = torch.optim.AdamW(student.parameters(), lr=CONFIG.learning_rate, fused=True)
    student.train()
    start = time.perf_counter()
    for batch in batches:
        with autocast(kit.PRECISION, kit.CPU):
            logits = student(**batch.inputs).logits
        torch.nn.functional.cross_entropy(logits.float(), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), CONFIG.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="banking77")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    examples, labels = kit.examples(args.task, args.rows)
    teacher = kit.teacher(labels)
    shape = ModelShape.of(teacher)
    method = build_method("rail-kd-l", {})
    request = method.requests(ModelShape.of(kit.student(labels)), shape).teacher
    online = OnlineTeacher(teacher, request, kit.PRECISION)
    times: dict[str, list[float]] = {"a": [], "b": [], "c": [], "d": []}
    with tempfile.TemporaryDirectory() as directory:
        key = CacheKey.of("benchmark", shape, examples, request, "float16", kit.PRECISION)
        prepare_cache(Path(directory) / "cache", key)
        start = time.perf_counter()
        fill_cache(Path(directory) / "cache", key, teacher, examples)
        capture = time.perf_counter() - start
        cache = SignalCache(Path(directory) / "cache", key)
        for _ in range(args.rounds + 1):
            times["a"].append(ours("none", examples, labels, None, shape))
            times["b"].append(bare(examples, kit.student(labels)))
            times["c"].append(ours("rail-kd-l", examples, labels, cache, shape))
            times["d"].append(ours("rail-kd-l", examples, labels, online, shape))
    times = {k: v[1:] for k, v in times.items()}  # the first round warms up
    speed = {k: kit.spread([len(examples) / t for t in v]) for k, v in times.items()}

    def ratio(first: str, second: str) -> dict[str, float]:
        return kit.spread([s / f for f, s in zip(times[first], times[second], strict=True)])

    results = {
        "rows_per_second": {
            "a: our loop, no teacher": speed["a"],
            "b: bare PyTorch loop": speed["b"],
            "c: rail-kd-l, cached": speed["c"],
            "d: rail-kd-l, online": speed["d"],
        },
        "ratios of speed": {"a/b": ratio("a", "b"), "c/a": ratio("c", "a"), "c/d": ratio("c", "d")},
        "capture_rows_per_second": round(len(examples) / capture, 1),
    }
    kit.write("speed_limit", vars(args) | {"tokens": int(examples.lengths.sum())}, results)


if __name__ == "__main__":
    main()
