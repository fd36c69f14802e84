"""Low-rank adaptation (LoRA; Hu et al. 2022, arXiv 2106.09685) by peft, for students too large to train in full."""

import importlib.util
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from demiglace.config.training import TrainConfig
from demiglace.console import say
from demiglace.errors import ConfigError, install_command
from demiglace.models.layer_stack import named_stack


def check_lora(config: TrainConfig) -> None:
    """Raise `ConfigError` for --lora-rank without peft, or with options that exclude it."""
    if config.lora_rank is None:
        if config.lora_alpha is not None:
            raise ConfigError(f"--lora-alpha {config.lora_alpha:g} was given without --lora-rank; give both.")
        return
    if config.sharding != "none":
        raise ConfigError(
            f"--lora-rank {config.lora_rank} was given with --sharding {config.sharding}, which is not supported; "
            "leave one of them out."
        )
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"--lora-rank needs peft: {install_command('lora')}, or leave --lora-rank out.")


class Adapters:
    """Adapters on the linear maps of a model's layers, put there in place.

    The weights of these maps and all embedding tables are frozen. What is outside of the layers is trained in full:
    norms, pooler and head, without the output embeddings of a language model. --freeze holds for it too.
    """

    def __init__(self, model: PreTrainedModel, config: TrainConfig):
        """Put adapters into the model, initialized from the run's seed. Raises `ModelError` as `layer_stack` does."""
        self._model, self._config = model, config
        total = sum(p.numel() for p in model.parameters())
        self._insert()
        self.trained_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        say(
            f"LoRA: rank {config.lora_rank} on {len(self._targets)} linear maps; {self.trained_parameters:,} of "
            f"{total:,} parameters are trained ({self.trained_parameters / total:.1%})"
        )

    def merge(self) -> None:
        """Add the adapters to the weights and remove them; the model is then a plain one."""
        self._peft.merge_and_unload()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put the adapters into the merged model again, and load weights that were saved with them."""
        self._insert()
        self._model.load_state_dict(tensors)

    def _insert(self) -> None:
        from peft import LoraConfig, get_peft_model

        rank, alpha = self._config.lora_rank, self._config.lora_alpha
        assert rank is not None
        name, stack = named_stack(self._model)
        self._targets = [f"{name}.{n}" for n, m in stack.named_modules() if isinstance(m, (nn.Linear, Conv1D))]
        trained = [p for p in self._outside_of_layers(name) if p.requires_grad]
        torch.manual_seed(self._config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GPT-2's transposed weights, which peft handles
            settings = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=self._targets)
            self._peft: Any = get_peft_model(self._model, settings)  # type: ignore[arg-type]
        for parameter in trained:
            parameter.requires_grad_(True)

    def _outside_of_layers(self, stack: str) -> list[nn.Parameter]:
        """Return the parameters outside of the layers, without embedding tables."""
        tables = {id(m.weight) for m in self._model.modules() if isinstance(m, nn.Embedding)}
        head: Any = self._model.get_output_embeddings()
        tables |= set() if head is None else {id(head.weight)}
        named = self._model.named_parameters()
        return [p for name, p in named if not name.startswith(f"{stack}.") and id(p) not in tables]
