"""Options of the training loop."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import option
from demiglace.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained, whatever the loss."""

    epochs: int = option("passes over the training rows", 3, at_least=1)
    lr: float = option("peak learning rate of AdamW", 1e-4, above=0)
    batch_size: int = option("rows an optimizer step, over all processes", 32, at_least=1)
    batch_tokens: int = option(
        "largest forward pass in padded tokens; a step beyond it is split and its gradients accumulated",
        8192,
        at_least=1,
    )
    warmup: float = option("share of the steps in which the learning rate rises from 0", 0.06, at_least=0, below=1)
    lr_scheduler: Literal["linear", "constant"] = option(
        "learning rate after the warm-up: linear falls to 0, constant stays at the peak", "linear"
    )
    weight_decay: float = option("AdamW's weight decay (not on biases and norms)", 0.01, at_least=0)
    adam_epsilon: float = option("AdamW's ε, added to the root of the second moment", 1e-8, above=0)
    clip: float = option("largest gradient norm", 1.0, above=0)
    dropout: float | None = option(
        "dropout in the trained model; none keeps what its config says", 0.0, at_least=0, below=1
    )
    freeze: tuple[str, ...] = option(
        "weights that are not trained, by a part of their names, such as wpe (GPT-2's positions)", ()
    )
    seed: int = option("decides the order of the rows, dropout, new weights and random layer mappings", 0, at_least=0)
    precision: Literal["auto", "bf16", "fp32"] = option("auto: bf16 autocast where the hardware has it", "auto")
    attention: Literal["auto", "eager", "sdpa"] = option("attention kernel; auto: the faster one here", "auto")
    sharding: Literal["none", "full"] = option(
        "under torchrun: none (each process holds the model) or full (FSDP: weights, gradients, moments shared out)",
        "none",
        decides=False,
    )
    load_best_model_at_end: bool = option(
        "keep the epoch with the best validation metric; false: the last one, since few validation rows choose an "
        "epoch nearly at random",
        True,
    )
    patience: int | None = option("stop after this many epochs without a better validation metric", None, at_least=1)
    metric: str | None = option("validation metric that chooses the best epoch; default: the task's first", None)
    checkpoint_seconds: float = option(
        "time between checkpoints, from which a cut-off run goes on", 60.0, decides=False, at_least=0
    )
    log_steps: int = option(
        "steps between two lines of the log, and least steps between checkpoints", 20, decides=False, at_least=1
    )
    diagnostics: Literal["on", "off"] = option(
        "look at the first steps, and now and then at the gradient of each loss term; changes nothing in the run",
        "on",
        decides=False,
    )
    track: tuple[str, ...] | None = option("trackers that accelerate knows, such as tensorboard", None, decides=False)


def check_patience(config: TrainConfig) -> None:
    """Raise `ConfigError` for a patience where no epoch is the best."""
    if config.patience is not None and not config.load_best_model_at_end:
        raise ConfigError(
            f"--patience {config.patience} waits for a better epoch, and --load-best-model-at-end false keeps the last "
            "one; leave one of them out."
        )
