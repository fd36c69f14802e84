"""How many tokens a corpus has, told from its beginnings: for plans, which cannot wait for all of it."""

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

SAMPLE = 4_000_000  # stored bytes that are tokenised
_FILES = 8  # that they are taken from


def estimate_tokens(files: Sequence[str], tokenizer: PreTrainedTokenizerBase, reading: ReadConfig) -> tuple[int, bool]:
    """Tokens of a corpus with its ends of text, and whether all were counted, as they are of a small one.

    Of a larger one some files are drawn, the beginning of each is tokenised, and the rest is taken to have as many
    tokens to a stored byte. Raises `DataError` where no document is found.
    """
    sizes = {file: Path(file).stat().st_size for file in files}
    is_small = sum(sizes.values()) <= SAMPLE
    drawn = files if is_small else [files[i] for i in np.random.default_rng(0).permutation(len(files))[:_FILES]]
    told = 0.0
    for file in drawn:
        texts, share = _beginning(file, sizes[file] if is_small else SAMPLE // len(drawn), reading)
        told += count_tokens(tokenizer, texts) / share
    if not told:
        raise DataError(f"{', '.join(files[:3])}: no document to read; look at the files and --text-key.")
    return round(told * sum(sizes.values()) / sum(sizes[file] for file in drawn)), is_small


def _beginning(file: str, most: int, reading: ReadConfig) -> tuple[list[str], float]:
    """The documents in about the first `most` stored bytes of a file, and the share of the file that these are."""
    size = Path(file).stat().st_size
    if size > most and format_of(file) == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.ParquetFile(file).metadata.num_rows
        taken = max(1, rows * most // size)
        return _texts(islice(read_documents(file, reading), taken)), taken / rows
    if size > most:
        with TemporaryDirectory() as home, Path(file).open("rb") as stored:
            head = Path(home) / Path(file).name
            head.write_bytes(stored.read(most))
            texts = _texts(_up_to_damage(read_documents(str(head), reading)))
            if texts:
                return texts, _whole_lines(str(head)) * most / size
    return _texts(read_documents(file, reading)), 1.0


def _up_to_damage(found: Iterator[Document | SkippedDocument]) -> Iterator[Document | SkippedDocument]:
    """A file that was cut off on purpose ends where it was cut."""
    with suppress(DamagedFileError):
        yield from found


def _whole_lines(file: str) -> float:
    """The share of a cut-off file's content that is whole lines; all of it where documents are no lines."""
    if format_of(file) not in (".jsonl", ".ndjson"):
        return 1.0
    total = whole = 0
    with suppress(DamagedFileError):
        for chunk in unpacked(file):
            whole = total + chunk.rfind(b"\n") + 1 if b"\n" in chunk else whole
            total += len(chunk)
    return whole / total


def _texts(found: Iterable[Document | SkippedDocument]) -> list[str]:
    return [each.text for each in found if isinstance(each, Document) and not fault_of(each)]
