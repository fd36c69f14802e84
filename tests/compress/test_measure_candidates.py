"""The measurement of candidates: untrained students are exported as trained ones are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demiglace.compress import measure_candidates
from demiglace.compress.budget import Cost
from demiglace.compress.candidates import Student
from demiglace.compress.inputs import StudentTokens
from demiglace.compress.measure_candidates import CandidateMeter
from demiglace.export.base import Artefact, Exporter, Inputs
from demiglace.export.measure import Measurement
from demiglace.tasks.classification import CLASSIFICATION
from factories import tiny_config, tiny_tokenizer


@dataclass(frozen=True)
class WithRanges(Exporter):
    """A format whose int8 measures ranges of activations on rows, as OpenVINO's."""

    rows: Sequence[Inputs] = ()
    name, title, precisions = "ranges", "Ranges", ("fp32", "int8")

    def with_rows(self, rows: Sequence[Inputs], max_length: int | None) -> "WithRanges":
        assert max_length == 32
        return replace(self, rows=rows)

    def unsupported(self, task: Any) -> None:
        return None

    def open(self, artefact: Artefact, threads: int) -> Any:
        raise NotImplementedError

    def write(
        self, model: Any, tokenizer: Any, task: Any, directory: Path, precision: str = "fp32", full: Any = None
    ) -> Artefact:
        if precision == "int8" and not self.rows:
            raise ValueError("no rows to measure ranges on")
        (directory / precision).write_bytes(bytes(len(self.rows)))
        return Artefact(self.name, precision, str(directory / precision), (directory / precision,))


def test_a_quantiser_gets_rows_for_the_ranges_of_activations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"1": {"p50": 1.0, "p95": 1.0}}
    monkeypatch.setattr(measure_candidates, "measure", lambda *_, **__: Measurement(times, 1.0))
    rows: list[Inputs] = [{"input_ids": np.array([[2, i, 3]])} for i in range(20)]
    tokens = {"full": StudentTokens(tiny_tokenizer(), rows)}
    meter = CandidateMeter(
        tmp_path, tiny_config("bert"), tokens, CLASSIFICATION, 32, WithRanges(), ("fp32", "int8"), 1, 1
    )
    assert meter.costs(Student(2)) == {"fp32": Cost(8, 1.0), "int8": Cost(8, 1.0)}


def test_untrained_students_have_no_equal_vectors_which_a_file_would_hold_once(tmp_path: Path) -> None:
    tokens = {"full": StudentTokens(tiny_tokenizer(), [])}
    meter = CandidateMeter(tmp_path, tiny_config("bert"), tokens, CLASSIFICATION, 32, WithRanges(), ("fp32",), 1, 1)
    vectors = [tuple(p.tolist()) for p in meter._untrained(Student(2)).parameters() if p.ndim == 1]
    assert len(set(vectors)) == len(vectors) > 10
