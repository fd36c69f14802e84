"""Language modelling on a corpus: the next token, or the masked ones."""

from typing import TYPE_CHECKING

from demiglace.tasks.base import Metric, Task

if TYPE_CHECKING:
    from torch import Tensor


class LanguageModelling(Task):
    """Labels are token ids; logits are over the vocabulary, and are computed a chunk of tokens at a time."""

    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the cross-entropy of each token, in nats."""
        import torch.nn.functional as F

        return F.cross_entropy(logits, labels, reduction="none", ignore_index=-100)

    def hub_task(self, *, masked: bool) -> str:
        """Return fill-mask or text-generation."""
        return "fill-mask" if masked else "text-generation"


LANGUAGE_MODELLING = LanguageModelling(
    name="language-modelling",
    reads="corpus",
    unit="token",
    metrics={
        "loss": Metric("Loss", "loss", higher_is_better=False, unit="plain", decimals=3),
        "perplexity": Metric("Perplexity", "perplexity", higher_is_better=False, unit="plain", decimals=3),
    },
    default_metrics=("loss", "perplexity"),
)
