"""MATE-KD: Rashid et al. 2021, *MATE-KD: Masked Adversarial TExt, a Companion to Knowledge Distillation*,
arXiv 2105.05912.

Deviations:

- A generator step uses the examples of the student step that follows; the authors' code uses other examples.
- [CLS], [SEP], padding and other special tokens are neither masked nor generated.
- Generator and student have no dropout in generator steps.
- The generator's divergence is computed at temperature 1, whatever τ is.

The authors' generator is a pre-trained masked language model. Name one that has the teacher's vocabulary with
`generator`. By default, the generator is a copy of the teacher's body with its input embeddings as output layer. For a
decoder with tied embeddings, this is a language model. For an encoder it generates noise, because the head of the
masked language model is lost: on SST-2, that of a fine-tuned MiniLM predicts 0 of 1,756 masked tokens. So each run
first measures the share of masked tokens that the generator predicts, and stops if it is too low
(`allow_poor_generator`).

A decoder needs no mask token. A causal generator predicts each selected token from the tokens to its left, so it does
not see the token that it replaces. It sees the original text there, while a masked language model sees both sides with
all selected tokens masked. The first token of a row is never replaced.
"""

from dataclasses import dataclass

from demiglace.config.options import group, option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class MateKD:
    """λ1·CE(x) + λ2·τ²KL(T(x) ‖ S(x)) + λ3·τ²KL(T(x') ‖ S(x')).

    x' is x with some tokens replaced by a generator, which is trained to maximise KL(T(x') ‖ S(x')).
    """

    task_weight: float = option("λ1, weight of the loss on the labels", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, weight of the loss on the teacher's logits for the original text", 1 / 3, at_least=0)
    perturbed_weight: float = option("λ3, weight of the same loss on the perturbed text", 1 / 3, at_least=0)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)
    masking: AdversarialMasking = group(AdversarialMasking)

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        logits = LogitDistillation(self.temperature)
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, logits),
                WeightedTerm(self.perturbed_weight, logits, input="perturbed"),
            ),
            augmentation=self.masking,
        )
