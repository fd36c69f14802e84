"""What a command returns: where its files are, and its numbers."""

import html
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.escaping import escape_controls
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import to_json
from demiglace.runs.hub import push_to_hub


@dataclass(frozen=True)
class ResultTable:
    """A table of texts; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def print(self, file: Any) -> None:
        """Print it; where the file is no terminal, in its full width."""
        from demiglace.console import print_table, table

        print_table(table(self.title, self.columns, self.rows), file)

    def _repr_html_(self) -> str:
        cells = (("th", self.columns), *(("td", row) for row in self.rows))
        rows = ("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in cells)
        return f"<table><caption>{html.escape(self.title)}</caption>{''.join(f'<tr>{r}</tr>' for r in rows)}</table>"


@dataclass(frozen=True, repr=False)
class Result(os.PathLike[str]):
    """The result of a command.

    It can be used as the path of the command's directory or file: ``result / "model"``, ``open(result)``; `str` gives
    that path, as libraries expect it. Notebooks and interactive sessions show its tables, as `summary` returns them.
    """

    path: Path | None  # of the run directory or the file; none where nothing was written
    metrics: Mapping[str, Any] = field(default_factory=dict)  # numbers by name, or by data set and name
    tables: tuple[ResultTable, ...] = ()
    text: str = ""  # further lines, such as generated text

    def __fspath__(self) -> str:
        return str(self._existing)

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        return self._existing / name

    def __getattr__(self, name: str) -> Any:
        """Return what `path` has of that name: callers may use the result as the path."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._existing, name)

    @property
    def _existing(self) -> Path:
        if self.path is None:
            raise TypeError("nothing was written: the command was given no output, so its result has no path")
        return self.path

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the run directory."""
        return read_manifest(self._existing)

    def to_json(self) -> str:
        """Return path, metrics and text as JSON."""
        content = {"path": self.path, "metrics": self.metrics} | ({"text": self.text} if self.text else {})
        return to_json(content)

    def __str__(self) -> str:
        """Return the path; without one the summary."""
        return self.summary() if self.path is None else str(self.path)

    def __repr__(self) -> str:
        """Return the summary, which an interactive session shows."""
        return self.summary()

    def summary(self) -> str:
        """Return the tables, the text, and the path, as the command line prints them."""
        buffer = io.StringIO()
        self.print(buffer)
        return buffer.getvalue().rstrip("\n")

    def print(self, file: Any) -> None:
        """Print the tables, the text, and the path."""
        for each in self.tables:
            each.print(file)
        for line in (self.text, "" if self.path is None else str(self.path)):
            if line:
                print(escape_controls(line) if file.isatty() else line, file=file)

    def _repr_html_(self) -> str:
        path = "" if self.path is None else f"<p><code>{html.escape(str(self.path))}</code></p>"
        text = f"<pre>{html.escape(self.text)}</pre>" if self.text else ""
        return "".join(each._repr_html_() for each in self.tables) + text + path


def number_table(title: str, metrics: Mapping[str, Mapping[str, Any]], first: str = "") -> ResultTable:
    """Return a table with a row for each name and a column for each of its numbers; first: heading of the names."""
    columns = list(dict.fromkeys(name for row in metrics.values() for name in row))
    rows = tuple((name, *(_shown(row.get(column)) for column in columns)) for name, row in metrics.items())
    return ResultTable(title, (first, *columns), rows)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def training_result(path: Path, repository: str | None = None) -> Result:
    """Return the result of a training run: its metrics on each split. Empty on other processes than the main one.

    repository: of the hub, to which the model is uploaded; raises `RunError` as `push_to_hub` does.
    """
    from demiglace.console import is_main_process

    if not is_main_process():
        return Result(path)
    push_to_hub(path / "model", repository)
    metrics = read_manifest(path).get("metrics", {})
    return Result(path, metrics, (number_table("Metrics", metrics, "split"),) if metrics else ())
