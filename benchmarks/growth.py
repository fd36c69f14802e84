"""Measure how time and cache size grow with rows, layers and width, and compare with the formulas of docs/scale.md.

    python benchmarks/growth.py [--most-rows 50000] [--steps 12]

A BERT with random weights is distilled into half of its layers (RAIL-KD_l, 32 rows per step) on rows of random tokens.
For each point, the complete capture is timed, and some steps of an epoch with signals from the cache. By the formulas,
both take FLOPs / speed. So the measured speed should not depend on the rows, and only a little on the model's shape.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch
from transformers import BertConfig, PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.costs.flops import BACKWARD, forward_passes, padded_flops
from demiglace.data.batching import collate, epoch_steps, sorted_batches
from demiglace.data.tokenize import TokenizedSplit
from demiglace.methods.base import TrainingProgress
from demiglace.methods.registry import build_method
from demiglace.models.from_config import random_model
from demiglace.models.precision import choose_attention, choose_precision
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_config
from demiglace.signals.hidden_state_cache import CacheKey, SignalCache, fill_cache
from demiglace.signals.shard_store import prepare_cache
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.training.objective import Objective
from demiglace.training.optimizer import make_optimizer

VOCABULARY, CLASSES, PASS_TOKENS = 8_000, 3, 2_048
METHOD = build_method("rail-kd-l", {})
POOLINGS = 1  # of the method: k in docs/scale.md


@dataclass(frozen=True)
class Point:
    rows: int
    layers: int
    width: int


def points(most_rows: int) -> Iterator[Point]:
    """Yield points in which rows, layers or width grow."""
    yield from (Point(rows, 6, 256) for rows in (1_000, 5_000, 20_000, 50_000) if rows <= most_rows)
    yield from (Point(min(512, most_rows), layers, 256) for layers in (6, 12, 24))
    yield from (Point(min(512, most_rows), 6, width) for width in (256, 512, 1024))


def random_rows(count: int) -> TokenizedSplit:
    """Return rows of random tokens with log-normal lengths, 20 on average."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(2.9, 0.45, count)).round().clip(4, 128).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, VOCABULARY, offsets[-1]).astype(np.int32)
    return TokenizedSplit(ids, offsets, None, generator.integers(0, CLASSES, count), pad_id=0, pad_left=False)


def models(point: Point, attention: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=point.width,
        num_hidden_layers=point.layers,
        num_attention_heads=point.width // 64,
        intermediate_size=4 * point.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=CLASSES,
    )
    half = truncate_config(config, tuple(range(0, point.layers, 2)))
    return random_model(config, kit.CPU, attention), random_model(half, kit.CPU, attention)


def train_seconds(objective: Objective, cache: SignalCache, examples: TokenizedSplit, steps: list[np.ndarray]) -> float:
    """Return the seconds of these steps without the first."""
    optimizer = make_optimizer(objective.train(), TrainConfig())
    begun = 0.0
    for i, rows in enumerate(steps):
        if i == 1:
            begun = time.perf_counter()
        batch = collate(examples, rows)
        count = float(len(rows))
        objective(batch, cache.fetch(batch), TrainingProgress(seed=0, epoch=0, step=i), count, count)[0].backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - begun


def measure(point: Point, steps: int) -> dict[str, Any]:
    """Return the row of the table for one point."""
    precision = choose_precision("auto", point.width, kit.CPU)
    attention = choose_attention("auto", precision, 0.0, kit.CPU)
    teacher, student = models(point, attention)
    shapes = ModelShape.of(student), ModelShape.of(teacher)
    examples = random_rows(point.rows)
    request = METHOD.requests(*shapes).teacher
    batches = epoch_steps(examples.lengths, 32, 0, 0)[: steps + 1]
    with tempfile.TemporaryDirectory() as directory:
        key = CacheKey.of("growth", shapes[1], examples, request, "float16", precision)
        prepare_cache(Path(directory) / "cache", key)
        begun = time.perf_counter()
        fill_cache(Path(directory) / "cache", key, teacher, examples)
        capture = time.perf_counter() - begun
        disk = sum(file.stat().st_size for file in Path(directory).rglob("*.npy"))
        objective = Objective(student, METHOD, shapes[1], CLASSIFICATION, precision)
        training = train_seconds(objective, SignalCache(Path(directory) / "cache", key), examples, batches)
    lengths = examples.lengths
    requested = padded_flops(shapes[1], forward_passes(lengths, sorted_batches(lengths, PASS_TOKENS)))
    trained = (1 + BACKWARD) * padded_flops(shapes[0], forward_passes(lengths, batches[1:]))
    rows = sum(map(len, batches[1:]))
    formula = (CLASSES + POOLINGS * (point.layers + 1) * point.width) * 2
    return {
        **vars(point),
        "precision": precision,
        "capture_ms_a_row": round(1000 * capture / point.rows, 3),
        "student_ms_a_row": round(1000 * training / rows, 3),
        "capture_gflops": round(requested / capture / 1e9, 1),
        "student_gflops": round(trained / training / 1e9, 1),
        "cache_bytes_a_row": round(disk / point.rows, 1),
        "cache_formula": formula,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most-rows", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    measure(Point(256, 6, 256), 2)  # warms up
    rows = [measure(point, args.steps) for point in points(args.most_rows)]
    kit.write("growth", vars(args), {"points": rows})


if __name__ == "__main__":
    main()
