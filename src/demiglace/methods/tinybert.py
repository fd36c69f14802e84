"""TinyBERT: Jiao et al. 2020, *TinyBERT: Distilling BERT for Natural Language Understanding*, arXiv 1909.10351.

Task-specific distillation (sec. 3.2) alone. Deviations: means over real tokens where the authors' code also counts
padding; no data augmentation (give more text with --unlabelled), no general distillation before; KL replaces the soft
cross-entropy, from which it differs by a constant. W_h and W_e start as the identity
where widths are equal, and not at random: otherwise equal states would count as far apart.
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

    A are the attention scores before the softmax (eq. 7), H and E the states after layers and embeddings (eq. 8, 9);
    the second phase is eq. 10.
    """

    transfer_share: float = option(
        "share of the epochs for the first phase; the paper's 10 of 13", 10 / 13, above=0, below=1
    )
    attention_on: AttentionDistance = option("scores (the paper), their softmax (probabilities), or its kl", "scores")
    attention_weight: float = option("weight of attention", 1.0, at_least=0)
    hidden_weight: float = option("weight of hidden states", 1.0, at_least=0)
    embedding_weight: float = option("weight of the embeddings' output", 1.0, at_least=0)
    temperature: float = option("τ of the second phase", 1.0, above=0)
    task_weight: float = option("weight of the labels' loss in the second phase; the paper has none", 0.0, at_least=0)

    def method(self) -> Method:
        """Three terms, then one, or two with the labels' loss."""
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
