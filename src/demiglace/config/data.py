"""Options that choose the examples, and how their columns are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from demiglace.config.options import LARGEST_SEED, group, option

Unit = Literal["document", "line", "paragraph"]


@dataclass(frozen=True)
class ReadConfig:
    """How files become documents."""

    SECTION: ClassVar[str] = "corpus"

    text_key: str = option("key or column of JSON lines and Parquet that holds the text", "text")
    unit: Unit = option("what one document of a .txt file is: the file, each line, or each paragraph", "document")
    max_document_mb: float = option("documents longer than this are left out and counted; megabytes", 5.0, above=0)


@dataclass(frozen=True)
class DataConfig:
    """Examples to train and evaluate on: a named task, or the user's files."""

    SECTION: ClassVar[str] = "data"

    data: str = option(
        "training data: a task of `demiglace tasks`, a CSV, TSV, JSONL, Parquet or CoNLL file (.gz, .zst too), or a "
        "data set of the Hugging Face hub as hf://OWNER/NAME[@REVISION][/CONFIG][:SPLIT]; for distill also text "
        "without labels",
        "",
        common=True,
    )
    validation: str | None = option(
        "file of validation rows; none: a part of the training rows is split off", None, common=True
    )
    test: str | None = option("file of test rows", None, common=True)
    label_column: str | None = option(
        "label column, or columns of 0 and 1 for one label each, as A,B,C; none: found by its usual names", None
    )
    text_columns: tuple[str, ...] | None = option("one or two text columns; none: found by their usual names", None)
    problem: str = option(
        "kind of problem: classification, regression, multi-label (a list of labels for each row), "
        "token-classification (a tag for each word), sentence-embedding (texts without labels, for distill), or auto: "
        "token-classification if rows are lists of words, sentence-embedding if the teacher is a sentence-transformers "
        "model, regression if the labels are numbers with a fraction, multi-label if they are lists, else "
        "classification",
        "auto",
    )
    unlabelled: tuple[str, ...] | None = option(
        "files of unlabelled rows, or data sets of the hub (hf://…), for the teacher's loss terms; also without --data",
        None,
    )
    max_length: int | None = option(
        "longest example, in tokens; longer ones are truncated; none: the 99th percentile of the training rows, up to "
        "the model's limit",
        None,
        at_least=4,
    )
    validation_fraction: float = option(
        "share of the training rows that is split off for validation", 0.1, above=0, below=1
    )
    max_rows: int | None = option(
        "use only this many training rows, drawn at random; of a file of more than 50,000 rows (and ten times this "
        "number) only a random sample of so many is read into memory and checked",
        None,
        at_least=1,
    )
    on_bad_rows: Literal["error", "drop"] = option("what to do with rows that cannot be used", "error")
    data_seed: int | None = option(
        "seed of --max-rows and of the validation rows that are split off; none: 0",
        None,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    score_test: bool = option(
        "evaluate the trained model on the test rows, if there are any; false: leave them to `demiglace evaluate`",
        True,
        decides=False,
    )
    holdout_from_train: bool = option(
        "split the validation rows off the training rows even where the data has a validation set, which then is not "
        "read: for choosing options",
        False,
    )


@dataclass(frozen=True)
class DataLocation:
    """Where named tasks are read from."""

    SECTION: ClassVar[str] = "data"

    data_dir: Path | None = option(
        "folder of data sets; none: $DEMIGLACE_DATA, else the Hugging Face hub", None, decides=False
    )


AddBos = Literal["auto", "true", "false"]
ADD_BOS = "auto: where the model's tokenizer adds one (Llama, Gemma, Mistral); true; false"


@dataclass(frozen=True)
class CorpusConfig:
    """Documents to train a language model on, as blocks of tokens."""

    SECTION: ClassVar[str] = "corpus"

    corpus: tuple[str, ...] = option(
        "files, folders or globs of documents (.txt, .jsonl, .parquet, also .gz and .zst), or a run of `clean`",
        (),
        common=True,
    )
    validation_corpus: tuple[str, ...] = option(
        "documents to validate on; without them the last blocks of the corpus, which are then not trained on", ()
    )
    validation_blocks: int = option("blocks to validate on, at most", 256, at_least=1)
    block_size: int | None = option("tokens of a block; none: 512, or the model's limit", None, at_least=2)
    add_bos: AddBos = option(f"causal language models: a beginning-of-text token in each block: {ADD_BOS}", "auto")
    max_tokens: int | None = option(
        "use only this many tokens of the corpus, in blocks drawn with the seed 0", None, at_least=1
    )
    token_files: str = option(
        "directory of the tokenized corpus, which runs can share; auto: in the run directory, removed at its end",
        "auto",
        decides=False,
    )
    reading: ReadConfig = group(ReadConfig)
