"""Compress a model to a budget: measure candidates, train by halving, export, choose, and write what is shipped."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demiglace.compress.artefacts import ModelFile, Role, metrics_of, pytorch_cost, read_files
from demiglace.compress.budget import Budget
from demiglace.compress.candidates import Student, config_of, full_student, grid, static_student_shape
from demiglace.compress.choice import choose, drop, none_fits
from demiglace.compress.estimate import training_time
from demiglace.compress.halving import RUNS, SIGNALS, TimeLimit, Trained, Trainer, rung_epochs
from demiglace.compress.inputs import CompressionInputs, read_inputs
from demiglace.compress.measure_candidates import CandidateMeter, Costs
from demiglace.compress.search import MARGIN, Proposals, check_possible, fitting, propose
from demiglace.config.command_options import CompressConfig
from demiglace.config.options import flatten
from demiglace.console import say
from demiglace.data.rows.named_task_table import TASKS
from demiglace.errors import ModelError, RunError
from demiglace.export.base import Exporter, exporter_for
from demiglace.methods.registry import build_method
from demiglace.models.from_config import shape_of_config
from demiglace.models.loading import load_as_saved, load_tokenizer, resolve_model, save_model
from demiglace.models.static import StaticForSequenceClassification
from demiglace.report.compression.page import headline, render_compression
from demiglace.report.format import milliseconds, score, size
from demiglace.report.model_card import write_card
from demiglace.results.metric_table import metric_of
from demiglace.runs import integrity
from demiglace.runs.artefacts import EXPORT
from demiglace.runs.directory import Run, open_run, read_manifest, write_manifest
from demiglace.runs.files import read_json, write_atomically
from demiglace.runs.hub import push_to_hub
from demiglace.runs.result import Result, ResultTable

STAGE = "compress"
AUTO_METHOD, SIMPLE_METHOD = "rail-balanced", "vanilla-kd"
BASELINE = "none"
STATIC_EPOCHS = 10  # of the static student, which trains about as fast as its rows are read


def compress_model(config: CompressConfig) -> Result:
    """Run the steps of a compression that are not done; see `demiglace.commands.compress.compress`."""
    budget, exporter = Budget.of(config), exporter_for(config.to)
    exporter.require_packages()
    for precision in config.precisions or ():
        exporter.require_precision(precision)
    inputs = read_inputs(config)
    exporter.require_support(inputs.task)
    run = _open(config, budget, inputs)
    if run.complete and not config.dry_run:
        say(f"{run.path} is up to date.")
        return _result(run.path, config.push_to_hub)
    return _Compression(config, budget, exporter, inputs, run).result()


def _open(config: CompressConfig, budget: Budget, inputs: CompressionInputs) -> Run:
    """Open the run directory; a complete one of other limits is open again, and keeps what was measured and trained."""
    manifest = config.output / "manifest.json"
    if manifest.exists() and not config.dry_run:
        known = read_json(manifest)
        if known.get("stage") == STAGE and known.get("limits") != _limits(config, budget):
            say(f"{config.output} was compressed to {known.get('limits_in_words', 'other limits')}; its runs are used.")
            manifest.unlink()
    return open_run(config.output, STAGE, flatten(config, result_options_only=True), inputs.fingerprints(config))


def _limits(config: CompressConfig, budget: Budget) -> dict[str, Any]:
    """Return what a complete directory was made for and its identity does not hold."""
    precisions = None if config.precisions is None else list(config.precisions)
    return budget.to_json() | {"max_hours": config.max_hours, "precisions": precisions}


@dataclass
class _Compression:
    """The state of a compression."""

    config: CompressConfig
    budget: Budget
    exporter: Exporter
    inputs: CompressionInputs
    run: Run

    def result(self) -> Result:
        """Run all steps."""
        proposals, whole = self._propose()
        if self.config.dry_run:
            return self._listing(proposals, whole)
        trainer = self._trainer()
        teacher = self._teacher(trainer)
        files = self._export(trainer, teacher, "teacher", "teacher", RUNS + "/teacher", "", self._precisions(whole))
        reference, rungs = files[0], list[list[Trained]]()
        best = choose(files, reference, self.inputs.metric, self.budget)
        files += self._static(trainer, teacher, proposals)
        if best is None:
            files += self._students(trainer, teacher, proposals, rungs)
            best = choose(files, reference, self.inputs.metric, self.budget)
        else:
            say(
                f"The model fits as it is in {best.precision}, so no student is trained; give lower limits to train "
                "smaller ones."
            )
            best = choose(files, reference, self.inputs.metric, self.budget)
        return self._finish(best, files, reference, proposals, rungs, teacher)

    def _propose(self) -> tuple[Proposals, Costs]:
        """Measure candidates; return those to train and the costs of the full model."""
        inputs, config = self.inputs, self.config
        wanted = config.precisions or tuple(p for p in self.exporter.precisions if p != "fp16")
        tokens = inputs.tokens(config)
        students = [v for v in tokens if config.vocabulary in ("auto", v)]
        meter = CandidateMeter(
            directory=self.run.path / "candidates",
            config=inputs.config,
            tokens=tokens,
            task=inputs.task,
            exporter=self.exporter,
            precisions=tuple(dict.fromkeys((self.exporter.precisions[0], *wanted))),
            threads=config.threads,
            repeats=config.repeats,
        )
        say("size and latency of candidates, on exported graphs with random weights:")
        whole = meter.costs(full_student(inputs.config))
        candidates = grid(inputs.config, config.layers, students, narrow=config.width == "auto")
        if inputs.task.auto_class == StaticForSequenceClassification.auto_class:
            candidates.append(static_student_shape(students))
        found = propose(candidates, meter.costs, self.budget, config.students)
        check_possible({full_student(inputs.config): whole, **found.measured}, self.budget)
        return found, whole

    def _precisions(self, costs: Costs) -> tuple[str, ...]:
        """Return the precisions to export a model in: the first one, and those that fit, of candidates measured."""
        return tuple(dict.fromkeys((self.exporter.precisions[0], *fitting(costs, self.budget))))

    def _trainer(self) -> Trainer:
        config, source = self.config, flatten(self.config.source)
        shared = {name: value for name, value in source.items() if value not in (None, [], "")}
        shared |= {"max_length": self.inputs.max_length, "problem": self.inputs.task.name, "score_test": False}
        shared |= {"learning_rate": config.learning_rate, "batch_size": config.batch_size, "seed": config.seed}
        if config.location.data_dir is not None:
            shared["data_dir"] = str(config.location.data_dir)
        if config.allow_pickle:
            shared["allow_pickle"] = True
        vocabulary = {name: getattr(config, name) for name in ("vocabulary_corpus", "vocabulary_size")}
        return Trainer(
            config,
            self.run.path,
            self.inputs.dataset.name,
            self.inputs.metric,
            shared,
            {name: value for name, value in vocabulary.items() if value},
        )

    def _teacher(self, trainer: Trainer) -> str:
        """Return the teacher's directory: the given classifier, or the given encoder after fine-tuning."""
        if self.inputs.is_classifier:
            return self.config.model
        shared = {k: v for k, v in trainer.shared.items() if k != "unlabelled"}
        options = {"model": self.config.model, "epochs": self.config.teacher_epochs}
        job = trainer.job(f"{RUNS}/teacher", "finetune", **shared | options)
        trainer.train([job])
        return str(self.run.path / job.key)

    def _static(self, trainer: Trainer, teacher: str, proposals: Proposals) -> list[ModelFile]:
        """Train the static student, which is cheap, and return its exported files; none for words with labels."""
        student = next((s for s in proposals.measured if s.is_static), None)
        if student is None:
            return []
        say("static student: token vectors and a linear layer, the baseline of every compression")
        key, epochs = f"{RUNS}/{student.key}/distillation", max(STATIC_EPOCHS, self.config.epochs)
        trained = {"epochs": epochs, "learning_rate": None}  # the usual one of such students
        trainer.train([trainer.distillation(key, student.options, teacher, SIMPLE_METHOD, **trained)])
        precisions = self._precisions(proposals.measured[student])
        path = str(self.run.path / key)
        return self._export(trainer, path, student.name, "static", f"{RUNS}/{student.key}", SIMPLE_METHOD, precisions)

    def _students(
        self, trainer: Trainer, teacher: str, proposals: Proposals, rungs: list[list[Trained]]
    ) -> list[ModelFile]:
        """Train students and the baseline of the best one; return the exported files of the last students.

        rungs: receives the students of each rung.
        """
        if not proposals.students:
            return []
        limit = TimeLimit(None if self.config.max_hours is None else 3600 * self.config.max_hours)
        finalists, found = trainer.halve(proposals.students, teacher, self._method, limit)
        rungs += found
        files = []
        for t in finalists:
            precisions = self._precisions(proposals.measured[t.student])
            files += self._export(
                trainer, str(self.run.path / t.key), t.student.name, "student", f"{RUNS}/{t.student.key}", t.method,
                precisions,
            )  # fmt: skip
        best = finalists[0]
        if best.method != BASELINE and limit.allows(self.config.epochs * (best.student.layers + 1)):
            key = self._baseline(trainer, teacher, best.student)
            files += self._export(
                trainer,
                str(self.run.path / key),
                f"{best.student.name}, no teacher",
                "baseline",
                f"{RUNS}/{best.student.key}/baseline",
                BASELINE,
                self._precisions(proposals.measured[best.student]),
            )
        return files

    def _baseline(self, trainer: Trainer, teacher: str, student: Student) -> str:
        """Train a student without its teacher for as many steps and with the same schedule; return its key."""
        rows = {k: v for k, v in trainer.shared.items() if k != "unlabelled"}
        trainer = replace(trainer, shared=rows)
        start: Mapping[str, Any] = student.options
        say(f"baseline: {student.name} without the teacher, as many steps")
        for number, epochs in enumerate(rung_epochs(self.config.students, self.config.epochs), 1):
            key = f"{RUNS}/{student.key}/baseline/rung-{number}"
            options = {"epochs": epochs}
            if self.config.source.unlabelled:  # which the baseline cannot learn from
                rows_of = read_manifest(self.run.path / RUNS / student.key / f"rung-{number}")["rows"]
                steps = -(-(rows_of["train"] + rows_of.get("unlabelled", 0)) // self.config.batch_size)
                options = {"max_steps": steps * epochs}
            trainer.train([trainer.distillation(key, start, teacher, BASELINE, **options)])
            start = {"student": str(self.run.path / key)}  # whose tokens are known
        return key

    def _method(self, student: Student) -> str:
        """Return the method for a student: the given one, or the default where the student has layers to match."""
        if self.config.method != "auto":
            return self.config.method
        teacher = shape_of_config(self.inputs.config)
        try:
            build_method(AUTO_METHOD, {}).requests(shape_of_config(config_of(student, self.inputs.config)), teacher, 0)
        except ModelError:
            return SIMPLE_METHOD
        return AUTO_METHOD

    def _export(
        self,
        trainer: Trainer,
        path: str,
        name: str,
        role: Role,
        home: str,
        method: str,
        precisions: Sequence[str],
    ) -> list[ModelFile]:
        """Export a model in these precisions; return its files with their scores on the validation rows.

        home: key of the folder of its exports. The exports run on this machine, whose latency counts.
        """
        key = f"{home}/export-{'-'.join(precisions)}"
        rows = {} if Path(path, "manifest.json").exists() else {"data": _rows_to_check(self.config)}
        options = {"to": self.config.to, "quantize": list(precisions[1:]), "score_rows": 0} | rows
        options |= {k: v for k, v in trainer.shared.items() if k in ("data_dir", "allow_pickle", "max_length")}
        options |= {"threads": self.config.threads, "repeats": self.config.repeats, "model": path}
        replace(trainer, config=replace(self.config, engine="local")).train([trainer.job(key, "export", **options)])
        files = read_files(self.run.path / key, path, name, role, method)
        return [replace(f, validation=self._metrics(f, "validation")) for f in files]

    def _metrics(self, file: ModelFile, split: str) -> dict[str, float]:
        return metrics_of(file, split, self.inputs, self.config.label_map)

    def _finish(
        self,
        best: ModelFile | None,
        files: list[ModelFile],
        reference: ModelFile,
        proposals: Proposals,
        rungs: Sequence[Sequence[Trained]],
        teacher: str,
    ) -> Result:
        """Score the chosen file and what it is compared with on the test rows, and write the directory."""
        if best is not None and "test" in self.inputs.dataset.splits:
            files = [
                replace(f, test=self._metrics(f, "test")) if f in _compared(best, reference, files) else f
                for f in files
            ]
            best, reference = (next(f for f in files if f.file == old.file) for old in (best, reference))
        facts = self._facts(best, files, reference, proposals, rungs)
        if best is None:
            message = none_fits(files, reference, self.inputs.metric, self.budget)
            self._write_page(facts | {"problem_in_words": message})
            raise RunError(f"{message} {self.run.path / 'report.html'} shows all of them.")
        self._ship(best)
        self.run.finish(lambda manifest: self._describe(manifest, best), **facts)
        shutil.rmtree(self.run.path / SIGNALS, ignore_errors=True)
        return _result(self.run.path, self.config.push_to_hub)

    def _facts(
        self,
        best: ModelFile | None,
        files: Sequence[ModelFile],
        reference: ModelFile,
        proposals: Proposals,
        rungs: Sequence[Sequence[Trained]],
    ) -> dict[str, Any]:
        metric = self.inputs.metric
        original = pytorch_cost(Path(reference.export))
        return {
            "task": self.inputs.dataset.name,
            "problem": self.inputs.task.name,
            "metric": metric,
            "rows": {name: len(split) for name, split in self.inputs.dataset.splits.items()},
            "max_length": self.inputs.max_length,
            "limits": _limits(self.config, self.budget),
            "limits_in_words": self.budget.in_words(),
            "chosen": None if best is None else best.to_json(),
            "vocabulary": None if best is None else _vocabulary_of(best),
            "drop": None if best is None else round(drop(best, reference, metric), 4),
            "teacher": reference.to_json(),
            "pytorch": None if original is None else {"bytes": original.bytes, "latency_ms": original.latency_ms},
            "model_files": [f.to_json() for f in files],
            "candidates": [
                {
                    "name": s.name,
                    "options": s.options,
                    "trained": s.is_static or s in proposals.students,
                    "costs": {
                        p: {"bytes": c.bytes, "latency_ms": c.latency_ms, "fits": self.budget.admits(c)}
                        for p, c in costs.items()
                    },
                }
                for s, costs in sorted(proposals.measured.items(), key=lambda item: item[0].capacity, reverse=True)
            ],
            "rungs": [
                [{"name": t.student.name, "method": t.method, "run": t.key, "quality": t.quality} for t in rung]
                for rung in rungs
            ],
            "rung_epochs": rung_epochs(self.config.students, self.config.epochs),
        }

    def _describe(self, manifest: Mapping[str, Any], best: ModelFile) -> None:
        """Write the page and the card."""
        self._write_page(manifest)
        write_card(self.run.path, best.run, exported=read_manifest(best.export))

    def _ship(self, best: ModelFile) -> None:
        """Copy the chosen model and the chosen file, each to its place at once."""
        path, directory = resolve_model(best.run), self.run.path / "model"
        draft = directory.with_name("model.part")
        shutil.rmtree(draft, ignore_errors=True)
        if Path(path).name == "model" and (Path(path).parent / "manifest.json").exists():
            shutil.copytree(path, draft)
        else:  # the given model, which may be a name of the hub, or lie beside other files
            save_model(load_as_saved(path, allow_pickle=self.config.allow_pickle), draft)
            load_tokenizer(path).save_pretrained(draft)
        shutil.rmtree(directory, ignore_errors=True)
        draft.rename(directory)
        ship_export(best, self.run.path / self.config.to)

    def _listing(self, proposals: Proposals, whole: Costs) -> Result:
        """Return the measured candidates and the time that training them takes, for --dry-run."""
        students = {full_student(self.inputs.config): whole} | dict(proposals.measured)
        rows = [
            (
                f"{s.name} (the model)" if costs is whole else s.name,
                precision,
                size(cost.bytes),
                milliseconds(cost.latency_ms),
                "yes" if self.budget.admits(cost, MARGIN) else "no",
                "" if costs is whole else "yes" if s in proposals.students else "no",
            )
            for s, costs in sorted(students.items(), key=lambda item: item[0].capacity, reverse=True)
            for precision, cost in costs.items()
        ]
        columns = ("candidate", "precision", "size", "latency", "fits", "is trained")
        text = "" if fitting(whole, self.budget) else training_time(self.config, self.inputs, proposals.students)
        table = ResultTable(f"Candidates for {self.budget.in_words()}", columns, tuple(rows))
        return Result(None, {"students": [s.name for s in proposals.students]}, (table,), text)

    def _write_page(self, manifest: Mapping[str, Any]) -> None:
        html = render_compression(manifest, self.run.path)
        write_atomically(self.run.path / "report.html", html.encode("utf-8", errors="replace"))
        say(f"wrote {self.run.path / 'report.html'}")


def _rows_to_check(config: CompressConfig) -> str:
    """Return what `demiglace export --data` takes for rows of the task, for a model that no run has trained."""
    source = config.source
    return f"{source.data}:validation" if source.data in TASKS else source.validation or source.data


def _compared(best: ModelFile, reference: ModelFile, files: Sequence[ModelFile]) -> list[ModelFile]:
    """Return the files that are scored on the test rows: the chosen one, the teacher, and the baselines."""
    compared = [best, reference]
    for role in ("baseline", "static"):
        same_role = sorted((f for f in files if f.role == role), key=lambda f: f.precision != best.precision)
        compared += same_role[:1]
    return compared


def _vocabulary_of(file: ModelFile) -> dict[str, Any] | None:
    """Return how many tokens a file's model has of its teacher's, and what that changes; None for all of them."""
    path = Path(file.run)
    return read_manifest(path).get("vocabulary") if (path / "manifest.json").exists() else None


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


def _result(path: Path, repository: str | None) -> Result:
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
    text = "\n".join([headline(found), *(f"{what + ':':<30}{file}" for what, file in where.items())])
    return Result(path, metrics, (table,), text)
