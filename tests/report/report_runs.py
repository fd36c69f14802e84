"""Run directories written by hand, as the stages write them, for the tests of the report."""

import json
import math
from pathlib import Path
from typing import Any

from demiglace.config import command_options as configs
from demiglace.config.options import build, flatten
from demiglace.runs.directory import open_run
from demiglace.runs.files import write_json

_CONFIGS = {
    "clean": configs.CleanConfig,
    "finetune": configs.FinetuneConfig,
    "truncate": configs.TruncateConfig,
    "distill": configs.DistillConfig,
    "evaluate": configs.EvaluateConfig,
    "export": configs.ExportConfig,
    "demo": configs.DemoConfig,
}
ROWS = {"train": 9003, "validation": 1000, "test": 3080}


def write_run(path: Path, stage: str, options: dict[str, Any], **results: Any) -> Path:
    """Write a complete run directory of a stage with these options and results; tests may change its files."""
    config = build(_CONFIGS[stage], options | {"output": str(path)})
    run = open_run(path, stage, flatten(config, result_options_only=True), inputs={"data": "0123456789abcdef"})
    manifest = run.finish(**results)
    write_json(path / "manifest.json", {k: v for k, v in manifest.items() if k not in ("files", "checksum")})
    return path


def write_training(
    path: Path,
    stage: str,
    options: dict[str, Any],
    accuracy: float | None,
    *,
    layers: int = 3,
    task: str = "banking77",
    capture: float = 0.0,
    **results: Any,
) -> Path:
    """A finetune or distill run with scores, costs and a log."""
    values = {
        "task": task,
        "problem": "classification",
        "rows": ROWS,
        "drops": {},
        "layers": layers,
        "parameters": 12_000_000 + layers * 1_774_000,
        "bytes": 4 * (12_000_000 + layers * 1_774_000),
        "metrics": {}
        if accuracy is None
        else {s: scores(accuracy + d) for s, d in (("validation", -0.01), ("test", 0))},
        "seconds": {"capture": capture, "train": 28.0 * layers, "evaluate": 3.0},
    }
    write_run(path, stage, {"data": "banking77"} | options, **(values | results))
    if accuracy is not None:
        write_log(path, accuracy, draws=stage == "distill")
    return path


def scores(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "macro_f1": accuracy - 0.002}


def write_log(path: Path, accuracy: float, draws: bool = False, epochs: int = 4) -> None:
    entries: list[dict[str, Any]] = []
    for step in range(20, 1240, 20):
        terms = {"labels": 4.3 * math.exp(-step / 300) + 0.1}
        if draws:
            terms |= {"soft labels": 3.1 * math.exp(-step / 350) + 0.05, "layers": 5.4 * math.exp(-step / 500) + 0.6}
        loss = sum(terms.values()) / len(terms)
        entries.append({"kind": "step", "step": step, "epoch": step // 310, "lr": 1e-4, "loss": loss, "terms": terms})
    for epoch in range(epochs):
        value = accuracy - 0.01 - 0.4 * math.exp(-1.4 * epoch - 1)
        entries.append(
            {"kind": "epoch", "epoch": epoch, "step": 310 * (epoch + 1), "metrics": scores(value), "seconds": 33.0}
        )
        if draws:
            pairs = [[i + 1, i + 1 + (epoch * (i + 2)) % 3] for i in range(3)]
            entries.append({"kind": "mapping", "epoch": epoch, "step": 310 * epoch, "term": "layers", "pairs": pairs})
    (path / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))


def artefact(name: str, role: str, file: str, megabytes: float, milliseconds: float, **others: Any) -> dict[str, Any]:
    latency = {
        "1": {"p50": milliseconds, "p95": 1.3 * milliseconds},
        "32": {"p50": 20 * milliseconds, "p95": 24 * milliseconds},
    }
    return {
        "name": name,
        "format": "onnx" if role == "export" else "pytorch",
        "precision": "int8" if "quantized" in file else "fp32",
        "role": role,
        "file": file,
        "bytes": megabytes * 1e6,
        "latency_ms": latency,
        "peak_memory_mb": 210.0,
    } | others


def write_demo(
    root: Path, *, teacher: float = 0.928, student: float = 0.918, baseline: float = 0.915, method: str = "rail-kd-l"
) -> Path:
    """The runs of a demo below `root`: teacher, truncated model, distilled student, baseline, evaluation, export."""
    write_training(root / "teacher", "finetune", {"model": "minilm", "epochs": 3}, teacher, layers=6)
    write_run(root / "student", "truncate", {"model": str(root / "teacher"), "layers": 3})
    distilled = {"teacher": str(root / "teacher"), "layers": 3, "method": method, "epochs": 4}
    write_training(root / "distilled", "distill", distilled, student, capture=12.4)
    write_training(root / "baseline", "finetune", {"model": str(root / "student"), "epochs": 4}, baseline)
    for name, agreement in (("distilled", 0.952), ("baseline", 0.936)):
        options = {"model": str(root / name), "data": ["banking77"], "teacher": str(root / "teacher")}
        found = {"banking77": {"metrics": scores(student), "rows": 3080, "agreement": agreement}}
        write_run(root / f"evaluate-{name}", "evaluate", options, sets=found)
    write_run(
        root / "export",
        "export",
        {"model": str(root / "distilled"), "quantize": "int8", "teacher": str(root / "teacher")},
        artefacts=[
            artefact("PyTorch teacher", "teacher", "teacher/model/model.safetensors", 90.9, 14.5),
            artefact("PyTorch", "original", "distilled/model/model.safetensors", 69.3, 4.7),
            artefact(
                "ONNX fp32",
                "export",
                "onnx/model.onnx",
                69.6,
                4.6,
                label_agreement=1.0,
                largest_logit_difference=1.9e-6,
            ),
            artefact(
                "ONNX int8",
                "export",
                "onnx/model_quantized.onnx",
                17.6,
                1.6,
                label_agreement=0.992,
                largest_logit_difference=0.41,
            ),
        ],
    )
    return root
