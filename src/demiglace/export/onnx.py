"""A classifier as one ONNX file, in fp32 or with 8-bit weights."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.errors import ModelError, RunError, UserError

OPSET = 18  # what the exporter writes itself; other versions are conversions of it
OUTPUT = "logits"
_LARGEST = 2**31 - 2**24  # bytes: protobuf's limit of one file, less room for the graph
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Logits(nn.Module):
    """The model with a plain tensor as output, and inputs in a fixed order."""

    def __init__(self, model: PreTrainedModel, input_names: Sequence[str]):
        super().__init__()
        self.model, self.input_names = model, input_names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.input_names, inputs, strict=True))).logits


def input_names_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the exported model takes, in this order: ids, mask and, where the tokenizer makes them, segments."""
    segments = "token_type_ids" in tokenizer.model_input_names
    return [name for name in _INPUTS if segments or name != "token_type_ids"]


def export_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> Path:
    """Write `model` to `path` as ONNX: int64 [batch, sequence] inputs to float32 `logits` [batch, C].

    Both axes are free. Load the model with eager attention: its graph is smaller and 1 to 8 % faster in ONNX Runtime
    than that of sdpa, which guards against fully masked rows. The file appears under its name only when it is whole.
    Raises `ModelError` if the model is too large for one file or the exporter cannot trace it.
    """
    require_onnx()
    names = input_names_of(tokenizer)
    _check_size(model)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    with _draft(path) as draft, _quiet():
        try:
            torch.onnx.export(
                _Logits(model, names).eval(),
                example,
                draft,
                dynamo=True,
                dynamic_shapes=(tuple(free for _ in names),),
                input_names=names,
                output_names=[OUTPUT],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            what = f"{type(model).__name__} cannot be exported to ONNX by torch {torch.__version__}"
            raise ModelError(f"{what}: {reason}") from error
    return path


def quantize_int8(path: Path, out: Path, *, reduce_range: bool | None = None) -> Path:
    """Write the ONNX model at `path` to `out` with int8 weights, one scale per output channel.

    Activations are quantised as they come, so no calibration rows are needed. `reduce_range` keeps weights to 7 bits,
    which a processor without 8-bit dot products needs against overflow; by default the present one decides.
    """
    require_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path)
    del graph.graph.value_info[:]  # the exporter's inner shapes clash with those that the quantiser infers
    with _draft(out) as draft, _quiet():
        quantize_dynamic(
            graph,
            draft,
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=needs_reduced_range() if reduce_range is None else reduce_range,
        )
    return out


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an x86 processor without 8-bit dot products (VNNI), whose int8 sums can overflow."""
    flags = next((x for x in _lines(cpuinfo) if x.startswith("flags")), "")
    return "avx2" in flags and "vnni" not in flags


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def require_onnx() -> None:
    """Raise `UserError` naming the extra to install where ONNX or its runtime is missing."""
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise UserError(
            f"export to ONNX needs {error.name}, which is not installed; run: pip install 'demiglace[export]'"
        ) from error


def _check_size(model: PreTrainedModel) -> None:
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > _LARGEST:
        raise ModelError(
            f"the model's weights take {size / 2**30:.1f} GiB, and one ONNX file holds at most 2; "
            "truncate or distil the model first."
        )


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name to write under; what was written takes the name `path` only if no error came between."""
    draft = path.with_name(path.name + ".part")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}; make room there.") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, prints and logs of the exporter and the quantiser: they speak of libraries, not of the model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
