"""The page about single runs: one HTML file with its style, script and drawings inside."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from demiglace.config.options import Option
from demiglace.console import WARNING
from demiglace.report import format, svg
from demiglace.report.commands import PortablePaths, command_line
from demiglace.report.runs import charts
from demiglace.report.runs.classes import class_table, confusion_table
from demiglace.report.runs.schema import Evaluation, Experiment, Record, RunReport
from demiglace.report.runs.tables import artefact_table, evaluation_table, model_table, rows_table
from demiglace.report.runs.verdict import verdict
from demiglace.report.tables import Table


def render(page: RunReport, options: Mapping[str, Sequence[Option]]) -> str:
    """Return the page as HTML; options: those of each command, for the command lines.

    Every text from the data is escaped, and a content security policy lets only the page's own script run.
    """
    portable = PortablePaths.around([r.path for r in page.records])
    return template("page.html.j2").render(
        page=page,
        title=page.title,
        experiments=[_experiment(e, page) for e in page.experiments],
        evaluations=evaluation_table(page.evaluations) if _out_of_task(page) else None,
        classes=_classes(page.evaluations),
        artefacts=artefact_table(page.artefacts) if page.artefacts else None,
        runs=[_run(r, options, portable) for r in page.records],
        notices=[found for r in page.records if (found := _notices(r, portable))["notices"]],
        machine=machine_of([r.manifest for r in page.records]),
    )


@cache  # compiling a template takes longer than filling it in
def template(name: str) -> jinja2.Template:
    """Return a template of this package with the values of `base.html.j2`: style, script, its hash, the chart frame."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("demiglace", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shorten"] = format.shorten
    environment.filters["code"] = code
    script = _file("page.js")
    shared = {
        "style": Markup(_file("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "frame": svg,
    }
    return environment.get_template(name, globals=shared)


def code(text: str) -> Markup:
    """Return a text as HTML with its parts in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _file(name: str) -> str:
    return resources.files("demiglace.report").joinpath(name).read_text(encoding="utf-8")


def _experiment(experiment: Experiment, page: RunReport) -> dict[str, Any]:
    return {
        "task": experiment.task,
        "split": experiment.split,
        "verdict": verdict(experiment, page),
        "models": model_table(experiment),
        "charts": charts.charts_of(experiment, page.artefacts),
        "heat_maps": charts.heat_maps(experiment),
        "rows": rows_table(experiment) if any(m.rows for m in experiment.models) else None,
    }


def _out_of_task(page: RunReport) -> bool:
    """Return whether some evaluated set is not the task's, whose scores are in the main table."""
    tasks = {e.task for e in page.experiments}
    return any(e.set.split(":")[0] not in tasks for e in page.evaluations) or len({e.set for e in page.evaluations}) > 1


def _classes(evaluations: Sequence[Evaluation]) -> list[tuple[str, Table | None, Table]]:
    """Return a title, the confusions and the table of classes or labels of each evaluation that has them."""
    return [
        (f"{format.shorten(e.model)} on {format.shorten(e.set)}", confusion_table(e.classes), class_table(e.classes))
        for e in evaluations
        if e.classes is not None
    ]


def _run(record: Record, options: Mapping[str, Sequence[Option]], portable: PortablePaths) -> dict[str, Any]:
    manifest = record.manifest
    config = portable.everywhere({"config": record.config, "inputs": manifest.get("inputs")})
    return {
        "path": portable(str(record.path)),
        "stage": record.stage,
        "command": command_line(record, options[record.stage], portable) if record.stage in options else "",
        "config": json.dumps(config, indent=2, ensure_ascii=False),
        "versions": manifest.get("versions") or {},
        "machine": ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in (manifest.get("machine") or {}).items()),
        "finished": str(manifest.get("finished") or "").replace("T", " ")[:16],
    }


def _notices(record: Record, portable: PortablePaths) -> dict[str, Any]:
    """Return the path and the notices of a run: whether each is a warning, and its sentence."""
    messages = [portable.in_sentence(str(n.get("message", ""))) for n in record.manifest.get("notices") or ()]
    return {
        "path": portable(str(record.path)),
        "notices": [(message.startswith(WARNING), message.removeprefix(WARNING)) for message in messages],
    }


def machine_of(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Return the processor of all runs, or that there were several machines."""
    found = {str((m.get("machine") or {}).get("processor", "")) for m in manifests} - {""}
    return found.pop() if len(found) == 1 else ("several machines" if found else "")
