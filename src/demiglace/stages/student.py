"""What both kinds of `distill` share: what a run reads of models and methods, and the student cut from its teacher."""

from transformers import PreTrainedModel

from demiglace.console import say
from demiglace.manifest import fingerprint
from demiglace.methods.base import Method
from demiglace.methods.table import is_file
from demiglace.models.loading import fingerprint_model
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import choose_layers, make_student
from demiglace.stages.config import DistillConfig


def teaching_inputs(config: DistillConfig) -> dict[str, str]:
    """Fingerprints of the teacher, the student where one is named, and the method where it is a file."""
    inputs = {"teacher": fingerprint_model(config.teacher)}
    if is_file(config.method):
        inputs["method"] = fingerprint([config.method])
    if config.student:
        inputs["student"] = fingerprint_model(config.student)
    return inputs


def warn_of_first_token(name: str, method: Method, student: ModelShape, teacher: ModelShape) -> None:
    """Say so where a method compares the first token's hidden states and the student is causal."""
    if student.causal and "first" in method.requests(student, teacher).student.poolings:
        say(
            f"warning: {name} compares the hidden states of the first token, which in a causal model depend on that "
            "token alone and hold nothing of the text after it; take a method that pools all tokens, such as rail-kd-l."
        )


def cut_student(config: DistillConfig, model: PreTrainedModel) -> PreTrainedModel:
    """The student that --layers, --strategy and --keep make of a model as deep as the teacher."""
    keep = choose_layers(ModelShape.of(model).num_layers, config.layers, config.strategy, config.keep)
    return make_student(model, keep, config.strategy, config.training.seed)
