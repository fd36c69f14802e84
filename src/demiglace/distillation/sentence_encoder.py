"""What the distillation of a sentence encoder needs: its texts, its method without labels, and its student."""

from collections.abc import Mapping
from dataclasses import replace

from transformers import PreTrainedModel

from demiglace.config.command_options import DistillConfig
from demiglace.config.data import DataConfig
from demiglace.console import say
from demiglace.data.tokenize import TokenizedSplit
from demiglace.distillation.without_labels import without_labels
from demiglace.errors import ConfigError
from demiglace.evaluation.predict import predict
from demiglace.methods.base import Method
from demiglace.models.loading import load_sentence_encoder, resolve_model
from demiglace.models.sentence_encoder import SentenceEncoder
from demiglace.models.sentence_modules import longest_text, module_directory
from demiglace.tasks.sentence_embedding import SENTENCE_EMBEDDING
from demiglace.training.datasets import TaskData


def rows_for(source: DataConfig, teacher: str) -> DataConfig:
    """Return the options of the rows for a teacher that is a sentence-transformers model, and for others as they are.

    The kind of problem becomes sentence-embedding, and texts are not longer than the teacher reads. The run keeps the
    options as they were given.
    """
    path = resolve_model(teacher)
    if module_directory(path) is None or source.problem not in ("auto", SENTENCE_EMBEDDING.name):
        return source
    return replace(source, problem=SENTENCE_EMBEDDING.name, max_length=longest_text(path, source.max_length))


def for_embeddings(name: str, method: Method) -> Method:
    """Return a method without its loss on labels, see `without_labels`.

    Raises `ConfigError` as it does, and for a method that needs classes.
    """
    kept = without_labels(name, method)
    if method.augmentation is not None or any(w.term.needs_scores for w in kept.terms):
        raise ConfigError(
            f"method {name} reads the teacher's outputs as scores of classes or as numbers, which the dimensions of an "
            "embedding are not; take another one, such as vanilla-kd, rail-kd-l or rail-balanced."
        )
    return kept


def load_student(config: DistillConfig, teacher: SentenceEncoder, attention: str) -> SentenceEncoder:
    """Load the student: a copy of the teacher, which is truncated later, or --student with embeddings of its width."""
    training = config.training
    return load_sentence_encoder(
        config.student or config.teacher,
        like=teacher if config.student else None,
        dropout=training.dropout,
        attention=attention,
        allow_pickle=config.allow_pickle,
        seed=training.seed,
    )


def with_teacher_outputs(
    data: TaskData, teacher: PreTrainedModel, precision: str, rows: Mapping[str, TokenizedSplit]
) -> TaskData:
    """Return the data with the teacher's outputs of the validation and test texts, and print its scores on them.

    rows: in the teacher's tokens.
    """
    held_out = [name for name in data.examples if name != "train"]
    outputs = {name: predict(teacher, rows[name], precision=precision) for name in held_out}
    measure = (
        "the mean cosine of its embeddings"
        if isinstance(teacher, SentenceEncoder)
        else "the agreement of its predictions"
    )
    for name in held_out:
        if scores := data.scores(name, outputs[name], data.task):
            say(f"teacher: {name} " + ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items()))
        else:
            say(f"{name}: no labels; the student is measured by {measure} with the teacher's")
    return replace(data, teacher_outputs=outputs)
