"""Compress a model to a budget: measure candidates, train by halving, export, choose, and write what is shipped."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demiglace.compress.artefacts import ModelFile, Role, metrics_of, read_files
from demiglace.compress.budget import Budget
from demiglace.compress.candidates import Student, config_of, full_student, grid, static_student_shape
from demiglace.compress.choice import choose, none_fits
from demiglace.compress.estimate import training_time
from demiglace.compress.halving import RUNS, SIGNALS, TimeLimit, Trained, Trainer, rung_epochs, rung_seed
from demiglace.compress.inputs import CompressionInputs, read_inputs
from demiglace.compress.measure_candidates import CandidateMeter, Costs
from demiglace.compress.outputs import Outcome, facts, limits, listing, result_of, ship
from demiglace.compress.search import Proposals, check_possible, fitting, propose
from demiglace.config.command_options import CompressConfig
from demiglace.config.options import flatten
from demiglace.console import notice, say
from demiglace.errors import ModelError, RunError
from demiglace.export.base import Exporter, exporter_for
from demiglace.methods.registry import build_method
from demiglace.models.from_config import shape_of_config
from demiglace.models.static import StaticForSequenceClassification
from demiglace.report.compression.page import render_compression
from demiglace.report.model_card import write_card
from demiglace.runs.directory import Run, open_run, read_manifest
from demiglace.runs.files import read_json, write_atomically
from demiglace.runs.result import Result

STAGE = "compress"
AUTO_METHOD, SIMPLE_METHOD = "rail-balanced", "vanilla-kd"
BASELINE = "none"
STATIC_EPOCHS = 20  # of the static student, which trains about as fast as its rows are read
STATIC_LEARNING_RATE = 3e-3  # less than that of `distill`, for more epochs: docs/static-student.md


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
        return result_of(run.path, config.push_to_hub)
    return _Compression(config, budget, exporter, inputs, run).result()


def _open(config: CompressConfig, budget: Budget, inputs: CompressionInputs) -> Run:
    """Open the run directory; a complete one of other limits is open again, and keeps what was measured and trained."""
    manifest = config.output / "manifest.json"
    if manifest.exists() and not config.dry_run:
        known = read_json(manifest)
        if known.get("stage") == STAGE and known.get("limits") != limits(config, budget):
            say(f"{config.output} was compressed to {known.get('limits_in_words', 'other limits')}; its runs are used.")
            manifest.unlink()
    return open_run(config.output, STAGE, flatten(config, result_options_only=True), inputs.fingerprints(config))


@dataclass(frozen=True)
class _TrainedModel:
    """A model to export."""

    path: str  # run directory, or the model that was given
    name: str  # in tables
    role: Role
    method: str  # with which it was trained
    key: str  # folder of its exports, below the folder of runs


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
        proposals, costs = self._propose()
        model = full_student(self.inputs.config)
        if self.config.dry_run:
            fits = bool(fitting(costs, self.budget))
            text = "" if fits else training_time(self.config, self.inputs, proposals.students)
            return listing(self.budget, proposals, (model, costs), text)
        trainer = self._trainer()
        teacher = self._teacher(trainer)
        files = self._export(trainer, _TrainedModel(teacher, "teacher", "teacher", "", "teacher"), costs)
        fitting_file = self._best(files)
        rungs: list[list[Trained]] = []
        students: list[ModelFile] = []
        if fitting_file is None:
            students = self._students(trainer, teacher, proposals, rungs)
        else:
            say(
                f"The model fits as it is in {fitting_file.precision}, so no student is trained; give lower limits to "
                "train smaller ones."
            )
        files += self._static(trainer, teacher, proposals) + students  # after those whose teacher's pass has its logits
        return self._finish(Outcome(files, self._best(files), proposals, rungs))

    def _best(self, files: Sequence[ModelFile]) -> ModelFile | None:
        """Return the file to ship; the first one is the teacher's."""
        return choose(files, files[0], self.inputs.metric, self.budget)

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
            max_length=inputs.max_length,
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
        trained = {"epochs": epochs, "learning_rate": STATIC_LEARNING_RATE}
        trainer.train([trainer.distillation(key, student.options, teacher, SIMPLE_METHOD, **trained)])
        path = str(self.run.path / key)
        model = _TrainedModel(path, student.name, "static", SIMPLE_METHOD, student.key)
        return self._export(trainer, model, proposals.measured[student])

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
        trained = [
            _TrainedModel(str(self.run.path / t.key), t.student.name, "student", t.method, t.student.key)
            for t in finalists
        ]
        shapes = [t.student for t in finalists]
        best = finalists[0]
        if not limit.allows(self.config.epochs * (best.student.layers + 1)):
            notice(
                "time limit",
                f"--max-hours {self.config.max_hours:g} is used up: the baseline, {best.student.name} without the "
                "teacher, is not trained.",
            )
        elif best.method != BASELINE:
            path = str(self.run.path / self._baseline(trainer, teacher, best.student))
            name, key = f"{best.student.name}, no teacher", f"{best.student.key}/baseline"
            trained.append(_TrainedModel(path, name, "baseline", BASELINE, key))
            shapes.append(best.student)
        files = [self._export(trainer, m, proposals.measured[s]) for m, s in zip(trained, shapes, strict=True)]
        return [f for each in files for f in each]

    def _baseline(self, trainer: Trainer, teacher: str, student: Student) -> str:
        """Train a student without its teacher for as many steps and with the same schedule; return its key."""
        rows = {k: v for k, v in trainer.shared.items() if k != "unlabelled"}
        if self.config.source.unlabelled and student.vocabulary == "trim":  # the same tokens
            texts = self.inputs.write_unlabelled(self.config, self.run.path / RUNS / "unlabelled.jsonl")
            corpus = [*(self.config.vocabulary_corpus or ()), texts]
            trainer = replace(trainer, trimming={**trainer.trimming, "vocabulary_corpus": corpus})
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
            options["seed"] = rung_seed(self.config.seed, number)
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

    def _export(self, trainer: Trainer, model: _TrainedModel, costs: Costs) -> list[ModelFile]:
        """Export a model in the precisions that fit; return its files with their scores on the validation rows.

        costs: of its shape. The exports run on this machine, whose latency counts.
        """
        full = self.exporter.precisions[0]  # from which the others are made
        precisions = tuple(dict.fromkeys((full, *fitting(costs, self.budget))))
        key = f"{RUNS}/{model.key}/export-{'-'.join(precisions)}"
        path = Path(model.path)
        file = self.run.path / RUNS / "validation.jsonl"  # of the check, for a model that no run has trained
        rows = {} if path.is_relative_to(self.run.path) else {"data": self.inputs.write_validation(file)}
        options = {"to": self.config.to, "quantize": list(precisions[1:]), "score_rows": 0} | rows
        options |= {k: v for k, v in trainer.shared.items() if k in ("data_dir", "allow_pickle", "max_length")}
        options |= {"threads": self.config.threads, "repeats": self.config.repeats, "model": model.path}
        local = replace(trainer, config=replace(self.config, engine="local"))
        local.train([local.job(key, "export", **options)])
        files = read_files(self.run.path / key, model.path, model.name, model.role, model.method)
        return [replace(f, validation=self._metrics(f, "validation")) for f in files]

    def _metrics(self, file: ModelFile, split: str) -> dict[str, float]:
        return metrics_of(file, split, self.inputs, self.config.label_map)

    def _finish(self, found: Outcome) -> Result:
        """Score the chosen file and what it is compared with on the test rows, and write the directory."""
        if "test" in self.inputs.dataset.splits:
            compared = found.compared
            files = [replace(f, test=self._metrics(f, "test")) if f in compared else f for f in found.files]
            chosen = found.best and next(f for f in files if f.file == found.best.file)
            found = replace(found, files=files, best=chosen)
        fields = facts(self.config, self.budget, self.inputs, found)
        best, root = found.best, self.run.path
        if best is None:
            message = none_fits(found.files, found.teacher, self.inputs.metric, self.budget)
            self._write_page(fields | {"problem_in_words": message})
            raise RunError(f"{message} {root / 'report.html'} shows all of them.")
        ship(best, root, to=self.config.to, allow_pickle=self.config.allow_pickle)
        self.run.finish(lambda manifest: self._describe(manifest, best), **fields)
        shutil.rmtree(root / SIGNALS, ignore_errors=True)
        return result_of(root, self.config.push_to_hub)

    def _describe(self, manifest: Mapping[str, Any], best: ModelFile) -> None:
        """Write the page and the card."""
        self._write_page(manifest)
        write_card(self.run.path, best.run, exported=read_manifest(best.export))

    def _write_page(self, manifest: Mapping[str, Any]) -> None:
        html = render_compression(manifest, self.run.path)
        write_atomically(self.run.path / "report.html", html.encode("utf-8", errors="replace"))
        say(f"wrote {self.run.path / 'report.html'}")
