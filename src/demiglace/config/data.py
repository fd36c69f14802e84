"""Options that say which rows are used, and how their columns are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demiglace.config.options import group, option

Unit = Literal["document", "line", "paragraph"]


@dataclass(frozen=True)
class ReadConfig:
    """How files become documents."""

    text_key: str = option("key or column of JSON lines and Parquet that holds the text", "text")
    unit: Unit = option("what a document of a .txt file is: the file, each line, or what blank lines part", "document")
    max_document_mb: float = option("longer documents are left out, and counted; megabytes", 5.0, above=0)


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
    problem: str = option(
        "kind of problem: classification, regression, or auto: regression if the labels are numbers with a fraction, "
        "else classification",
        "auto",
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


@dataclass(frozen=True)
class CorpusConfig:
    """Documents to train a language model on, as blocks of tokens."""

    corpus: tuple[str, ...] = option(
        "files, folders or globs of documents: .txt, .jsonl, .parquet, also .gz and .zst, or a run of `clean`", ()
    )
    validation_corpus: tuple[str, ...] = option(
        "documents to validate on; without them the last blocks of the corpus, which are then not trained on", ()
    )
    validation_blocks: int = option("at most so many blocks to validate on", 256, at_least=1)
    block_size: int | None = option("tokens of a row; none: 512, or what the model takes", None, at_least=2)
    max_tokens: int | None = option(
        "use only so many tokens of the corpus, in blocks drawn with the seed 0", None, at_least=1
    )
    token_files: str = option(
        "where the token files are kept: auto (in the run directory, till its end), or a directory that runs share",
        "auto",
        decides=False,
    )
    reading: ReadConfig = group(ReadConfig)
