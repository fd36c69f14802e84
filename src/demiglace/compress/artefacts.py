"""Export trained models, and score the exported files on labelled rows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from demiglace.compress.budget import Cost, latency_of
from demiglace.compress.inputs import CompressionInputs
from demiglace.data.rows.schema import Split
from demiglace.data.rows.units import outputs_of_rows, units_of
from demiglace.data.tokenize import tokenize
from demiglace.evaluation.scores import compute
from demiglace.export.exported import exported_artefact
from demiglace.export.parity import predict_with
from demiglace.labels import match_all
from demiglace.models.labels import label_space_of
from demiglace.models.tokenizer import load_tokenizer
from demiglace.runs.artefacts import EXPORT, ORIGINAL, measured_artefacts
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import read_json, write_json

Role = Literal["teacher", "student", "baseline", "static"]


@dataclass(frozen=True)
class ModelFile:
    """An exported file of a trained model, with its measured size, latency and quality."""

    model: str  # name in tables: "3 layers"
    role: Role
    method: str  # with which it was trained
    precision: str
    run: str  # path of the trained model
    export: str  # path of the export directory
    file: str  # path of the exported file
    cost: Cost
    validation: Mapping[str, float]  # its metrics
    label_agreement: float | None = None  # with its PyTorch model, share of the rows checked
    test: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return its name in tables."""
        return f"{self.model}, {self.precision}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelFile":
        """Return the file whose `to_json` these are."""
        return cls(**{**values, "cost": Cost(**values["cost"])})


def read_files(export: Path, run: str, model: str, role: Role, method: str) -> list[ModelFile]:
    """Return the exported files of an export directory, without scores; run: path of the model that it exported."""
    manifest = read_manifest(export)
    return [
        ModelFile(
            model,
            role,
            method,
            a["precision"],
            run,
            str(export),
            str(export / next(name for name in a["files"] if Path(name).name == Path(a["file"]).name)),
            Cost(a["bytes"], latency_of(a["latency_ms"], manifest["threads"])),
            {},
            a["label_agreement"],
        )
        for a in measured_artefacts(manifest)
        if a["role"] == EXPORT
    ]


def pytorch_cost(export: Path) -> Cost | None:
    """Return size and latency of the PyTorch model that was exported."""
    manifest = read_manifest(export)
    found = next((a for a in measured_artefacts(manifest) if a["role"] == ORIGINAL), None)
    return None if found is None else Cost(found["bytes"], latency_of(found["latency_ms"], manifest["threads"]))


def metrics_of(
    file: ModelFile, split: str, inputs: CompressionInputs, label_map: Mapping[str, Any]
) -> dict[str, float]:
    """Return the metrics of an exported file on a split; they are computed once and kept beside the file."""
    kept = Path(file.file).with_suffix(f".{split}.scores.json")
    if not kept.exists():
        write_json(kept, _score(file, inputs.dataset.splits[split], inputs, label_map))
    return dict(read_json(kept))


def _score(file: ModelFile, rows: Split, inputs: CompressionInputs, label_map: Mapping[str, Any]) -> dict[str, float]:
    artefact = exported_artefact(file.file)
    assert artefact is not None, f"{file.file} is no exported file"
    names, labels = inputs.dataset.labels.names, label_space_of(file.export)
    units = units_of(rows, inputs.task)
    examples = tokenize(units, load_tokenizer(file.export), inputs.max_length)
    logits = outputs_of_rows(rows, predict_with(artefact.open(), examples))
    match = match_all(names, labels.names, label_map) if names and labels.names != names else None
    if match is not None:
        logits = logits[..., list(match.ids)]
    task = labels.task.with_names(names)
    return compute(inputs.dataset.metrics, rows.labels, logits, task)
