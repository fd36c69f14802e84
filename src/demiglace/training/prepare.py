"""Apply the options of the training that change the model."""

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from demiglace.config.training import TrainConfig
from demiglace.errors import ModelError
from demiglace.training.optimizer import freeze


def prepare_model(model: PreTrainedModel, config: TrainConfig) -> None:
    """Freeze the weights of --freeze, and let the model recompute its activations with --gradient-checkpointing.

    Raises `ConfigError` for a name that no weight has, `ModelError` for a model without gradient checkpointing.
    """
    freeze(model, config.freeze)
    if config.gradient_checkpointing:
        _checkpoint_gradients(model)


def _checkpoint_gradients(model: PreTrainedModel) -> None:
    """Enable the non-reentrant gradient checkpointing of transformers.

    Its first versions recomputed a layer's hooks too, and hidden states are captured by hooks.
    """
    if not model.supports_gradient_checkpointing or "__call__" in vars(GradientCheckpointingLayer):
        reason = "has no gradient checkpointing in the installed version of transformers"
        raise ModelError(
            f"--gradient-checkpointing was given, and {type(model).__name__} {reason}; leave it out and give a smaller "
            "--batch-tokens, which bounds the memory of a forward pass."
        )
    # the second name is that of older versions
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
