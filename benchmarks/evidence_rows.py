"""Write the row files of experiment E1 (docs/results/protocol.md): labelled pool, texts without labels, test rows.

    python benchmarks/evidence_rows.py runs/evidence/rows

Each task gets train.csv, texts.csv (8,000 training rows without labels) and test.csv. The test rows are 5,000 training
rows of SST-2, which are in no other file, the validation rows of QQP, and the test rows of Banking77.
"""

import argparse
import csv
from collections.abc import Hashable
from pathlib import Path

import numpy as np

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.checks import row_keys
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.schema import Split

TASKS = {"sst2": "validation", "qqp": "validation", "banking77": "test"}
TEXTS = 8000
HELD_OUT = {"sst2": 5000}  # its 872 validation rows are too few to detect half a point
SEED = 2026


def rows_of(split: Split, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the texts of each row, and its label's name last."""
    pairs = split.pairs or [""] * len(split)
    columns = zip(split.texts, pairs, split.labels.tolist(), strict=True)
    return [(*((text, pair) if split.pairs else (text,)), names[label]) for text, pair, label in columns]


def keys(rows: list[tuple[str, ...]]) -> list[Hashable]:
    """Return the key of each row, which is equal for equal texts, by the package's rule."""
    pairs = [row[1] for row in rows] if len(rows[0]) == 3 else None
    return list(row_keys([row[0] for row in rows], pairs))


def write(file: Path, rows: list[tuple[str, ...]], labelled: bool = True) -> None:
    texts = len(rows[0]) - 1
    header = ("text",) if texts == 1 else ("text1", "text2")
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow((*header, "label") if labelled else header)
        writer.writerows(rows if labelled else [row[:texts] for row in rows])


def prepare(task: str, directory: Path) -> None:
    """Write the three files of a task."""
    dataset = load_dataset(DataConfig(data=task), DataLocation())
    names = dataset.labels.names
    train = rows_of(dataset.splits["train"], names)
    test = rows_of(dataset.splits[TASKS[task]], names)
    generator = np.random.default_rng(SEED)
    if task in HELD_OUT:
        order = generator.permutation(len(train))
        test, train = ([train[i] for i in part] for part in np.split(order, [HELD_OUT[task]]))
    tested = set(keys(test))
    train = [row for row, key in zip(train, keys(train), strict=True) if key not in tested]
    chosen = generator.choice(len(train), min(TEXTS, len(train)), replace=False)
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "train.csv", train)
    write(directory / "texts.csv", [train[i] for i in chosen], labelled=False)
    write(directory / "test.csv", test)
    print(f"{directory}: {len(train)} training rows, {len(chosen)} texts, {len(test)} test rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    for task in TASKS:
        prepare(task, directory / task)


if __name__ == "__main__":
    main()
