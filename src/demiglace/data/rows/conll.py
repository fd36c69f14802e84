"""CoNLL texts to tables: a word and its tag on each line, and a blank line after each sentence."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

from demiglace.data.rows.sampling import EVERY_ROW, RowSample
from demiglace.data.rows.table import MALFORMED, Lines, RowProblem, Table, pieces_of

_COMMENT = re.compile(r"#\s*\w[^\t]*=")  # "# id = 3", "# id 3f2 domain=en"; a word "#" has only its tag after it


def read_conll(path: Path, text: TextIO, sample: RowSample = EVERY_ROW) -> Table:
    """Return the sentences of a CoNLL text, or a sample, in the columns `tokens` and `tags`.

    These are the first and the last column of a line. Columns are divided by tabs, or by spaces in a line without a
    tab. Lines of -DOCSTART- and comments ahead of a sentence are skipped. A line without a word and a tag makes its
    sentence a problem, and changes no other one.
    """
    problems: list[RowProblem] = []
    rows, total = sample.of(_tagged(path, _sentences(Lines(pieces_of(text))), problems))
    columns = {"tokens": [tokens for _, tokens, _ in rows], "tags": [tags for *_, tags in rows]}
    return Table(str(path), columns, [line for line, *_ in rows], tuple(problems), total)


def _tagged(
    path: Path, sentences: Iterable[tuple[int, list[str]]], problems: list[RowProblem]
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield the line, the words and the tags of each sentence; a sentence with an odd line becomes a problem."""
    for first, sentence in sentences:
        cells = [line.split("\t") if "\t" in line else line.split() for line in sentence]
        odd = next(
            (i for i, row in enumerate(cells) if len(row) < 2 or not row[0].strip() or not row[-1].strip()), None
        )
        if odd is None:
            yield first, [row[0].strip() for row in cells], [row[-1].strip() for row in cells]
        else:
            detail = f"{sentence[odd]!r}; expected a word and its tag"
            problems.append(RowProblem(MALFORMED, str(path), first + odd, detail))


def _sentences(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each sentence, from 1, and its lines."""
    sentence: list[str] = []
    for number, line in enumerate(chain(lines, [""]), 1):
        is_skipped = line.startswith("-DOCSTART-") or (not sentence and _COMMENT.match(line))
        if line.strip() and not is_skipped:
            sentence.append(line)
        elif sentence:
            yield number - len(sentence), sentence
            sentence = []
