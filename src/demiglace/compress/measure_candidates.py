"""Measure size and latency of candidates on exported graphs with random weights: both depend on the shape alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from demiglace.compress.budget import Cost, latency_of
from demiglace.compress.candidates import Student, Vocabulary, config_of
from demiglace.compress.inputs import StudentTokens
from demiglace.console import say
from demiglace.distillation.static_student import static_config
from demiglace.export.base import Exporter
from demiglace.export.measure import measure
from demiglace.models.from_config import random_model
from demiglace.models.static import StaticForSequenceClassification
from demiglace.models.trimmed_model import trim_model
from demiglace.runs.files import read_json, write_json
from demiglace.tasks.base import RowTask

Costs = Mapping[str, Cost]  # precision -> cost of the student in it
_RANGE_ROWS = 8  # for the ranges of activations, which change neither size nor latency


@dataclass(frozen=True)
class CandidateMeter:
    """Measures each student once, and keeps the result in a file."""

    directory: Path  # of STUDENT.PRECISION.json for each measurement
    config: PreTrainedConfig  # of the teacher, with the head for the labels
    tokens: Mapping[Vocabulary, StudentTokens]  # of the students
    task: RowTask
    max_length: int  # tokens of a row
    exporter: Exporter
    precisions: tuple[str, ...]  # the exporter's first one included
    threads: int
    repeats: int

    def costs(self, student: Student) -> Costs:
        """Return the cost in each precision, from its file or by a measurement, which takes seconds.

        Raises `ModelError` if the architecture has no such student, or it cannot be exported.
        """
        files = {precision: self.directory / f"{student.key}.{precision}.json" for precision in self.precisions}
        if missing := [precision for precision, file in files.items() if not file.exists()]:
            for precision, cost in self._measure(student, missing).items():
                write_json(files[precision], asdict(cost))
        return {precision: Cost(**read_json(file)) for precision, file in files.items()}

    def _measure(self, student: Student, precisions: Sequence[str]) -> Costs:
        model, tokens = self._untrained(student), self.tokens[student.vocabulary]
        exporter, found = self.exporter.with_rows(tokens.rows[:_RANGE_ROWS], self.max_length), {}
        with TemporaryDirectory(prefix="demiglace-") as folder:
            directory = Path(folder)
            full = exporter.write(model, tokens.tokenizer, self.task, directory, exporter.precisions[0])
            for precision in precisions:
                artefact = full
                if precision != full.precision:
                    artefact = exporter.write(model, tokens.tokenizer, self.task, directory, precision, full)
                result = measure(artefact, {1: tokens.rows}, threads=self.threads, repeats=self.repeats)
                found[precision] = Cost(artefact.size, latency_of(result.latency_ms, self.threads))
        say(f"  {student.name}: " + ", ".join(f"{p} {in_words(cost)}" for p, cost in found.items()))
        return found

    def _untrained(self, student: Student) -> PreTrainedModel:
        """Return the student with random weights."""
        if student.is_static:
            tokenizer = self.tokens[student.vocabulary].tokenizer
            return StaticForSequenceClassification(static_config(self.config, tokenizer)).eval()
        model = _with_distinct_vectors(random_model(config_of(student, self.config), torch.device("cpu"), "eager"))
        vocabulary = self.tokens[student.vocabulary].vocabulary
        return model if vocabulary is None else trim_model(model, vocabulary, compare=False)


def _with_distinct_vectors(model: PreTrainedModel) -> PreTrainedModel:
    """Add noise to biases and norms: new ones are equal, and an ONNX file holds equal vectors once."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def in_words(cost: Cost) -> str:
    """Return ``7.1 MB, 0.45 ms``."""
    return f"{cost.bytes / 1e6:.3g} MB {cost.latency_ms:.3g} ms"
