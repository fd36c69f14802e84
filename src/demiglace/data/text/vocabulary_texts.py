"""The texts whose tokens a trimmed vocabulary keeps: documents, as of a corpus, and the texts of tables of rows."""

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from demiglace.config.data import ReadConfig
from demiglace.data.rows.checks import columns_of
from demiglace.data.rows.readers import read_table
from demiglace.data.text.readers import as_utf8, read_texts
from demiglace.data.text.sources import corpus_files
from demiglace.errors import DataError

_TABLES = tuple(kind + packing for kind in (".csv", ".tsv") for packing in ("", ".gz", ".zst"))


def vocabulary_files(sources: Sequence[str]) -> list[str]:
    """Return the files of texts: those of `corpus_files`, and CSV and TSV files. Raises `DataError` as it does."""
    files: list[str] = []
    for source in sources:
        if not source.lower().endswith(_TABLES):
            files += corpus_files([source])
            continue
        found = [source] if Path(source).is_file() else sorted(glob.glob(source, recursive=True))  # noqa: PTH207
        if not found:
            raise DataError(f"--vocabulary-corpus: there is no file {source}; check the path.")
        files += found
    return files


def vocabulary_texts(files: Sequence[str], reading: ReadConfig, left_out: Counter[str]) -> Iterator[str]:
    """Yield the texts of all files; count documents that cannot be used by reason in `left_out`.

    Of a table, each text column is read, found by its usual name; cells without text are left out and counted.
    """
    for file in files:
        if file.lower().endswith(_TABLES):
            table = read_table(file)
            for column in columns_of(table, None, labelled=False).texts:
                for cell in table.columns[column]:
                    if isinstance(cell, str) and cell.strip():
                        yield as_utf8(cell).decode("utf-8")
                    else:
                        left_out["empty"] += 1
            left_out["malformed row"] += len(table.problems)
        else:
            yield from read_texts([file], reading, left_out)
