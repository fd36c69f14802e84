"""What a comparison found: one record for every student run and every teacher, read from their manifests alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demiglace.compare.cells import StudentRun, row_options, teacher_options, teacher_path
from demiglace.compare.directory import STAGE, Files, register_inputs
from demiglace.compare.job_config import best_file
from demiglace.compare.job_graph import Job, JobGraph
from demiglace.compare.jobs import is_done
from demiglace.compare.protocol import declaration
from demiglace.errors import RunError
from demiglace.results.summary import summarise
from demiglace.runs.directory import Run, read_manifest
from demiglace.runs.files import read_json, write_json

Record = dict[str, Any]
_OF_TRAINING = ("parameters", "layers", "bytes", "rows", "precision", "finished", "machine", "versions")
_EXPORTED = "ONNX "  # before the precision in the names of artefacts; the others are PyTorch models measured beside


def records(plan: JobGraph, status: Mapping[str, str], errors: Mapping[str, str]) -> list[Record]:
    """The records of a plan's teachers and student runs.

    There is one record for the teacher of each task, or with replicates for that of each task and replicate.

    A record holds task, student, method (its label), method_name, seed (the replicate's number where unit is
    `replicate`), unit (seed or replicate), axes, role (student or teacher); run,
    evaluation and export (paths below the comparison's, or none; that of a ready teacher as it was given);
    unexported: run and error of an export that failed; status (done, failed, skipped, missing) and error; in_domain
    (the set that the task's results are about, as `evaluate` names it) and metric (its deciding one); sets: name ->
    what `evaluate` found; parameters, layers, bytes, seconds; epoch_chosen_on_reported_rows: whether the best epoch
    was chosen on the rows that in_domain is about; artefacts: of its export, each with precision (fp32 or int8),
    bytes, latency_ms by batch size and agreement, the share of rows on which it gives the label that the run's
    model gives; latency_ms: that of the fp32 one, none without an export; searched: the options that a search found
    for a student run; finished, machine, versions, precision: its training's.
    """
    found = _Results(plan, status, errors)
    varies = plan.grid.unit == "replicate"
    teachers = dict.fromkeys((run.cell.task, run.seed if varies else 0) for run in plan.runs)
    return [*(found.teacher(task, number) for task, number in teachers), *(found.student(run) for run in plan.runs)]


class _Results:
    def __init__(self, plan: JobGraph, status: Mapping[str, str], errors: Mapping[str, str]):
        self._plan, self._status, self._errors = plan, status, errors
        self._searches = {step.key: step.search for step in plan.steps}

    def teacher(self, task: str, number: int) -> Record:
        """The record of a task's teacher; number: its replicate, where the grid has replicates."""
        grid = self._plan.grid
        options, path = teacher_options(grid, task), teacher_path(grid, task, number)
        ready = options.get("run")
        keys = [] if ready else [path]
        names: Record = {"student": None, "method": "teacher", "method_name": "none", "axes": {}}
        head = {"task": task, **names, "role": "teacher", "run": str(ready or keys[0])}
        found = self._record(head, keys, f"{path}.evaluation", f"{path}.export")
        return found | {"seed": number if grid.unit == "replicate" else options.get("seed", 0)}

    def student(self, run: StudentRun) -> Record:
        """The record of a student run."""
        cell = run.cell
        names = {"student": cell.student, "method": cell.method, "method_name": cell.options["method"]}
        head = {"task": cell.task, **names, "seed": run.seed, "axes": dict(cell.axes), "role": "student"}
        head |= {"run": run.path, "searched": self._searched(run.path)}
        return self._record(head, [run.path], run.evaluation, run.export)

    def _searched(self, key: str) -> dict[str, Any]:
        search = self._searches.get(key)
        best = best_file(self._plan.home, search) if search else None
        return dict(read_json(best)["options"]) if best and best.exists() else {}

    def _record(self, head: Record, keys: list[str], evaluation: str, export: str) -> Record:
        state, error = self._state([*keys, evaluation])
        measured, exported = (_manifest(self._plan.home / key) for key in (evaluation, export))
        trained = _manifest(self._plan.home / head["run"] if keys else Path(head["run"]))  # a ready teacher as given
        artefacts = [_artefact(a) for a in exported.get("artefacts", ()) if a["name"].startswith(_EXPORTED)]
        sets = measured.get("sets", {})
        in_domain = next(iter(sets), None)
        seconds = trained.get("seconds", {})
        unknown = 0.0 if trained else None  # what a model without a run has cost
        return head | {
            "unit": self._plan.grid.unit,
            "evaluation": evaluation if measured else None,
            "export": export if exported else None,
            "unexported": {"run": export, "error": self._errors[export]} if export in self._errors else None,
            "status": state,
            "error": error,
            "in_domain": in_domain,
            "metric": next(iter(sets[in_domain]["metrics"])) if in_domain else None,
            "sets": sets,
            **{name: trained.get(name) for name in _OF_TRAINING},
            "seconds": {name: seconds.get(name, unknown) for name in ("capture", "train", "evaluate")},
            "epoch_chosen_on_reported_rows": _chosen_on_reported(trained, row_options(self._plan.grid, head["task"])),
            "latency_ms": next((a["latency_ms"] for a in artefacts if a["precision"] == "fp32"), None),
            "artefacts": artefacts,
        }

    def _state(self, keys: list[str]) -> tuple[str, str | None]:
        """done if all of the steps are; else the first failure, what was skipped, or missing."""
        states = [self._status[key] for key in keys if key in self._status]
        if all(s == "done" for s in states):  # also of a ready teacher that is not evaluated, which has none
            return "done", None
        for key in keys:
            if key in self._errors:
                return "failed", self._errors[key]
        return ("skipped", _cause(keys, self._plan, self._errors)) if "skipped" in states else ("missing", None)


def _manifest(directory: Path) -> dict[str, Any]:
    return read_manifest(directory) if (directory / "manifest.json").exists() else {}


def _chosen_on_reported(trained: Mapping[str, Any], rows: Mapping[str, Any]) -> bool:
    """Whether a run's validation rows are those that its task is reported on, which are the test rows where it has any.

    trained: its manifest; rows: the task's options. Not so of a ready teacher that was trained on other files.
    """
    config = trained.get("config", {})
    same = all(config.get(name) == rows.get(name) for name in ("data", "validation"))
    if not same or config.get("holdout_from_train") or rows.get("test"):
        return False
    return "rows" in trained and (rows.get("validation") is not None or "test" not in trained["rows"])


def _cause(keys: list[str], plan: JobGraph, errors: Mapping[str, str]) -> str:
    """The failed step that a skipped one waited for."""
    needs = {s.key: s.needs for s in plan.steps}
    left = list(keys)
    while left:
        key = left.pop()
        if key in errors:
            return f"needs {key}, which failed"
        left += needs.get(key, ())
    return "needs a run that failed"


def _artefact(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "precision": found["name"].removeprefix(_EXPORTED),
        "bytes": found["bytes"],
        "latency_ms": found["latency_ms"],
        "agreement": found["label_agreement"],
    }


def steps_done(plan: JobGraph) -> set[str]:
    """The keys of the steps that stand. Raises `RunError` if one of their directories holds a run of other options."""
    done = {step.key for step in plan.steps if is_done(step, plan.home)}
    for step in plan.steps:
        # asked again: meanwhile another process may have ended the search and begun its runs
        if step.search is not None and step.search not in done and not is_done(plan.step(step.search), plan.home):
            _check_not_begun(step, plan.step(step.search), plan.home)
    return done


def _check_not_begun(step: Job, search: Job, home: Path) -> None:
    """Raise `RunError` for a run with options of no search, or of fewer trials than its search is to have."""
    best = best_file(home, search.key)
    if not (home / step.key / "run.json").exists():
        return
    if not best.exists():
        raise RunError(
            f"{home / step.key} was made without a search. Give another --output, or leave --search out as it was."
        )
    raise RunError(
        f"{home / step.key} was begun with the best options of {read_json(best)['trials']} trials, and "
        f"{search.key} is to have {search.trials}. Give another --output, or `trials` as they were; or remove "
        f"{home / step.key}* and all other runs of that search, which are then made with its new best."
    )


def write_results(
    plan: JobGraph, status: Mapping[str, str], errors: Mapping[str, str], config: dict[str, Any], read: Files
) -> None:
    """Write what a plan found, failed and missing runs named as such; the manifest only if every step is done.

    status, errors: by step key; config: of the manifest, and of results.json, which is there without one too; read:
    what the grid reads of the user's own.
    """
    home, found = plan.home, records(plan, status, errors)
    write_json(home / "results.json", {"config": config, "records": found})
    declared = declaration(home)
    write_json(home / "summary.json", summarise(found, home, plan.grid.primary, declared))
    if all(status[step.key] == "done" for step in plan.steps):
        Run(home, STAGE, config, register_inputs(home, read)).finish(
            runs=len(plan.runs),
            steps={s.key: "best.json" if s.stage == "search" else "manifest.json" for s in plan.steps},
            read={name: [str(file) for file in files] for name, files in read.items()},
            protocol=declared,
        )


def failure_messages(plan: JobGraph) -> dict[str, str]:
    """Step key -> how it failed, for those whose story is kept, in whichever process: of a traceback its last line."""
    files = {step.key: plan.home / "failed" / f"{step.key}.txt" for step in plan.steps}
    texts = {key: file.read_text(encoding="utf-8").strip() for key, file in files.items() if file.exists()}
    return {k: t.splitlines()[-1] if t.startswith("Traceback") else t for k, t in texts.items() if t}
