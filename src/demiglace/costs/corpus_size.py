"""Estimate the number of tokens of a corpus from the beginnings of its files, for `demiglace plan`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from transformers import PreTrainedTokenizerBase

from demiglace.config.data import ReadConfig
from demiglace.data.text.readers import (
    DamagedFileError,
    Document,
    SkippedDocument,
    fault_of,
    format_of,
    read_documents,
    unpacked,
)
from demiglace.data.text.token_shards import count_tokens
from demiglace.errors import DataError

SAMPLE = 4_000_000  # stored bytes that are tokenized
_FILES = 8  # files that they come from


def estimate_tokens(files: Sequence[str], tokenizer: PreTrainedTokenizerBase, reading: ReadConfig) -> tuple[int, bool]:
    """Return the number of tokens of a corpus, end-of-text tokens included, and whether all were counted.

    A small corpus is counted. Of a larger one, the beginnings of some random files are tokenized, and the rest is
    assumed to have as many tokens per stored byte.

    Args:
        files: of the corpus.
        tokenizer: of the model.
        reading: options for reading documents.

    Raises:
        DataError: no document was found.
    """
    sizes = {file: Path(file).stat().st_size for file in files}
    is_small = sum(sizes.values()) <= SAMPLE
    sample = files if is_small else [files[i] for i in np.random.default_rng(0).permutation(len(files))[:_FILES]]
    tokens = 0.0
    for file in sample:
        texts, share = _beginning(file, sizes[file] if is_small else SAMPLE // len(sample), reading)
        tokens += count_tokens(tokenizer, texts) / share
    if not tokens:
        raise DataError(f"{', '.join(files[:3])}: no document to read; check the files and --text-key.")
    return round(tokens * sum(sizes.values()) / sum(sizes[file] for file in sample)), is_small


def _beginning(file: str, max_bytes: int, reading: ReadConfig) -> tuple[list[str], float]:
    """Return the documents in about the first `max_bytes` stored bytes of a file, and their share of the file."""
    size = Path(file).stat().st_size
    if size > max_bytes and format_of(file) == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.ParquetFile(file).metadata.num_rows
        count = max(1, rows * max_bytes // size)
        return _texts(islice(read_documents(file, reading), count)), count / rows
    if size > max_bytes:
        with TemporaryDirectory() as folder, Path(file).open("rb") as stored:
            head = Path(folder) / Path(file).name
            head.write_bytes(stored.read(max_bytes))
            texts = _texts(_up_to_damage(read_documents(str(head), reading)))
            if texts:
                return texts, _complete_lines(str(head)) * max_bytes / size
    return _texts(read_documents(file, reading)), 1.0


def _up_to_damage(documents: Iterator[Document | SkippedDocument]) -> Iterator[Document | SkippedDocument]:
    """Yield the documents of a truncated file up to its end."""
    with suppress(DamagedFileError):
        yield from documents


def _complete_lines(file: str) -> float:
    """Return the share of a truncated file's content in complete lines; 1 if its documents are not lines."""
    if format_of(file) not in (".jsonl", ".ndjson"):
        return 1.0
    total = complete = 0
    with suppress(DamagedFileError):
        for chunk in unpacked(file):
            complete = total + chunk.rfind(b"\n") + 1 if b"\n" in chunk else complete
            total += len(chunk)
    return complete / total


def _texts(documents: Iterable[Document | SkippedDocument]) -> list[str]:
    return [document.text for document in documents if isinstance(document, Document) and not fault_of(document)]
