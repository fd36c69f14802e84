"""Options of the training loop."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from demiglace.callbacks import Callback, check_callbacks
from demiglace.config.options import LARGEST_SEED, option, python_option
from demiglace.errors import ConfigError

LEARNING_RATE = 1e-4
STATIC_LEARNING_RATE = 1e-2  # of a static student: docs/static-student.md has the measurement


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained, whatever the loss."""

    SECTION: ClassVar[str] = "training"

    epochs: int = option("epochs over the training data", 3, at_least=1, common=True)
    learning_rate: float = option(
        f"peak learning rate of AdamW; of distill, none is {LEARNING_RATE:g}, or {STATIC_LEARNING_RATE:g} for "
        "--student static",
        LEARNING_RATE,
        above=0,
        common=True,
    )
    batch_size: int = option("examples of an optimizer step, over all processes", 32, at_least=1, common=True)
    seed: int = option(
        "seed of the order of the examples, dropout, new weights and random layer mappings",
        0,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    max_steps: int | None = option(
        "optimizer steps of the run, instead of --epochs; the last epoch ends early, the learning rate falls to the "
        "last step",
        None,
        at_least=1,
    )
    patience: int | None = option(
        "early stopping: epochs without a better validation metric; none: no early stopping", None, at_least=1
    )
    metric: str | None = option("validation metric that selects the best epoch; none: the task's first", None)
    load_best_model_at_end: bool = option(
        "keep the epoch with the best validation metric; false: the last epoch, for validation sets that are too "
        "small to choose one",
        True,
    )
    lr_scheduler: Literal["linear", "cosine", "constant", "wsd"] = option(
        "learning rate after the warm-up: linear and cosine fall to 0, constant stays at the peak, wsd (warm-up, "
        "stable, decay) stays at the peak and falls to 0 at the end",
        "linear",
    )
    warmup_ratio: float = option(
        "share of the steps in which the learning rate rises from 0", 0.06, at_least=0, below=1
    )
    decay_ratio: float = option("wsd: share of the steps in which the learning rate falls to 0", 0.1, above=0, below=1)
    weight_decay: float = option("AdamW's weight decay (not on biases and norms)", 0.01, at_least=0)
    dropout: float | None = option(
        "dropout of the trained model; none keeps the value of the model's config", 0.0, at_least=0, below=1
    )
    freeze: tuple[str, ...] = option(
        "weights that are not trained, by a part of their names, such as wpe (GPT-2's positions)", ()
    )
    lora_rank: int | None = option(
        "train adapters of this rank (LoRA, by peft) instead of the layers' weights, and merge them at the end; for "
        "models too large to train in full",
        None,
        at_least=1,
    )
    lora_alpha: int | None = option(
        "scale of the adapters, divided by the rank; none: twice the rank", None, at_least=1
    )
    max_grad_norm: float = option("largest gradient norm; larger gradients are scaled down to it", 1.0, above=0)
    adam_epsilon: float = option("AdamW's ε, added to the root of the second moment", 1e-8, above=0)
    batch_tokens: int = option(
        "largest forward pass, in padded tokens; a larger batch is split and its gradients are accumulated",
        8192,
        at_least=1,
        section="hardware",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = option(
        "number format of the forward pass; auto: bf16 autocast where the hardware has it, else fp32; fp16: autocast "
        "with loss scaling, for GPUs without bf16",
        "auto",
        section="hardware",
    )
    gradient_checkpointing: bool = option(
        "compute activations of each layer again in the backward pass instead of keeping them: less memory, about a "
        "third more time",
        False,
        section="hardware",
    )
    compile: bool = option(
        "compile the layers of student and teacher by torch.compile: about a minute at the start, then faster steps on "
        "a GPU; results differ by rounding",
        False,
        section="hardware",
    )
    attention: Literal["auto", "eager", "sdpa"] = option(
        "attention kernel; auto: the faster one on this machine", "auto", section="hardware"
    )
    sharding: Literal["none", "full"] = option(
        "under torchrun: none (each process holds the model) or full (FSDP: weights, gradients and moments are split)",
        "none",
        decides=False,
        section="hardware",
    )
    log_steps: int = option(
        "steps between two lines of log.jsonl, and the fewest steps between checkpoints",
        20,
        decides=False,
        at_least=1,
        section="output",
    )
    checkpoint_seconds: float = option(
        "seconds between checkpoints, from which an interrupted run resumes",
        60.0,
        decides=False,
        at_least=0,
        section="output",
    )
    diagnostics: Literal["on", "off"] = option(
        "measure the loss terms in the first steps and their gradients now and then; does not change the training",
        "on",
        decides=False,
        section="output",
    )
    report_to: tuple[str, ...] | None = option(
        "experiment trackers of accelerate, such as tensorboard or wandb", None, decides=False, section="output"
    )
    callbacks: tuple[Callback, ...] = python_option(
        "objects that are called after each step and each epoch, see `demiglace.Callback`", (), check_callbacks
    )


def check_options(config: TrainConfig) -> None:
    """Raise `ConfigError` for options that contradict each other."""
    if config.lr_scheduler == "wsd" and config.warmup_ratio + config.decay_ratio > 1:
        raise ConfigError(
            f"--warmup-ratio {config.warmup_ratio:g} and --decay-ratio {config.decay_ratio:g} are more than all steps; "
            "give shares whose sum is at most 1."
        )
    if config.sharding != "none" and config.precision == "fp16":
        raise ConfigError(
            f"--sharding {config.sharding} was given with --precision fp16, whose loss scaling needs the gradients of "
            "all processes; give --precision bf16 or fp32, or --sharding none."
        )
    if config.sharding != "none" and config.compile:
        raise ConfigError(
            f"--sharding {config.sharding} was given with --compile, which is not supported; leave one of them out."
        )
    if config.patience is not None and not config.load_best_model_at_end:
        raise ConfigError(
            f"--patience {config.patience} waits for a better epoch, and --load-best-model-at-end false keeps the last "
            "one; leave one of them out."
        )
