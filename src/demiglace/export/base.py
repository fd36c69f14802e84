"""The protocol of export: an `Exporter` writes a model, an `Artefact` describes the files, a `Runner` computes logits.

To add a format, write one file with a class derived from `Exporter`, and add one row to `config/export_formats.py`.
The parity check, the measurement and `demiglace evaluate` then work without a change.

The file imports torch, transformers and the libraries of its format inside functions only. The process that measures an
artefact imports it, and its memory counts as the artefact's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from demiglace.config.export_formats import EXPORTERS, LANGUAGE_MODEL_EXPORTERS
from demiglace.errors import ConfigError, ModelError, UserError, install_command, unknown
from demiglace.export.decoding import Decoder, Load, Speed, time_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

Inputs = Mapping[str, np.ndarray]  # name -> int64 [B, L]
PYTORCH = "pytorch"  # the format of the model to export: it can be opened and not written
# the formats that artefacts have and that are no names for --to
_FORMATS = {PYTORCH: "demiglace.export.pytorch:PyTorch", "onnx-decoder": LANGUAGE_MODEL_EXPORTERS["onnx"]}


class Runner(Protocol):
    """An opened artefact."""

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of a batch, float32 [B, C]."""
        ...


@dataclass(frozen=True)
class Artefact:
    """A model in one format and precision."""

    format: str  # name of the format: "onnx", "pytorch"
    precision: str  # number format of the weights: "fp32", "fp16", "int8", "int4"
    path: str  # what the format opens: a file, a model directory or a hub name
    files: tuple[Path, ...]  # all files that hold its graph and weights; empty for a hub name
    settings: Mapping[str, Any] = field(default_factory=dict)  # how it was written, for the manifest; JSON values
    allow_pickle: bool = False  # PyTorch only: read weights that exist only as a pickle file

    @property
    def size(self) -> int:
        """Return the bytes of its files; 0 where it has none on this disk."""
        return sum(file.stat().st_size for file in self.files)

    def names_in(self, directory: Path) -> list[str]:
        """Return its files as a manifest in `directory` lists them: relative to it, or by name if elsewhere."""
        return [
            file.relative_to(directory).as_posix() if file.is_relative_to(directory) else file.name
            for file in self.files
        ]

    def open(self, threads: int = 1) -> Runner:
        """Return a runner on the CPU that computes with this many threads."""
        return format_at(address_of(self.format)).open(self, threads)

    def open_decoder(self, threads: int = 1) -> Decoder | None:
        """Return a decoder with a KV cache on the CPU; None if the format is not run with one here."""
        return format_at(address_of(self.format)).open_decoder(self, threads)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self) | {"files": [str(file) for file in self.files]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Artefact":
        """Return the artefact whose `to_json` these are."""
        return cls(**{**values, "files": tuple(map(Path, values["files"]))})


class Format(ABC):
    """A format that artefacts can be opened in."""

    name: ClassVar[str]  # in manifests
    title: ClassVar[str]  # in tables and messages
    for_transformers: ClassVar[bool] = False  # whether transformers loads the files

    @abstractmethod
    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner on the CPU for an artefact of this format."""

    def open_decoder(self, artefact: Artefact, threads: int) -> Decoder | None:
        """Return a decoder with a KV cache on the CPU; None if the format is not run with one here."""
        return None

    def time_decoding(self, artefact: Artefact, load: Load) -> Speed:
        """Time a language model of this format; by default, its decoder."""
        decoder = self.open_decoder(artefact, load.threads)
        assert decoder is not None, f"{self.title} has no decoder and does not time language models otherwise"
        return time_decoder(decoder, load)

    def cannot_time(self) -> str | None:
        """Return why `time_decoding` cannot run on this machine, as a sentence; None if it can."""
        return None


class Exporter(Format):
    """A format that models can be written in."""

    precisions: ClassVar[tuple[str, ...]]  # what it writes; the first is the one that must equal the original model
    only_one: ClassVar[bool] = False  # whether a directory holds one precision alone
    packages: ClassVar[tuple[str, ...]] = ()  # modules that it imports and demiglace does not require
    install: ClassVar[str] = ""  # the extra of demiglace, or the arguments of `pip install`, that brings them

    def require_packages(self) -> None:
        """Raise `UserError` with the command to run if a package is missing."""
        try:
            for package in self.packages:
                import_module(package)
        except ImportError as error:
            command = install_command(self.install)
            raise UserError(
                f"export to {self.title} needs {error.name}, which is not installed; run: {command}"
            ) from error

    def require_precision(self, precision: str) -> None:
        """Raise `ConfigError` if the format has no such precision."""
        if precision not in self.precisions:
            raise ConfigError(
                f"--quantize was given {precision!r}, and export to {self.title} writes {', '.join(self.precisions)} "
                "only; leave --quantize out, or give another --to."
            )

    def require_support(self, task: "Task") -> None:
        """Raise `ModelError` if models of this kind of problem cannot be written."""
        if reason := self.unsupported(task):
            raise ModelError(f"a model for {task.name} cannot be exported to {self.title}: {reason}")

    def model_directory(self, directory: Path) -> Path:
        """Return where an export directory has its config, tokenizer and card."""
        return directory

    def with_reduce_range(self, reduce_range: bool) -> "Exporter":
        """Return the exporter with int8 weights of 7 bits, or of 8. Raises `ConfigError` if the format has none."""
        raise ConfigError(
            f"--reduce-range {str(reduce_range).lower()} is about int8 by --to onnx, and export to {self.title} has no "
            "such choice; leave it out."
        )

    def with_embedding_bits(self, bits: int) -> "Exporter":
        """Return the exporter with embedding tables of 8 or 4 bits. Raises `ConfigError` if it has no choice."""
        raise ConfigError(
            f"--embedding-bits {bits} is about int8 and int4 by --to onnx, and export to {self.title} has no such "
            "choice; leave it out."
        )

    def with_rows(self, rows: Sequence[Inputs], max_length: int | None) -> "Exporter":
        """Return the exporter for rows of this kind.

        rows: tokenized ones, batches of one, on which a quantiser may measure activations. max_length: most tokens of a
        row; None if unlimited.
        """
        return self

    @abstractmethod
    def unsupported(self, task: "Task") -> str | None:
        """Return why models of this kind of problem cannot be written, as the end of a sentence; None if they can."""

    @abstractmethod
    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp32",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write a model into a directory that exists and return the artefact.

        model: in fp32 with eager attention. precision: one of `precisions`. full: the artefact of the same model in the
        first of them, if it was written already; a quantiser may start from it. A file appears under its name only when
        it is complete. Raises `ModelError` if the model cannot be written.
        """


def exporter_for(
    name: str, reduce_range: str = "auto", embedding_bits: int | None = None, *, language_model: bool = False
) -> Exporter:
    """Return the exporter of a format. Raises `ConfigError` for an unknown name.

    reduce_range: whether int8 weights keep to 7 bits: "true", "false", or "auto" to leave it to the format.
    embedding_bits: of embedding tables in quantised files, 8 or 4; None leaves it to the format.
    """
    if name not in EXPORTERS:
        raise ConfigError(f"--to: {unknown('format', name, EXPORTERS)}")
    exporters = EXPORTERS | LANGUAGE_MODEL_EXPORTERS if language_model else EXPORTERS
    exporter = format_at(exporters[name])
    assert isinstance(exporter, Exporter), f"{EXPORTERS[name]} is not an Exporter"
    if reduce_range != "auto":
        exporter = exporter.with_reduce_range(reduce_range == "true")
    return exporter if embedding_bits is None else exporter.with_embedding_bits(embedding_bits)


def address_of(name: str) -> str:
    """Return MODULE:CLASS of a format that artefacts have. Raises `ConfigError` for an unknown name."""
    known = _FORMATS | EXPORTERS
    if name not in known:
        raise ConfigError(
            f"{unknown('export format', name, known)}. It was written by a version of demiglace that has this format; "
            "use that version, or export the model again."
        )
    return known[name]


def title_of(name: str) -> str:
    """Return how tables name a format. Raises `ConfigError` for an unknown name."""
    return format_at(address_of(name)).title


def format_at(address: str) -> Format:
    """Return the format whose class is at MODULE:CLASS."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)()
