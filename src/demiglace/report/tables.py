"""A table of texts, which pages, the terminal, Markdown, LaTeX and CSV all write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    text: bool = False  # whether its cells are words, not numbers
    better: int = 0  # +1 where the highest value is best, −1 the lowest, 0 neither


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | None = None  # the number that it is sorted by; None: by its text
    best: bool = False  # whether it is the best of its column
    note: str = ""  # a few words below the text; on pages only
    quiet: bool = False  # grey: not significant
    link: str = ""
    anchor: str = ""  # its id on a page


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marks: tuple[str, ...] = ()  # a class for each row: "baseline", "teacher" or ""
    title: str = ""
    caption: str = ""


ColumnOfCells = tuple[Column, Sequence[Cell]]


def from_columns(
    columns: Sequence[ColumnOfCells], marks: Sequence[str] = (), title: str = "", caption: str = ""
) -> Table:
    """Return a table from its columns; columns of numbers without any value are left out."""
    kept = [(c, cells) for c, cells in columns if c.text or any(x.value is not None for x in cells)]
    rows = tuple(zip(*(cells for _, cells in kept), strict=True))
    return Table(tuple(c for c, _ in kept), rows, tuple(marks), title, caption)


def numbers(
    title: str, values: Sequence[float | None], write: Callable[[float | None], str], better: int = 0
) -> tuple[Column, list[Cell]]:
    """Return a column of numbers with its best cells marked."""
    return Column(title, better=better), mark_best([Cell(write(v), v) for v in values], better)


def mark_best(cells: Sequence[Cell], better: int) -> list[Cell]:
    """Mark all cells that show the best number, unless all show the same one; better: as in `Column`."""
    known = [c for c in cells if c.value is not None]
    if not better or len({_number(c) for c in known}) < 2:
        return list(cells)
    best = _number(max(known, key=lambda c: better * (c.value or 0.0)))
    return [replace(c, best=c.value is not None and _number(c) == best) for c in cells]


def _number(cell: Cell) -> str:
    """Return the text without a deviation or a mark: ``85.1`` of ``85.1 ± 0.4 ↑``."""
    return cell.text.split(" ")[0]
