"""Generate the cards of methods: `python -m demiglace.methods.describe docs/methods` writes all of them."""

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from demiglace.config.options import Option, options_of
from demiglace.errors import ModelError
from demiglace.methods.base import Method, TrainingProgress
from demiglace.methods.from_yaml import describe_method
from demiglace.methods.registry import METHODS, MethodInfo, build_method
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest
from demiglace.tasks.classification import CLASSIFICATION


def card(row: MethodInfo) -> str:
    """Return a method as Markdown: loss, deviations from its paper, needed signals, options, and the method as YAML."""
    method = build_method(row.name, {})
    parts = [
        f"# `{row.name}`",
        f"{row.title.capitalize()}. {_source(row)}".strip(),
        inspect.getdoc(sys.modules[row.options.__module__]) or "",
        inspect.getdoc(row.options) or "",
        _list({"Teacher": _teacher(method), "Student": _student(method), "Training": _training(method)}),
        f"    demiglace distill --method {row.name} --teacher TEACHER --layers 3 --data train.csv -o runs/student",
        "## Options",
        _table(("`--method-options.…`", "value", "default", ""), [_option(o) for o in options_of(row.options)])
        if options_of(row.options)
        else "None.",
        "## As YAML",
        f"```yaml\n{show_method(row.name, 6, 12, 3, 0)}```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def index() -> str:
    """Return the table of all cards, in Markdown."""
    rows = [(f"[`{r.name}`]({r.name}.md)", r.title, f"[{r.paper}]({r.url})" if r.url else "") for r in METHODS.values()]
    return f"# Methods\n\n{_table(('method', 'what the student learns from', 'paper'), rows)}\n"


def write_cards(directory: Path) -> None:
    """Write the index and one file per method."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(index(), "utf-8")
    for row in METHODS.values():
        (directory / f"{row.name}.md").write_text(card(row), "utf-8")


def _source(row: MethodInfo) -> str:
    return f"[{row.paper}]({row.url})" if row.url else ""


def _teacher(method: Method) -> str:
    wanted = _teacher_request(method)
    if wanted.is_empty:
        return "not needed."
    kinds = {
        "logits": wanted.logits,
        "pooled hidden states": any(pooling != "tokens" for pooling in wanted.poolings),
        "hidden states of every token": "tokens" in wanted.poolings,
        "queries, keys and values": bool(wanted.attention),
    }
    how = "computed once and cached on disk" if wanted.is_cacheable else "computed for every batch"
    also = "; for the perturbed text, computed for every batch" if method.augmentation is not None else ""
    return f"{', '.join(kind for kind, needed in kinds.items() if needed)}; {how}{also}."


def _teacher_request(method: Method) -> SignalRequest:
    shape = example_shape(12)
    return method.requests(example_shape(6), shape).teacher | method.perturbed_requests(example_shape(6), shape).teacher


def _student(method: Method) -> str:
    student, teacher = example_shape(6), example_shape(12)
    narrow = replace(student, hidden_size=384, num_heads=6, attention_size=384)
    fewer = replace(narrow, num_heads=12)
    if _suits(method, narrow, teacher):
        return "any width and number of heads."
    return (
        "any width, with as many heads as the teacher." if _suits(method, fewer, teacher) else "as wide as the teacher."
    )


def _suits(method: Method, student: ModelShape, teacher: ModelShape) -> bool:
    try:
        for w in method.terms:
            w.term.requests(student, teacher)
            w.term.build(student, teacher, CLASSIFICATION)
    except ModelError:
        return False
    return True


def _training(method: Method) -> str:
    if len(method.phases) == 1:
        return "in one phase."
    shares = " and ".join(f"{share:.0%}" for share in method.phases)
    start = f"a later phase starts from the {method.starts_from} epoch of the previous phase"
    return f"in {len(method.phases)} phases, of {shares} of the epochs; {start}."


def _option(o: Option) -> tuple[str, ...]:
    default = f"{o.default:.4g}" if isinstance(o.default, float) else str(o.default)
    return f"`{o.name}`", o.expected, "required" if o.required else default, o.help


def _list(facts: dict[str, str]) -> str:
    return "\n".join(f"- **{name}**: {fact}" for name, fact in facts.items())


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def show_method(name: str, student_layers: int, teacher_layers: int, epochs: int, seed: int) -> str:
    """Return a method in the form that `--method FILE.yaml` reads, its layer mapping for each epoch as comments.

    Raises `ConfigError` for an unknown method, `ModelError` where models of so many layers do not suit it.
    """
    method = build_method(name, {})
    classes = sorted(set(_python_classes(described := describe_method(method))))
    comments = [f"{name}; save it, edit it, and give it as --method FILE.yaml"]
    if classes:
        comments = [
            f"{name}; it cannot be given as a YAML file, since these are defined in Python: {', '.join(classes)}"
        ]
    comments += mapping_lines(method, student_layers, teacher_layers, epochs, seed)
    written = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in comments) + written


def _python_classes(described: Any) -> Iterator[str]:
    """Yield the terms and kinds of a description that have no name in YAML."""
    if isinstance(described, list):
        for item in described:
            yield from _python_classes(item)
    elif isinstance(described, dict):
        yield from (described[key] for key in ("term", "kind") if "." in str(described.get(key, "")))
        for value in described.values():
            yield from _python_classes(value)


def mapping_lines(method: Method, student_layers: int, teacher_layers: int, epochs: int, seed: int) -> list[str]:
    """Return, for every term that matches layers, student layer ← teacher layers; for each epoch if they change."""
    student, teacher = example_shape(student_layers), example_shape(teacher_layers)
    lines = []
    for w in method.terms:
        loss = w.term.build(student, teacher, CLASSIFICATION)
        drawn = [_format_pairs(loss.layer_pairs(TrainingProgress(seed, epoch, epoch))) for epoch in range(epochs)]
        if not drawn[0]:
            continue
        lines.append(f"{w.term.name}, student layer ← teacher layers ({student_layers} and {teacher_layers} layers):")
        if len(set(drawn)) == 1:
            lines.append(f"  {drawn[0]}")
        else:
            lines += [f"  epoch {epoch}: {pairs}" for epoch, pairs in enumerate(drawn, 1)]
    return lines


def _format_pairs(pairs: Sequence[tuple[int, int]]) -> str:
    met = {student: [str(t) for s, t in pairs if s == student] for student, _ in pairs}
    return ", ".join(f"{student} ← {' '.join(others)}" for student, others in met.items())


def example_shape(layers: int) -> ModelShape:
    """Return the shape of a BERT of this depth; its other sizes do not matter here."""
    return ModelShape(
        architecture="BertForSequenceClassification",
        num_layers=layers,
        hidden_size=768,
        num_heads=12,
        vocab_size=30522,
        num_labels=2,
        max_positions=512,
        parameters=0,
        embedding_parameters=0,
        head_parameters=0,
        attention_size=768,
        causal=False,
    )


if __name__ == "__main__":
    write_cards(Path(sys.argv[1]))
