"""What the distillation of a sentence encoder needs: its texts, its method without labels, and its student."""

from dataclasses import replace

from demiglace.config.command_options import DistillConfig
from demiglace.console import say
from demiglace.errors import ConfigError
from demiglace.evaluation.predict import predict
from demiglace.methods.base import Method
from demiglace.models.loading import load_sentence_encoder, resolve_model
from demiglace.models.sentence_encoder import SentenceEncoder
from demiglace.models.sentence_modules import longest_text, module_directory
from demiglace.tasks.sentence_embedding import SENTENCE_EMBEDDING
from demiglace.training.datasets import TaskData


def for_teacher(config: DistillConfig) -> DistillConfig:
    """Return the options for a teacher that is a sentence-transformers model, and those of another one as they are.

    The kind of problem becomes sentence-embedding, and texts are not longer than the teacher reads.
    """
    directory = module_directory(resolve_model(config.teacher))
    source = config.source
    if directory is None or source.problem not in ("auto", SENTENCE_EMBEDDING.name):
        return config
    longest = longest_text(resolve_model(config.teacher), source.max_length)
    return replace(config, source=replace(source, problem=SENTENCE_EMBEDDING.name, max_length=longest))


def without_labels(name: str, method: Method) -> Method:
    """Return a method without its loss on labels, since texts have none; a line says so.

    Raises `ConfigError` for a method that has nothing else in one of its phases, and for one that needs classes.
    """
    kept = tuple(w for w in method.terms if not w.term.needs_labels)
    for phase in range(len(method.phases)):
        if not any(w.phase in (None, phase) for w in kept):
            where = f"phase {phase + 1} of method {name}" if len(method.phases) > 1 else f"method {name}"
            raise ConfigError(
                f"{where} trains on labels alone, and texts for a sentence encoder have none; take a method with a "
                "teacher in every phase, such as vanilla-kd, rail-kd or rail-balanced."
            )
    if method.augmentation is not None or any(w.term.needs_scores for w in kept):
        raise ConfigError(
            f"method {name} reads the teacher's outputs as scores of classes or as numbers, which the dimensions of an "
            "embedding are not; take another one, such as vanilla-kd, rail-kd or rail-balanced."
        )
    if len(kept) < len(method.terms):
        say(f"{name}: texts have no labels, so the loss on labels has the weight 0.")
    return replace(method, terms=kept)


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


def with_teacher_outputs(material: TaskData, teacher: SentenceEncoder, precision: str) -> TaskData:
    """Return the data with the teacher's embeddings of the validation and test texts, and print its scores on them."""
    held_out = [name for name in material.examples if name != "train"]
    outputs = {name: predict(teacher, material.examples[name], precision=precision) for name in held_out}
    for name in held_out:
        if scores := material.scores(name, outputs[name], material.task):
            say(f"teacher: {name} " + ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items()))
        else:
            say(f"{name}: no labels; the student is measured by the mean cosine of its embeddings with the teacher's")
    return replace(material, teacher_outputs=outputs)
