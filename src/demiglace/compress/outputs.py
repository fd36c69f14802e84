"""What a compression writes and prints: the shipped files, the fields of its manifest, the tables."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demiglace.compress.artefacts import ModelFile, pytorch_cost
from demiglace.compress.budget import Budget
from demiglace.compress.candidates import Student
from demiglace.compress.choice import drop
from demiglace.compress.halving import Trained, rung_epochs
from demiglace.compress.inputs import CompressionInputs
from demiglace.compress.measure_candidates import Costs
from demiglace.compress.search import MARGIN, Proposals
from demiglace.config.command_options import CompressConfig
from demiglace.models.loading import load_as_saved, load_tokenizer, resolve_model, save_model
from demiglace.report.compression.page import headline, split_of, static_note
from demiglace.report.format import milliseconds, score, size
from demiglace.results.metric_table import metric_of
from demiglace.runs import integrity
from demiglace.runs.artefacts import EXPORT
from demiglace.runs.directory import read_manifest, write_manifest
from demiglace.runs.hub import push_to_hub
from demiglace.runs.result import Result, ResultTable


@dataclass(frozen=True)
class Outcome:
    """What a compression found."""

    files: Sequence[ModelFile]  # all that were exported; the first one is the teacher's in full precision
    best: ModelFile | None  # the one to ship; None if none is within the limits
    proposals: Proposals
    rungs: Sequence[Sequence[Trained]]  # the students after each rung

    @property
    def teacher(self) -> ModelFile:
        """Return the file that all others are compared with."""
        return self.files[0]

    @property
    def compared(self) -> list[ModelFile]:
        """Return the files that are scored on the test rows: the chosen one, the teacher's, and the baselines."""
        if self.best is None:
            return []
        found = [self.best, self.teacher]
        for role in ("baseline", "static"):
            precision = self.best.precision
            same_role = sorted((f for f in self.files if f.role == role), key=lambda f: f.precision != precision)
            found += same_role[:1]
        return found


def limits(config: CompressConfig, budget: Budget) -> dict[str, Any]:
    """Return what a complete directory was made for and its identity does not hold."""
    precisions = None if config.precisions is None else list(config.precisions)
    return budget.to_json() | {"max_hours": config.max_hours, "precisions": precisions}


def facts(config: CompressConfig, budget: Budget, inputs: CompressionInputs, found: Outcome) -> dict[str, Any]:
    """Return the fields of the manifest."""
    best, reference, metric = found.best, found.teacher, inputs.metric
    original = pytorch_cost(Path(reference.export))
    return {
        "task": inputs.dataset.name,
        "problem": inputs.task.name,
        "metric": metric,
        "rows": {name: len(split) for name, split in inputs.dataset.splits.items()},
        "max_length": inputs.max_length,
        "limits": limits(config, budget),
        "limits_in_words": budget.in_words(),
        "chosen": None if best is None else best.to_json(),
        "vocabulary": None if best is None else _vocabulary_of(best),
        "drop": None if best is None else round(drop(best, reference, metric), 4),
        "teacher": reference.to_json(),
        "pytorch": None if original is None else {"bytes": original.bytes, "latency_ms": original.latency_ms},
        "model_files": [f.to_json() for f in found.files],
        "candidates": [
            {
                "name": s.name,
                "options": s.options,
                "trained": s.is_static or s in found.proposals.students,
                "costs": {
                    p: {"bytes": c.bytes, "latency_ms": c.latency_ms, "fits": budget.admits(c)}
                    for p, c in costs.items()
                },
            }
            for s, costs in _by_capacity(found.proposals.measured)
        ],
        "rungs": [
            [{"name": t.student.name, "method": t.method, "run": t.key, "quality": t.quality} for t in rung]
            for rung in found.rungs
        ],
        "rung_epochs": rung_epochs(config.students, config.epochs),
    }


def _by_capacity(measured: Mapping[Student, Costs]) -> list[tuple[Student, Costs]]:
    return sorted(measured.items(), key=lambda item: item[0].capacity, reverse=True)


def _vocabulary_of(file: ModelFile) -> dict[str, Any] | None:
    """Return how many tokens a file's model has of its teacher's, and what that changes; None for all of them."""
    path = Path(file.run)
    return read_manifest(path).get("vocabulary") if (path / "manifest.json").exists() else None


def ship(file: ModelFile, root: Path, *, to: str, allow_pickle: bool = False) -> None:
    """Copy the chosen model to HOME/model and the chosen file to HOME/TO, each at once."""
    path, directory = resolve_model(file.run), root / "model"
    draft = directory.with_name("model.part")
    shutil.rmtree(draft, ignore_errors=True)
    if Path(path).is_relative_to(root):
        shutil.copytree(path, draft)
    else:  # the given model, which may be a name of the hub, or lie beside other files
        save_model(load_as_saved(path, allow_pickle=allow_pickle), draft)
        load_tokenizer(path).save_pretrained(draft)
    shutil.rmtree(directory, ignore_errors=True)
    draft.rename(directory)
    ship_export(file, root / to)


def ship_export(file: ModelFile, directory: Path) -> None:
    """Copy an exported file, and what its export directory holds beside the models, to a directory.

    The copy is an export directory with that file alone, which `demiglace evaluate` reads.
    """
    source = Path(file.export)
    manifest = read_manifest(source)
    name = Path(file.file).relative_to(source).as_posix()
    kept = [a for a in manifest["artefacts"] if name in a["files"] or a["role"] != EXPORT]
    left_out = {Path(other).name for a in manifest["artefacts"] if a not in kept for other in a["files"]}
    draft = directory.with_name(directory.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    ignored = (".lock", "manifest.json", "*.scores.json", *left_out)
    shutil.copytree(source, draft, ignore=shutil.ignore_patterns(*ignored))
    entries = [a | {"file": str(directory / name)} if a["role"] == EXPORT else a for a in kept]
    write_manifest(draft, manifest | {"artefacts": entries, "files": integrity.record(draft)})
    shutil.rmtree(directory, ignore_errors=True)
    draft.rename(directory)


def listing(budget: Budget, proposals: Proposals, model: tuple[Student, Costs], text: str) -> Result:
    """Return the measured candidates, the model itself among them, for --dry-run; text: further lines."""
    full, _ = model
    rows = [
        (
            f"{s.name} (the model)" if s == full else s.name,
            precision,
            size(cost.bytes),
            milliseconds(cost.latency_ms),
            "yes" if budget.admits(cost, MARGIN) else "no",
            "" if s == full else "yes" if s.is_static or s in proposals.students else "no",
        )
        for s, costs in _by_capacity({full: model[1], **proposals.measured})
        for precision, cost in costs.items()
    ]
    columns = ("candidate", "precision", "size", "latency", "fits", "is trained")
    table = ResultTable(f"Candidates for {budget.in_words()}", columns, tuple(rows))
    return Result(None, {"students": [s.name for s in proposals.students]}, (table,), text)


def result_of(path: Path, repository: str | None) -> Result:
    """Return the chosen file's numbers, a table of it and what it is compared with, and where the files are."""
    push_to_hub(path / "model", repository)
    found = read_manifest(path)
    metric, chosen = found["metric"], ModelFile.from_json(found["chosen"])
    files = [ModelFile.from_json(f) for f in found["model_files"]]
    reference = ModelFile.from_json(found["teacher"])
    shown = [reference, *(f for f in files if f.file != reference.file)]
    title = metric_of(metric).title
    table = ResultTable(
        f"Files within {found['limits_in_words']}, and what they are compared with",
        ("", "size", "latency", f"{title}, validation", f"{title}, test", ""),
        tuple(
            (
                f.name,
                size(f.cost.bytes),
                milliseconds(f.cost.latency_ms),
                score(f.validation[metric], metric),
                score(f.test.get(metric), metric),
                "chosen" if f.file == chosen.file else "",
            )
            for f in shown
        ),
    )
    where = {
        "the model, for PyTorch": path / "model",
        "the file to ship": path / found["config"]["to"] / Path(chosen.file).relative_to(chosen.export),
        "the report, for the browser": path / "report.html",
    }
    metrics = {
        "model": chosen.model,
        "precision": chosen.precision,
        "bytes": chosen.cost.bytes,
        "latency_ms": chosen.cost.latency_ms,
        "validation": dict(chosen.validation),
        "test": dict(chosen.test),
    }
    notes = static_note(found, split_of(found))
    text = "\n".join([headline(found), *notes, *(f"{what + ':':<30}{file}" for what, file in where.items())])
    return Result(path, metrics, (table,), text)
