"""Options of the training loop."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config import option


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained, whatever the loss."""

    epochs: int = option("passes over the training rows", 3)
    lr: float = option("peak learning rate of AdamW", 1e-4)
    batch_size: int = option("rows an optimiser step, over all processes", 32)
    batch_tokens: int = option(
        "largest forward pass in padded tokens; a step beyond it is split and its gradients accumulated", 8192
    )
    warmup: float = option("share of the steps over which the learning rate rises from 0; then it falls to 0", 0.06)
    weight_decay: float = option("AdamW's weight decay (not on biases and norms)", 0.01)
    clip: float = option("largest gradient norm", 1.0)
    dropout: float | None = option("dropout in the trained model; none keeps what its config says", 0.0)
    seed: int = option("decides the order of the rows, dropout, new weights and random layer mappings", 0)
    precision: Literal["auto", "bf16", "fp32"] = option("auto: bf16 autocast where the hardware has it", "auto")
    attention: Literal["auto", "eager", "sdpa"] = option("attention kernel; auto: the faster one here", "auto")
    patience: int | None = option("stop after this many epochs without a better validation metric", None)
    metric: str | None = option("validation metric that chooses the best epoch; default: the task's first", None)
    checkpoint_seconds: float = option("time between checkpoints, from which a cut-off run goes on", 60.0, decides=False)
    track: tuple[str, ...] | None = option("trackers that accelerate knows, such as tensorboard", None, decides=False)
