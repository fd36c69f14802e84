"""Write a table as Markdown, LaTeX, CSV or plain data."""

import csv
import html
import io
import re
from collections.abc import Sequence
from itertools import count

from demiglace.escaping import spreadsheet_cell
from demiglace.report.tables import Cell, Table

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "ρ": r"$\rho$", "\u00a0": "~"}
_LATEX |= {"−": "$-$", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "×": r"$\times$"}


def markdown(table: Table) -> str:
    """Return a table in GitHub's Markdown, with its title and caption."""

    def plain(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")

    def cell(entry: Cell) -> str:
        return f"**{plain(entry.text)}**" if entry.best else plain(entry.text)

    rule = ["---" if i == 0 or c.text else "---:" for i, c in enumerate(table.columns)]
    lines = [[plain(c.title) for c in table.columns], rule, *([cell(e) for e in row] for row in table.rows)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {plain(table.title)}\n\n{body}\n\n{table.caption}\n"


def latex_of(tables: Sequence[Table]) -> str:
    """Return tables in LaTeX, each with a label of its own; see `latex`."""
    written: dict[str, str] = {}
    for table in tables:
        label = latex_label(table)
        number = next(n for n in count(1) if (label if n == 1 else f"{label}-{n}") not in written)
        label += "" if number == 1 else f"-{number}"
        written[label] = latex(table, label)
    return "\n".join(written.values())


def latex(table: Table, label: str | None = None) -> str:
    """Return a table in LaTeX with booktabs and a label (None: from its title); quiet cells are grey (xcolor)."""

    def cell(entry: Cell) -> str:
        text = _escaped(entry.text)
        text = f"\\textbf{{{text}}}" if entry.best else text
        return f"\\textcolor{{gray}}{{{text}}}" if entry.quiet else text

    rows = "\n".join(" & ".join(map(cell, row)) + r" \\" for row in table.rows)
    head = " & ".join(_escaped(c.title) for c in table.columns) + r" \\"
    shape = "".join("l" if i == 0 or c.text else "r" for i, c in enumerate(table.columns))
    return (
        "% needs \\usepackage{booktabs,xcolor}\n"
        f"\\begin{{table}}\n\\caption{{{_escaped(table.title)}. {_escaped(table.caption.replace('`', ''))}}}\n"
        f"\\label{{{label or latex_label(table)}}}\n"
        f"\\begin{{tabular}}{{{shape}}}\n\\toprule\n{head}\n\\midrule\n{rows}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def latex_label(table: Table) -> str:
    """Return the label of a table from its title: ``tab:half-in-domain``."""
    return "tab:" + (re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "table")


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def csv_of(tables: Sequence[Table]) -> str:
    """Return tables as CSV, one line for each cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", "number", "row", "column", "value", "text"))
    for table in tables:
        # rows are numbered, because their names may repeat: one set with two models
        for number, row in enumerate(table.rows, 1):
            for column, cell in zip(table.columns, row, strict=True):
                cells = (table.title, number, row[0].text, column.title, cell.value, cell.text)
                writer.writerow(map(spreadsheet_cell, cells))
    return out.getvalue()


def plain_data(table: Table) -> dict[str, object]:
    """Return a table as data for JSON: numbers where cells have them, else their texts."""
    names = [c.title for c in table.columns]
    rows = [{n: c.text if c.value is None else c.value for n, c in zip(names, row, strict=True)} for row in table.rows]
    return {"table": table.title, "rows": rows}
