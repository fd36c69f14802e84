"""Compare poolings of hidden states by how well they distinguish rows: attention sinks, variance, agreement, by layer.

    python benchmarks/pooling.py NAME=MODEL... [--rows 1000] [--test-rows 300] [--blocks 32] [--tuned NAME=MODEL]

MODEL is a directory of an encoder or a decoder. The texts are rows of Banking77 and SST-2, and for decoders blocks of
256 tokens of WikiText-2. The student is every second layer of the model, untrained. Student layer i is compared with
the teacher layer of which it is a copy. --tuned adds a classifier: the lower half of a model's layers, fine-tuned for
one epoch on SST-2 without the test rows, and evaluated on SST-2. Results that are in the results file are not measured
again.

"Mean of unit states" equals the pooling normalized-mean up to a factor. For each layer and pooling, with pooled states
scaled to unit length as in RAIL-KD's loss:

- variance: Σ over dimensions of the variance over rows; 0: all rows have the same state; 1: the maximum.
- own_cosine, wrong_cosine: mean cosine of the student's state of a row with the teacher's state of the same row, and of
  another row. If both are near 1, the loss is near 0 for any row.
- centred_cosine: own_cosine after each model's mean over rows is subtracted.
- own_row: share of rows whose nearest teacher state, after centring, is that of the same row.
- probe: accuracy of a ridge classifier on the teacher's states, on held-out rows.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import kit
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.batching import collate, epoch_steps, sorted_batches
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.readers import read_table
from demiglace.data.rows.sources import data_folder
from demiglace.data.tokenize import TokenizedSplit, select, tokenize
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.models.pooling import norm_ratios, pool
from demiglace.models.precision import autocast
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import alternate, bottom, truncate_model
from demiglace.signals.capture import capture
from demiglace.signals.request import hidden_request
from demiglace.signals.sinks import SINK_RATIO
from demiglace.training.run import save_model

TASKS = ("banking77", "sst2")
LABELS = ("0", "1")  # of the new head, used only for fine-tuning
BLOCK = 256
RIDGE = 0.01  # times the features' mean variance
PASS_TOKENS = 1024


def without_sinks(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens whose norm is at most SINK_RATIO × the median of their row."""
    return pool(hidden, mask * (norm_ratios(hidden, mask) <= SINK_RATIO), "mean")


def without_first(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over all tokens but padding and the first."""
    return pool(hidden, mask * (mask.cumsum(1) > 1), "mean")


def of_unit_states(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens of their states, scaled to unit length."""
    return pool(F.normalize(hidden, dim=-1), mask, "mean")


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda hidden, mask: pool(hidden, mask, "mean"),
    "last": lambda hidden, mask: pool(hidden, mask, "last"),
    "first": lambda hidden, mask: pool(hidden, mask, "first"),
    "mean without sinks": without_sinks,
    "mean without the first token": without_first,
    "mean of unit states": of_unit_states,
}


class Tally:
    """Counts of sinks in one layer, and the pooled states of all rows."""

    def __init__(self, rows: int, width: int):
        self.states = {name: torch.empty(rows, width) for name in POOLINGS}
        self.sinks = {"first": 0, "last": 0, "between": 0}
        self.ratios = torch.empty(rows)
        self.rows_with_sinks = 0

    def add(self, rows: np.ndarray, hidden: Tensor, mask: Tensor) -> None:
        """Add a batch of right-padded rows."""
        ratios = norm_ratios(hidden, mask)
        is_sink = ratios > SINK_RATIO
        self.ratios[rows] = ratios.amax(1)
        self.rows_with_sinks += int(is_sink.any(1).sum())
        first, last = int(is_sink[:, 0].sum()), int(is_sink.gather(1, mask.sum(1, keepdim=True) - 1).sum())
        self.sinks["first"] += first
        self.sinks["last"] += last
        self.sinks["between"] += int(is_sink.sum()) - first - last
        for name, pooling in POOLINGS.items():
            self.states[name][rows] = pooling(hidden, mask)


def tallies(model: PreTrainedModel, examples: TokenizedSplit, layers: tuple[int, ...]) -> dict[int, Tally]:
    """Return layer -> sinks and pooled states over all rows."""
    found = {layer: Tally(len(examples), model.config.hidden_size) for layer in layers}
    for rows in sorted_batches(examples.lengths, PASS_TOKENS):
        batch = collate(examples, rows)
        with torch.no_grad():
            signals = capture(model, batch, hidden_request("tokens", layers))
        for layer, tally in found.items():
            tally.add(rows, signals.states["tokens", layer], batch.attention_mask)
    return found


def agreement(student: Tensor, teacher: Tensor) -> dict[str, float]:
    """Return measures of agreement between the pooled states [N, d] of student and teacher; see the module."""
    student_states, teacher_states = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    centred_student = F.normalize(student_states - student_states.mean(0), dim=-1)
    centred_teacher = F.normalize(teacher_states - teacher_states.mean(0), dim=-1)
    nearest = (centred_student @ centred_teacher.T).argmax(1)
    return {
        "variance": float(teacher_states.double().var(0, unbiased=False).sum()),
        "own_cosine": float((student_states * teacher_states).sum(-1).mean()),
        "wrong_cosine": float((student_states * teacher_states.roll(1, 0)).sum(-1).mean()),
        "centred_cosine": float((centred_student * centred_teacher).sum(-1).mean()),
        "own_row": float((nearest == torch.arange(len(student_states))).float().mean()),
    }


def probe(states: Tensor, labels: np.ndarray, test_rows: int) -> float:
    """Fit a ridge classifier to unit-length states; return its accuracy on the last `test_rows` rows, held out."""
    features = F.normalize(states.double(), dim=-1)
    fitted, rest = features[:-test_rows], features[-test_rows:]
    mean = fitted.mean(0)
    fitted, rest = fitted - mean, rest - mean
    targets = F.one_hot(torch.from_numpy(labels[:-test_rows])).double()
    gram = fitted.T @ fitted
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    maps = torch.linalg.solve(gram + ridge, fitted.T @ (targets - targets.mean(0)))
    predictions = (rest @ maps + targets.mean(0)).argmax(1).numpy()
    return float((predictions == labels[-test_rows:]).mean())


def task_examples(task: str, path: str, rows: int) -> TokenizedSplit:
    """Return rows of a task, drawn with seed 0; those of Banking77, whose file is ordered by label, in random order."""
    dataset = load_dataset(DataConfig(data=task, max_rows=rows), DataLocation())
    examples = tokenize(dataset.splits["train"], load_tokenizer(path), 128)
    return select(examples, np.random.default_rng(0).permutation(rows)) if task == "banking77" else examples


def block_examples(path: str, blocks: int) -> TokenizedSplit:
    """Return blocks of WikiText-2's test text."""
    folder = data_folder(DataLocation())
    assert folder is not None, "WikiText-2 is read from DEMIGLACE_DATA"
    text = "\n".join(read_table(folder / "wikitext2" / "test.jsonl.zst").columns["text"])
    ids = load_tokenizer(path)(text, return_attention_mask=False)["input_ids"][: blocks * BLOCK]
    offsets = np.arange(blocks + 1, dtype=np.int64) * BLOCK
    return TokenizedSplit(np.array(ids, dtype=np.int32), offsets, None, np.zeros(blocks, dtype=np.int64), 0, False)


def fine_tuned(path: str, examples: TokenizedSplit, output: str) -> None:
    """Write the lower half of a model's layers, fine-tuned for one epoch, to a directory."""
    model = load_classifier(path, LABELS, dropout=0.0, attention=kit.ATTENTION)
    model = truncate_model(model, bottom(model.config.num_hidden_layers, model.config.num_hidden_layers // 2))
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-5)
    steps = epoch_steps(examples.lengths, 16, 0, 0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(steps))
    for rows in steps:
        batch = collate(examples, rows)
        with autocast(kit.PRECISION, kit.CPU):
            logits = model(**batch.inputs).logits
        F.cross_entropy(logits.float(), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    save_model(model.eval(), load_tokenizer(path), Path(output))


def measured(path: str, examples: TokenizedSplit, test_rows: int | None) -> dict[str, object]:
    """Return all results of one model on one set of rows, by layer."""
    attention = {"attention": kit.ATTENTION, "dropout": 0.0}
    teacher = load_classifier(path, LABELS, **attention).eval()
    shape = ModelShape.of(teacher)
    keep = alternate(shape.num_layers, shape.num_layers // 2)
    student = truncate_model(load_classifier(path, LABELS, **attention), keep).eval()
    ends = sorted({max(1, round(share * len(keep))) for share in (0.25, 0.5, 0.75, 1.0)})
    pairs = {student_layer: keep[student_layer - 1] + 1 for student_layer in ends}
    start = time.process_time()
    of_teacher = tallies(teacher, examples, tuple(range(shape.num_layers + 1)))
    of_student = tallies(student, examples, tuple(pairs))
    layers = {}
    for student_layer, teacher_layer in pairs.items():
        by_pooling = {}
        for name in POOLINGS:
            states = of_teacher[teacher_layer].states[name]
            figures = agreement(of_student[student_layer].states[name], states)
            if test_rows is not None:
                figures["probe"] = probe(states, examples.labels, test_rows)
            by_pooling[name] = {key: float(f"{value:.4g}") for key, value in figures.items()}
        layers[f"student {student_layer}, teacher {teacher_layer}"] = by_pooling
    sinks = {
        layer: {"median_largest_ratio": round(float(t.ratios.median()), 1), "rows": t.rows_with_sinks, "sinks": t.sinks}
        for layer, t in of_teacher.items()
    }
    return {
        "rows": len(examples),
        "tokens": int(examples.lengths.sum()),
        "sinks": sinks,
        "layers": layers,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def is_causal(path: str) -> bool:
    """Return whether a model is a decoder."""
    return ModelShape.of(load_classifier(path, LABELS)).causal


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", help="NAME=DIRECTORY")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--test-rows", type=int, default=300)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--tuned", help="NAME=DIRECTORY")
    parser.add_argument("--name", default="pooling")
    args = parser.parse_args()
    config = {"rows": args.rows, "test_rows": args.test_rows, "blocks": args.blocks, "block": BLOCK, "sink": SINK_RATIO}
    file = kit.RESULTS / f"{args.name}.json"
    results: dict[str, dict[str, object]] = json.loads(file.read_text())["results"] if file.exists() else {}

    def measure(
        name: str, texts: str, path: str, examples: Callable[[], TokenizedSplit], test_rows: int | None
    ) -> None:
        if texts not in results.setdefault(name, {}):
            results[name][texts] = measured(path, examples(), test_rows)
            kit.write(args.name, config, results)

    for given in args.models:
        name, path = given.split("=", 1)
        for task in TASKS:
            measure(name, task, path, partial(task_examples, task, path, args.rows), args.test_rows)
        if is_causal(path):
            measure(name, "wikitext2 blocks", path, partial(block_examples, path, args.blocks), None)
    if args.tuned:
        name, path = args.tuned.split("=", 1)
        with tempfile.TemporaryDirectory() as folder:
            tuned = f"{folder}/model"

            def examples() -> TokenizedSplit:
                rows = task_examples("sst2", path, args.rows)
                fine_tuned(path, select(rows, np.arange(len(rows) - args.test_rows)), tuned)
                return rows

            measure(name, "sst2", tuned, examples, args.test_rows)


if __name__ == "__main__":
    main()
