"""What a compression hands to its steps: check rows and texts in files that every command reads."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demiglace.compress import run as compress_run
from demiglace.compress.candidates import Student
from demiglace.compress.halving import Trainer
from demiglace.compress.inputs import CompressionInputs
from demiglace.config.command_options import CompressConfig
from demiglace.config.data import DataLocation, ReadConfig
from demiglace.config.options import build
from demiglace.data.rows.evaluation_sets import texts_of
from demiglace.data.rows.schema import Dataset, LabelSpace, Split
from demiglace.data.text.vocabulary_texts import vocabulary_texts
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION

TEXTS = ("a good\tfilm", 'the "worst"\nof films', "été 漢字")


def split_of(name: str, texts: tuple[str, ...], **more: Any) -> Split:
    lines = [("rows.csv", i) for i in range(len(texts))]
    return Split(name, texts, more.pop("pairs", None), np.arange(len(texts)) % 2, lines, **more)


def inputs_of(*splits: Split) -> CompressionInputs:
    labels = LabelSpace(CLASSIFICATION, ("bad", "good"))
    dataset = Dataset("rows", labels, {s.name: s for s in splits}, ("accuracy",), "")
    nothing: Any = None
    return CompressionInputs("", True, nothing, nothing, dataset, 32)


@pytest.mark.parametrize(
    ("more", "task"),
    [
        ({}, CLASSIFICATION),
        ({"pairs": ("one", "two", "three")}, CLASSIFICATION),
        ({"words": [["a", "good\tfilm"], ["the", "worst"], ["été"]]}, TOKEN_CLASSIFICATION),
    ],
)
def test_the_rows_of_the_check_are_read_as_they_are(more: dict[str, Any], task: Any, tmp_path: Path) -> None:
    rows = split_of("validation", TEXTS, **more)
    file = inputs_of(rows).write_validation(tmp_path / "validation.jsonl")
    found = texts_of(file, DataLocation(), task)
    if rows.words is None:
        assert (tuple(found.texts), found.pairs and tuple(found.pairs)) == (rows.texts, rows.pairs)
    else:
        assert [list(words) for words in found.words or ()] == rows.words


def test_the_baseline_keeps_the_tokens_of_the_texts_that_its_student_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"sentence": text}) + "\n" for text in ("a zebra", "of the test", *TEXTS)))
    config = build(
        CompressConfig,
        {"model": "m", "output": tmp_path, "max_mb": 8, "students": 1, "data": "rows.csv", "unlabelled": [str(more)]},
    )
    train, test = split_of("train", TEXTS), split_of("test", ("of the test",))
    jobs: list[Any] = []
    monkeypatch.setattr(Trainer, "train", lambda self, of_call: jobs.extend(of_call))
    monkeypatch.setattr(compress_run, "read_manifest", lambda _: {"rows": {"train": 3, "unlabelled": 1}})
    nothing: Any = None
    run: Any = SimpleNamespace(path=tmp_path)
    compression = compress_run._Compression(config, nothing, nothing, inputs_of(train, test), run)
    trainer = Trainer(config, tmp_path, "rows", "accuracy", {"unlabelled": [str(more)]}, {"vocabulary_size": 50})
    compression._baseline(trainer, "teacher", Student(1, "trim"))
    (job,) = jobs
    assert "unlabelled" not in job.options
    assert job.options["vocabulary_size"] == 50
    assert [*vocabulary_texts(job.options["vocabulary_corpus"], ReadConfig(), Counter())] == ["a zebra"]
    jobs.clear()
    compression._baseline(replace(trainer, trimming={}), "teacher", Student(1))
    assert "vocabulary_corpus" not in jobs[0].options
