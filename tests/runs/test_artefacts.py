"""What an export measured, read from manifests of this version and of version 0.1."""

import pytest

from demiglace.errors import RunError
from demiglace.runs.artefacts import measured_artefacts


def test_fields_are_read_and_the_name_is_for_display_alone():
    entry = {"name": "ONNX int8", "format": "toy", "precision": "fp16", "role": "export", "bytes": 5}
    assert measured_artefacts({"artefacts": [entry]}) == [entry]


def test_the_four_names_of_version_0_1_are_read():
    names = ("PyTorch teacher", "PyTorch", "ONNX fp32", "ONNX int8")
    found = measured_artefacts({"artefacts": [{"name": name, "bytes": i} for i, name in enumerate(names)]})
    assert [(a["format"], a["precision"], a["role"]) for a in found] == [
        ("pytorch", "fp32", "teacher"),
        ("pytorch", "fp32", "original"),
        ("onnx", "fp32", "export"),
        ("onnx", "int8", "export"),
    ]
    assert [(a["name"], a["bytes"]) for a in found] == [(name, i) for i, name in enumerate(names)]


@pytest.mark.parametrize("entry", [{"name": "ONNX int4"}, {}, {"name": "x", "format": "onnx", "precision": "int4"}])
def test_an_entry_that_neither_has_is_refused(entry):
    with pytest.raises(RunError, match=r"an earlier version of demiglace.*repeat the export"):
        measured_artefacts({"artefacts": [entry]})


def test_other_manifests_have_none():
    assert measured_artefacts({}) == measured_artefacts({"artefacts": None}) == []
