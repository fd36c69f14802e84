"""A method as YAML to edit, with the layers that meet."""

from collections.abc import Sequence

import yaml

from demiglace.methods.base import Method, Progress
from demiglace.methods.from_yaml import describe_method
from demiglace.methods.registry import build_method
from demiglace.models.shape import ModelShape

Pairs = Sequence[tuple[int, int]]


def show_method(name: str, student_layers: int, teacher_layers: int, epochs: int, seed: int) -> str:
    """A method in the form that `--method FILE.yaml` reads, and as comments which teacher layers meet which student's.

    Raises `ConfigError` for an unknown method, `ModelError` where models of so many layers do not suit it.
    """
    method = build_method(name, {})
    comments = [f"{name}; save it, edit it, and give it as --method FILE.yaml"]
    comments += mapping_lines(method, student_layers, teacher_layers, epochs, seed)
    written = yaml.safe_dump(describe_method(method), sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in comments) + written


def mapping_lines(method: Method, student_layers: int, teacher_layers: int, epochs: int, seed: int) -> list[str]:
    """For every term that matches layers: student layer ← teacher layers, in each epoch if they change."""
    student, teacher = example_shape(student_layers), example_shape(teacher_layers)
    lines = []
    for w in method.terms:
        loss = w.term.build(student, teacher, "classification")
        drawn = [_told(loss.pairs(Progress(seed, epoch, epoch))) for epoch in range(epochs)]
        if not drawn[0]:
            continue
        lines.append(f"{w.term.name}, student layer ← teacher layers ({student_layers} and {teacher_layers} layers):")
        if len(set(drawn)) == 1:
            lines.append(f"  {drawn[0]}")
        else:
            lines += [f"  epoch {epoch}: {told}" for epoch, told in enumerate(drawn, 1)]
    return lines


def _told(pairs: Pairs) -> str:
    met = {student: [str(t) for s, t in pairs if s == student] for student, _ in pairs}
    return ", ".join(f"{student} ← {' '.join(others)}" for student, others in met.items())


def example_shape(layers: int) -> ModelShape:
    """A BERT of this depth; its other sizes do not matter here."""
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
