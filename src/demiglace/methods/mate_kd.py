"""MATE-KD: Rashid et al. 2021, *MATE-KD: Masked Adversarial TExt, a Companion to Knowledge Distillation*,
arXiv 2105.05912.

Deviations: a generator step takes the rows of the student's step beside it, where the authors' code gives them rows of
their own; [CLS], [SEP], padding and their like are neither masked nor filled in; generator and student are without
dropout in generator steps; the generator's divergence is at temperature 1 whatever τ is.

The authors' generator is a pre-trained masked language model. Name one of the teacher's vocabulary by `generator`.
Without it, the generator is a copy of the teacher's body with its input embeddings as output layer. For a decoder with
tied embeddings that is its own language model. For an encoder it is noise, since the head of its masked language model
is lost: on SST-2, a fine-tuned MiniLM's predicts 0 of 1,756 masked tokens. So each run first measures how many masked
tokens the generator predicts, and is refused if they are too few (see `allow_poor_generator`).

Decoders have no mask token and need none: a causal generator predicts a token from the state of the previous
position, which has not seen that token. So it refills positions without masking any. It sees the original text to the
left, where a masked language model sees both sides with the other positions masked. A row's first token stays.
"""

from dataclasses import dataclass

from demiglace.config.options import group, option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class MateKD:
    """λ1·CE(x) + λ2·τ²KL(T(x) ‖ S(x)) + λ3·τ²KL(T(x') ‖ S(x')), x' refilled by a generator that maximises the last."""

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits on the text", 1 / 3, at_least=0)
    perturbed_weight: float = option("λ3, their weight on the perturbed text", 1 / 3, at_least=0)
    temperature: float = option("τ", 1.0, above=0)
    masking: AdversarialMasking = group(AdversarialMasking)

    def method(self) -> Method:
        """The three terms."""
        logits = LogitDistillation(self.temperature)
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, logits),
                WeightedTerm(self.perturbed_weight, logits, on="perturbed"),
            ),
            augmentation=self.masking,
        )
