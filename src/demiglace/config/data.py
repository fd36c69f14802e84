"""Options that say which rows are used, and how their columns are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demiglace.config.options import option


@dataclass(frozen=True)
class DataConfig:
    """Rows to train and evaluate on: a named task, or files of the user's own."""

    data: str = option(
        "a task of `demiglace tasks`, or a CSV, TSV, JSONL or Parquet file (.gz, .zst too) of training rows", ""
    )
    validation: str | None = option(
        "file of validation rows; without it a part of the training rows is split off", None
    )
    test: str | None = option("file of test rows", None)
    validation_fraction: float = option(
        "share of the training rows that is split off for validation", 0.1, above=0, below=1
    )
    text_columns: tuple[str, ...] | None = option(
        "the one or two text columns; found by usual names if not given", None
    )
    label_column: str | None = option("the label column; found by usual names if not given", None)
    problem: Literal["auto", "classification", "regression"] = option(
        "what the labels are; auto: regression for numbers with a fraction, else classes", "auto"
    )
    unlabelled: tuple[str, ...] | None = option("files of rows without labels, for the teacher's loss terms", None)
    on_bad_rows: Literal["error", "drop"] = option("what to do about rows that cannot be used", "error")
    tune: bool = option(
        "hold the validation rows out of the training rows even where there are others, which then stay unseen: for "
        "choosing options",
        False,
    )
    max_rows: int | None = option("use only this many training rows, drawn at random", None, at_least=1)
    data_seed: int | None = option(
        "seed of the rows that --max-rows draws and of those that are split off for validation; default: 0",
        None,
        at_least=0,
    )
    max_length: int = option("longest row in tokens; longer ones are cut", 128, at_least=4)


@dataclass(frozen=True)
class DataLocation:
    """Where named tasks are read from."""

    data_dir: Path | None = option("folder of data sets; default: $DEMIGLACE_DATA, else the hub", None, decides=False)
