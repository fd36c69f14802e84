"""Compare batches of similar length with padding to a fixed 128 on SST-2: the same rows, model and number of steps.

python benchmarks/padding.py [--rows 1024] [--rounds 5]
"""

import argparse
import time
from dataclasses import replace

import kit
import numpy as np
import torch

from demiglace.data.batching import Batch, collate, epoch_steps
from demiglace.data.tokenize import TokenizedSplit
from demiglace.models.precision import autocast

WIDTH = 128


def padded(batch: Batch) -> Batch:
    """Return the same rows, padded to WIDTH."""
    extra = WIDTH - batch.input_ids.shape[1]

    def widen(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else torch.nn.functional.pad(tensor, (0, extra))

    return replace(
        batch,
        input_ids=widen(batch.input_ids),
        attention_mask=widen(batch.attention_mask),
        token_type_ids=widen(batch.token_type_ids),
    )


def epoch(batches: list[Batch], labels: tuple) -> float:
    """Train one epoch on these batches; return the seconds."""
    student = kit.student(labels).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-4, fused=True)
    start = time.perf_counter()
    for batch in batches:
        with autocast(kit.PRECISION, kit.CPU):
            logits = student(**batch.inputs).logits
        torch.nn.functional.cross_entropy(logits.float(), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def useful(examples: TokenizedSplit, batches: list[Batch]) -> float:
    """Return the share of computed tokens that are not padding."""
    return float(examples.lengths.sum() / sum(b.input_ids.numel() for b in batches))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    examples, labels = kit.examples(args.task, args.rows)
    random = np.array_split(np.random.default_rng(0).permutation(len(examples)), len(examples) // 32)
    variants = {
        "bucketed": [collate(examples, rows) for rows in epoch_steps(examples.lengths, 32, 0, 0)],
        "random order, padded to the longest": [collate(examples, rows) for rows in random],
        "random order, padded to 128": [padded(collate(examples, rows)) for rows in random],
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(args.rounds + 1):
        for name, batches in variants.items():
            times[name].append(epoch(batches, labels))
    times = {k: v[1:] for k, v in times.items()}  # the first round warms up
    fixed = times["random order, padded to 128"]
    results = {
        name: {
            "rows_per_second": kit.spread([len(examples) / t for t in values]),
            "speed over padding to 128": kit.spread([f / t for f, t in zip(fixed, values, strict=True)]),
            "useful tokens": round(useful(examples, variants[name]), 3),
        }
        for name, values in times.items()
    }
    kit.write("padding", vars(args), results)


if __name__ == "__main__":
    main()
