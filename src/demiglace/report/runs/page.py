"""The page: one HTML file with its style, script and drawings inside; it asks for nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from demiglace.config.options import Option
from demiglace.report import format, svg
from demiglace.report.commands import command_line
from demiglace.report.runs import charts
from demiglace.report.runs.schema import Experiment, RunReport
from demiglace.report.runs.verdict import verdict
from demiglace.report.tables import artefact_table, evaluation_table, model_table, rows_table


def render(page: RunReport, options: Mapping[str, Sequence[Option]]) -> str:
    """The page as HTML. `options`: those of each command, to write the command lines.

    Every text from the data is escaped, and a content security policy lets only the page's own script run.
    """
    return template("page.html.j2").render(
        page=page,
        title=page.title,
        experiments=[_experiment(e, page) for e in page.experiments],
        evaluations=evaluation_table(page.evaluations) if _out_of_task(page) else None,
        artefacts=artefact_table(page.artefacts) if page.artefacts else None,
        runs=[_run(r, options) for r in page.records],
        machine=machine_of([r.manifest for r in page.records]),
    )


def template(name: str) -> jinja2.Template:
    """A template of this package, with what `base.html.j2` takes: style, script and its hash, the charts' frame."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("demiglace", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shorten"] = format.shorten
    script = _file("page.js")
    shared = {
        "style": Markup(_file("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "frame": svg,
    }
    return environment.get_template(name, globals=shared)


def _file(name: str) -> str:
    return resources.files("demiglace.report").joinpath(name).read_text(encoding="utf-8")


def _experiment(experiment: Experiment, page: RunReport) -> dict[str, Any]:
    return {
        "task": experiment.task,
        "split": experiment.split,
        "verdict": verdict(experiment, page),
        "models": model_table(experiment),
        "charts": charts.charts_of(experiment),
        "heat_maps": charts.heat_maps(experiment),
        "rows": rows_table(experiment) if any(m.rows for m in experiment.models) else None,
    }


def _out_of_task(page: RunReport) -> bool:
    """Whether some evaluated set is not simply the task's own, whose scores the main table holds."""
    tasks = {e.task for e in page.experiments}
    return any(e.set.split(":")[0] not in tasks for e in page.evaluations) or len({e.set for e in page.evaluations}) > 1


def _run(record: Any, options: Mapping[str, Sequence[Option]]) -> dict[str, Any]:
    manifest = record.manifest
    return {
        "path": str(record.path),
        "stage": record.stage,
        "command": command_line(record, options[record.stage]) if record.stage in options else "",
        "config": json.dumps({"config": record.config, "inputs": manifest.get("inputs")}, indent=2, ensure_ascii=False),
        "versions": manifest.get("versions") or {},
        "machine": ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in (manifest.get("machine") or {}).items()),
        "finished": str(manifest.get("finished") or "").replace("T", " ")[:16],
    }


def machine_of(manifests: Sequence[Mapping[str, Any]]) -> str:
    """The processor all runs had in common, or that there were several."""
    found = {str((m.get("machine") or {}).get("processor", "")) for m in manifests} - {""}
    return found.pop() if len(found) == 1 else ("several machines" if found else "")
