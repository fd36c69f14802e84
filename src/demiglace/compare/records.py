"""The results of a comparison: one record per student run and teacher, and the files that hold them.

Records are read from manifests. This module also finds the jobs that are done and the errors of those that failed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demiglace.compare.directory import STAGE, Files, register_inputs
from demiglace.compare.grid_cells import StudentRun, row_options, teacher_options, teacher_path
from demiglace.compare.job_config import best_file
from demiglace.compare.job_graph import Job, JobGraph
from demiglace.compare.jobs import is_done
from demiglace.compare.protocol import declaration
from demiglace.errors import RunError
from demiglace.results.summary import summarize
from demiglace.runs.artefacts import EXPORT, measured_artefacts
from demiglace.runs.directory import Run, read_manifest
from demiglace.runs.files import read_json, write_json

Record = dict[str, Any]
_TRAINING_KEYS = ("parameters", "layers", "bytes", "rows", "precision", "finished", "machine", "versions")


def records(graph: JobGraph, status: Mapping[str, str], errors: Mapping[str, str]) -> list[Record]:
    """Return the records of all teachers and student runs of a graph.

    There is one record for the teacher of each task (with replicates: of each task and replicate), then one for each
    student run. The keys of a record, None where a value is not known:

    - task, student, method: labels; method_name; axes: option -> value; role: "student" or "teacher"
    - seed, unit: the seed, or the number of the replicate if unit is "replicate"
    - run, evaluation, export: directories relative to the comparison; the path of a finished teacher as given
    - status: "done", "failed", "skipped" or "missing"; error
    - unexported: run and error of an export that failed
    - in_domain: the set that the task is reported on, as `evaluate` names it; metric: its main metric
    - sets: name -> results of `evaluate`
    - parameters, layers, bytes, rows; seconds: of capture, train and evaluate
    - epoch_chosen_on_reported_rows: whether the best epoch was selected on the rows of in_domain
    - artefacts: of the export, each with format ("onnx"), precision ("fp32", "int8"), bytes, latency_ms by batch size
      agreement, the share of rows on which it predicts the same label as the run's model, and metrics, its scores
    - latency_ms: of the fp32 artefact
    - searched: the options that a search chose for a student run
    - finished, machine, versions, precision: of the training

    Args:
        graph: the jobs.
        status: key -> status of each job.
        errors: key -> error of each failed job.
    """
    collector = _RecordReader(graph, status, errors)
    has_replicates = graph.grid.unit == "replicate"
    teachers = dict.fromkeys((run.cell.task, run.seed if has_replicates else 0) for run in graph.runs)
    students = (collector.student(run) for run in graph.runs)
    return [*(collector.teacher(task, number) for task, number in teachers), *students]


class _RecordReader:
    def __init__(self, graph: JobGraph, status: Mapping[str, str], errors: Mapping[str, str]):
        self._graph, self._status, self._errors = graph, status, errors
        self._searches = {job.key: job.search for job in graph.jobs}

    def teacher(self, task: str, number: int) -> Record:
        """Return the record of a task's teacher; `number` is its replicate if the grid has replicates."""
        grid = self._graph.grid
        options, path = teacher_options(grid, task), teacher_path(grid, task, number)
        ready = options.get("run")
        keys = [] if ready else [path]
        names: Record = {"student": None, "method": "teacher", "method_name": "none", "axes": {}}
        head = {"task": task, **names, "role": "teacher", "run": str(ready or keys[0])}
        record = self._record(head, keys, f"{path}.evaluation", f"{path}.export")
        return record | {"seed": number if grid.unit == "replicate" else options.get("seed", 0)}

    def student(self, run: StudentRun) -> Record:
        """Return the record of a student run."""
        cell = run.cell
        names = {"student": cell.student, "method": cell.method, "method_name": cell.options["method"]}
        head = {"task": cell.task, **names, "seed": run.seed, "axes": dict(cell.axes), "role": "student"}
        head |= {"run": run.path, "searched": self._searched(run.path)}
        return self._record(head, [run.path], run.evaluation, run.export)

    def _searched(self, key: str) -> dict[str, Any]:
        search = self._searches.get(key)
        best = best_file(self._graph.root, search) if search else None
        return dict(read_json(best)["options"]) if best and best.exists() else {}

    def _record(self, head: Record, keys: list[str], evaluation: str, export: str) -> Record:
        status, error = self._job_status([*keys, evaluation])
        evaluated, exported = (_manifest(self._graph.root / key) for key in (evaluation, export))
        trained = _manifest(self._graph.root / head["run"] if keys else Path(head["run"]))  # or a finished teacher
        artefacts = [_artefact(a) for a in measured_artefacts(exported) if a["role"] == EXPORT]
        sets = evaluated.get("sets", {})
        in_domain = next(iter(sets), None)
        seconds = trained.get("seconds", {})
        unknown = 0.0 if trained else None  # a model without a run has no costs to report
        return head | {
            "unit": self._graph.grid.unit,
            "evaluation": evaluation if evaluated else None,
            "export": export if exported else None,
            "unexported": {"run": export, "error": self._errors[export]} if export in self._errors else None,
            "status": status,
            "error": error,
            "in_domain": in_domain,
            "metric": next(iter(sets[in_domain]["metrics"])) if in_domain else None,
            "sets": sets,
            **{name: trained.get(name) for name in _TRAINING_KEYS},
            "seconds": {name: seconds.get(name, unknown) for name in ("capture", "train", "evaluate")},
            "epoch_chosen_on_reported_rows": _chosen_on_reported(trained, row_options(self._graph.grid, head["task"])),
            "latency_ms": next((a["latency_ms"] for a in artefacts if a["precision"] == "fp32"), None),
            "artefacts": artefacts,
        }

    def _job_status(self, keys: list[str]) -> tuple[str, str | None]:
        """Return the status of several jobs together, and the first error.

        They are done if each is. Otherwise they are failed, skipped or missing, in this order of priority.
        """
        states = [self._status[key] for key in keys if key in self._status]
        if all(s == "done" for s in states):  # also a finished teacher that is not evaluated: it has no job
            return "done", None
        for key in keys:
            if key in self._errors:
                return "failed", self._errors[key]
        return ("skipped", _cause(keys, self._graph, self._errors)) if "skipped" in states else ("missing", None)


def _manifest(directory: Path) -> dict[str, Any]:
    return read_manifest(directory) if (directory / "manifest.json").exists() else {}


def _chosen_on_reported(trained: Mapping[str, Any], rows: Mapping[str, Any]) -> bool:
    """Return whether the best epoch was selected on the rows that the task is reported on.

    That is so if the task has no test rows and the run was validated on the task's validation rows.

    Args:
        trained: the manifest of the run; a finished teacher may have been trained on other files.
        rows: the task's options about rows.
    """
    config = trained.get("config", {})
    same = all(config.get(name) == rows.get(name) for name in ("data", "validation"))
    if not same or config.get("holdout_from_train") or rows.get("test"):
        return False
    return "rows" in trained and (rows.get("validation") is not None or "test" not in trained["rows"])


def _cause(keys: list[str], graph: JobGraph, errors: Mapping[str, str]) -> str:
    """Describe the failed job that skipped jobs depend on, directly or not."""
    depends_on = {job.key: job.depends_on for job in graph.jobs}
    pending = list(keys)
    while pending:
        key = pending.pop()
        if key in errors:
            return f"needs {key}, which failed"
        pending += depends_on.get(key, ())
    return "needs a run that failed"


def _artefact(artefact: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": artefact["format"],
        "precision": artefact["precision"],
        "bytes": artefact["bytes"],
        "latency_ms": artefact["latency_ms"],
        "agreement": artefact["label_agreement"],
        "metrics": artefact.get("metrics"),
    }


def jobs_done(graph: JobGraph) -> set[str]:
    """Return the keys of the jobs that are done.

    Raises:
        RunError: the directory of a job holds a run with other options, or one that used no or another search.
    """
    done = {job.key for job in graph.jobs if is_done(job, graph.root)}
    for job in graph.jobs:
        # Check again: meanwhile another process may have finished the search and begun its runs.
        if job.search is not None and job.search not in done and not is_done(graph.job(job.search), graph.root):
            _check_search_came_first(job, graph.job(job.search), graph.root)
    return done


def _check_search_came_first(job: Job, search: Job, root: Path) -> None:
    """Raise `RunError` if a run began without its search, or after fewer trials than the search now has."""
    best = best_file(root, search.key)
    if not (root / job.key / "run.json").exists():
        return
    if not best.exists():
        raise RunError(
            f"{root / job.key} was made without a search. Give another --output, or leave out --search as before."
        )
    raise RunError(
        f"{root / job.key} used the best options of {read_json(best)['trials']} trials, and {search.key} now has "
        f"{search.trials}. Give another --output, or the former `trials`. Or remove {root / job.key}* and all other "
        "runs of that search, which are then repeated with the new best options."
    )


def write_results(
    graph: JobGraph, status: Mapping[str, str], errors: Mapping[str, str], config: dict[str, Any], read: Files
) -> None:
    """Write results.json and summary.json; write the manifest only if every job is done.

    Args:
        graph: all jobs of the grid.
        status: key -> status of each job; failed and missing runs are recorded as such.
        errors: key -> error of each failed job.
        config: the identity of the comparison.
        read: the user's files that the grid reads.
    """
    root, rows = graph.root, records(graph, status, errors)
    write_json(root / "results.json", {"config": config, "records": rows})
    declared = declaration(root)
    write_json(root / "summary.json", summarize(rows, root, graph.grid.primary, declared))
    if all(status[job.key] == "done" for job in graph.jobs):
        Run(root, STAGE, config, register_inputs(root, read)).finish(
            runs=len(graph.runs),
            steps={job.key: "best.json" if job.stage == "search" else "manifest.json" for job in graph.jobs},
            read={name: [str(file) for file in files] for name, files in read.items()},
            protocol=declared,
        )


def failure_messages(graph: JobGraph) -> dict[str, str]:
    """Return key -> error of each job that failed in any process; of a traceback, the last line."""
    files = {job.key: graph.root / "failed" / f"{job.key}.txt" for job in graph.jobs}
    texts = {key: file.read_text(encoding="utf-8").strip() for key, file in files.items() if file.exists()}
    return {k: t.splitlines()[-1] if t.startswith("Traceback") else t for k, t in texts.items() if t}
