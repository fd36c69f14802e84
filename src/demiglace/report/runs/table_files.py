"""Write the tables of single runs as files."""

import json
from dataclasses import replace
from pathlib import Path

from demiglace.report.runs.schema import RunReport
from demiglace.report.runs.tables import artefact_table, evaluation_table, model_table
from demiglace.report.tables import Table
from demiglace.report.text_tables import csv_of, latex_of, markdown, plain_data
from demiglace.runs.files import write_atomically

_CAPTION = (
    "Best value of a column in bold; scores in points of 100. Each model is one run with one seed: small differences "
    "are noise."
)


def write_tables(page: RunReport, directory: Path) -> list[Path]:
    """Write tables.md, tables.tex, results.csv (one line for each cell) and results.json; return their paths."""
    found = page_tables(page)
    contents = {
        "tables.md": "\n".join(map(markdown, found)),
        "tables.tex": latex_of(found),
        "results.csv": csv_of(found),
        "results.json": json.dumps([*map(plain_data, found)], indent=2, ensure_ascii=False) + "\n",
    }
    for name, content in contents.items():
        write_atomically(directory / name, content.encode("utf-8", errors="replace"))
    return [directory / name for name in contents]


def page_tables(page: RunReport) -> list[Table]:
    """Return the page's tables: models of each task, evaluations, exported files."""
    found = [(f"models of {e.task}" if e.task else "models", model_table(e)) for e in page.experiments]
    found += [("evaluations", evaluation_table(page.evaluations))] if page.evaluations else []
    found += [("exported files", artefact_table(page.artefacts))] if page.artefacts else []
    return [replace(table, title=title, caption=_CAPTION) for title, table in found]
