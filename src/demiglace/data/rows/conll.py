"""CoNLL texts to tables: a word and its tag on each line, and a blank line after each sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

from demiglace.data.rows.table import MALFORMED, RowProblem, Table, lines_of_text

_COMMENT = re.compile(r"#\s*\w[^\t]*=")  # "# id = 3", "# id 3f2 domain=en"; a word "#" has only its tag after it


def read_conll(path: Path, text: str) -> Table:
    """Return the sentences of a CoNLL text in the columns `tokens` and `tags`: the first and the last one of a line.

    Columns are divided by tabs, or by spaces in a line without a tab. Lines of -DOCSTART- and comments ahead of a
    sentence are skipped. A line without a word and a tag makes its sentence a problem, and changes no other one.
    """
    lines, tokens, tags, problems = [], [], [], []
    for first, sentence in _sentences(lines_of_text(text)):
        cells = [line.split("\t") if "\t" in line else line.split() for line in sentence]
        odd = next(
            (i for i, row in enumerate(cells) if len(row) < 2 or not row[0].strip() or not row[-1].strip()), None
        )
        if odd is not None:
            detail = f"{sentence[odd]!r}; expected a word and its tag"
            problems.append(RowProblem(MALFORMED, str(path), first + odd, detail))
            continue
        lines.append(first)
        tokens.append([row[0].strip() for row in cells])
        tags.append([row[-1].strip() for row in cells])
    return Table(str(path), {"tokens": tokens, "tags": tags}, lines, tuple(problems))


def _sentences(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each sentence, from 1, and its lines."""
    sentence: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        is_skipped = line.startswith("-DOCSTART-") or (not sentence and _COMMENT.match(line))
        if line.strip() and not is_skipped:
            sentence.append(line)
        elif sentence:
            yield number - len(sentence), sentence
            sentence = []
