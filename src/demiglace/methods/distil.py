"""DistilBERT: Sanh et al. 2019, *DistilBERT, a distilled version of BERT*, arXiv 1910.01108; its triple loss.

The paper pre-trains a masked language model. Here the same three terms also train causal language models (--corpus), as
for DistilGPT2, and classifiers (--data). For classifiers, the loss on the labels replaces the language-modelling loss.
A narrower student's states are mapped to the teacher's width by a trained linear map; of equal widths they are compared
directly, as in the paper.

Deviation: the cosine compares the output of the last layers, before a decoder's final norm (GPT-2's ln_f), as all
methods here do. The authors' script compares the last hidden states of transformers, which come after that norm.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import Final
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Projection
from demiglace.models.pooling import POOLING_HELP, StateOption


@dataclass(frozen=True)
class Distil:
    """α_ce·τ²·KL + α_lm·CE + α_cos·(1 − cos(h^S, h^T)), h the last layers' states of every token."""

    kd_weight: float = option("α_ce, weight of the loss on the teacher's logits", 5.0, at_least=0)
    task_weight: float = option(
        "α_lm, weight of the loss on the labels, or on the tokens of a language model", 2.0, at_least=0
    )
    cosine_weight: float = option("α_cos, weight of the loss on the hidden states", 1.0, at_least=0)
    temperature: float = option("τ, softmax temperature", 2.0, above=0)
    pooling: StateOption = option(
        f"tokens: no pooling, as in the paper, so the teacher runs in every epoch; {POOLING_HELP}", "tokens"
    )

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        to_teacher = Projection("auto", teacher=False)  # for a narrower student; of equal widths none
        return Method(
            (
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.cosine_weight, LayerDistillation(Final(), self.pooling, "cosine", to_teacher)),
            )
        )
