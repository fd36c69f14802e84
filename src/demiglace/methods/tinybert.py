"""TinyBERT: Jiao et al. 2020, *TinyBERT: Distilling BERT for Natural Language Understanding*, arXiv 1909.10351.

Only the task-specific distillation (sec. 3.2) is implemented. Deviations:

- Means are over real tokens; the authors' code also counts padding.
- No data augmentation (give more text with --unlabelled), and no general distillation beforehand.
- KL replaces the soft cross-entropy; the two differ by a constant.
- W_h and W_e start as the identity if widths are equal, not at random. With random maps, equal states would start far
  apart.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.phases import PhaseOptions
from demiglace.methods.terms.attention import AttentionDistance, AttentionDistillation
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import ExplicitMapping, UniformMapping
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Projection


@dataclass(frozen=True)
class TinyBERT(PhaseOptions):
    """First Σ_i MSE(A_i^S, A_g(i)^T) + Σ_i MSE(H_i^S W_h, H_g(i)^T) + MSE(E^S W_e, E^T), then τ²·KL; g(i) = i·n/m.

    A are the attention scores before the softmax (eq. 7), H the hidden states of layers (eq. 8) and E the output of the
    embeddings (eq. 9). The second phase is eq. 10.
    """

    transfer_share: float = option(
        "first phase, as a share of all epochs, between 0 and 1; the paper: 10 of 13", 10 / 13, above=0, below=1
    )
    attention_on: AttentionDistance = option(
        "compare attention scores (as in the paper), probabilities (their softmax), or kl (KL of these)", "scores"
    )
    attention_weight: float = option("weight of the loss on attention", 1.0, at_least=0)
    hidden_weight: float = option("weight of the loss on hidden states", 1.0, at_least=0)
    embedding_weight: float = option("weight of the loss on the output of the embeddings", 1.0, at_least=0)
    temperature: float = option("τ, softmax temperature of the second phase", 1.0, above=0)
    task_weight: float = option("weight of the loss on the labels in the second phase; 0 in the paper", 0.0, at_least=0)

    def method(self) -> Method:
        """Return the method: three loss terms in the first phase; KD, and CE if its weight is not 0, in the second."""
        project = Projection("shared", teacher=False)
        attention = AttentionDistillation(UniformMapping(), ("query-key",), self.attention_on, reduction="sum")
        hidden = LayerDistillation(UniformMapping(), "tokens", "mse", project, reduction="sum")
        embeddings = LayerDistillation(ExplicitMapping((0,), (0,)), "tokens", "mse", project)
        labels = (WeightedTerm(self.task_weight, TaskLoss(), phase=1),) if self.task_weight else ()
        return Method(
            (
                WeightedTerm(self.attention_weight, attention, phase=0),
                WeightedTerm(self.hidden_weight, hidden, phase=0),
                WeightedTerm(self.embedding_weight, embeddings, phase=0),
                WeightedTerm(1.0, LogitDistillation(self.temperature), phase=1),
                *labels,
            ),
            phases=(self.transfer_share, 1 - self.transfer_share),
            short_phases=self.short_phases,
        )
