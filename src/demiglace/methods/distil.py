"""DistilBERT: Sanh et al. 2019, *DistilBERT, a distilled version of BERT*, arXiv 1910.01108; its triple loss.

There it pre-trains a masked language model. Here the same three terms serve language models (--corpus), causal ones as
for DistilGPT2, and classifiers (--data), with the labels' loss in the place of the language model's. A student that is
narrower than the teacher cannot be compared by cosine.

Deviation: the states that the cosine compares are the last layers' output, before a decoder's final norm (GPT-2's
ln_f), as everywhere here; the authors' script compares transformers' last hidden states, which are computed after it.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import Final
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.models.pooling import POOLING_HELP, StateOption


@dataclass(frozen=True)
class Distil:
    """α_ce·τ²·KL + α_task·CE + α_cos·(1 − cos(h^S, h^T)), h the last layers' states of every token."""

    kd_weight: float = option("α_ce, the weight of the teacher's logits", 5.0, at_least=0)
    task_weight: float = option("α_lm, the weight of the labels', or the next tokens', loss", 2.0, at_least=0)
    cosine_weight: float = option("α_cos, the weight of the hidden states", 1.0, at_least=0)
    temperature: float = option("τ", 2.0, above=0)
    pooling: StateOption = option(
        f"tokens: no pooling, as in the paper, and the teacher runs every epoch; {POOLING_HELP}", "tokens"
    )

    def method(self) -> Method:
        """The three terms."""
        return Method(
            (
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.cosine_weight, LayerDistillation(Final(), self.pooling, "cosine")),
            )
        )
