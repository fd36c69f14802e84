"""`demiglace distill`: train a student on a teacher's signals."""

from demiglace.config.command_options import DistillConfig
from demiglace.config.options import command
from demiglace.distillation.classifier import distill_classifier
from demiglace.distillation.language_model import distill_language_model
from demiglace.distillation.student import check_student_choice
from demiglace.errors import ConfigError
from demiglace.given_objects import saved_objects
from demiglace.methods.registry import method_value
from demiglace.runs.result import Result, training_result


@command(DistillConfig, objects=saved_objects, method=method_value)
def distill(config: DistillConfig) -> Result:
    """Train a student on a teacher's signals with one of the methods of `demiglace methods`.

    The student learns a task from rows (`data`), or to be a language model from text (`corpus`). `method` is a name,
    the path of a YAML file, or a `demiglace.methods.base.Method` object.

    Returns the metrics and the run directory: model/ (best epoch), last/, log.jsonl, manifest.json. Raises `UserError`s
    before any training. An interrupted run resumes when the call is repeated.
    """
    check_student_choice(config)
    if config.text.corpus:
        if config.label_map:
            raise ConfigError("--label-map is for rows with labels (--data); with --corpus there are none.")
        return training_result(distill_language_model(config), config.push_to_hub)
    if config.cache_tokens != "none":
        raise ConfigError(
            f"--cache-tokens {config.cache_tokens} needs --corpus; for rows all signals are cached (--cache)."
        )
    return training_result(distill_classifier(config), config.push_to_hub)
