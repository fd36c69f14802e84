"""Write the tables of single runs as files."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from demiglace.report.runs.schema import RunReport
from demiglace.report.tables import Table, artefact_table, evaluation_table, model_table
from demiglace.report.text_tables import Entry, ResultTable, latex, markdown
from demiglace.runs.files import write_atomically

_CAPTION = "Best value of a column in bold. Each model is one run with one seed: small differences are noise."


def write_tables(page: RunReport, directory: Path) -> list[Path]:
    """Write tables.md, tables.tex, results.csv (one line a cell) and results.json; return their paths."""
    found = page_tables(page)
    shown = [_result_table(title, table) for title, table in found]
    contents = {
        "tables.md": "\n".join(map(markdown, shown)),
        "tables.tex": "\n".join(map(latex, shown)),
        "results.csv": _csv(found),
        "results.json": json.dumps([_plain(*named) for named in found], indent=2, ensure_ascii=False) + "\n",
    }
    for name, content in contents.items():
        write_atomically(directory / name, content.encode("utf-8", errors="replace"))
    return [directory / name for name in contents]


def page_tables(page: RunReport) -> list[tuple[str, Table]]:
    """The page's tables with their titles: models of each task, evaluations, exported files."""
    found = [(f"models of {e.task}" if e.task else "models", model_table(e)) for e in page.experiments]
    found += [("evaluations", evaluation_table(page.evaluations))] if page.evaluations else []
    found += [("exported files", artefact_table(page.artefacts))] if page.artefacts else []
    return found


def _result_table(title: str, table: Table) -> ResultTable:
    rows = tuple(tuple(Entry(cell.text, cell.best) for cell in row) for row in table.rows)
    return ResultTable(title, _CAPTION, tuple(c.title for c in table.columns), rows)


def _csv(tables: Sequence[tuple[str, Table]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", "number", "row", "column", "value", "text"))
    for title, table in tables:
        # rows are numbered, for their names may be alike: sets that two models were measured on
        for number, row in enumerate(table.rows, 1):
            for column, cell in zip(table.columns, row, strict=True):
                writer.writerow((title, number, row[0].text, column.title, cell.value, cell.text))
    return out.getvalue()


def _plain(title: str, table: Table) -> dict[str, object]:
    names = [c.title for c in table.columns]
    rows = [{n: c.text if c.value is None else c.value for n, c in zip(names, row, strict=True)} for row in table.rows]
    return {"table": title, "rows": rows}
