"""Text made by a generator that is trained to part student and teacher: the augmentation of MATE-KD."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import option
from demiglace.methods.base import Augmentation


@dataclass(frozen=True)
class AdversarialMasking(Augmentation):
    """A language model refills some of a row's tokens so that teacher and student differ more.

    Rashid et al. 2021, arXiv 2105.05912, eq. 3 and algorithm 1. Between its steps the generator is as it is.
    """

    name = "adversarial-masking"

    mask_share: float = option("p, the share of tokens that are masked and refilled", 0.3, above=0, at_most=1)
    gumbel_temperature: float = option("temperature of the straight-through Gumbel-softmax", 1.0, above=0)
    generator: str | None = option(
        "language model of the same vocabulary, masked or causal; none: the teacher's body with its embeddings as "
        "output layer, which is noise for most encoders",
        None,
    )
    allow_poor_generator: bool = option(
        "train even if the generator predicts hardly any masked token, so that what it fills in is noise", False
    )
    objective: Literal["kl", "mse"] = option(
        "what the generator maximises: kl, KL(teacher ‖ student), or mse, the squared error of their logits", "kl"
    )
    train_generator: bool = option("train the generator; false: it refills as it is", True)
    generator_lr: float = option("learning rate of the generator's AdamW", 5e-7, above=0)
    generator_steps: int = option("steps of the generator …", 10, at_least=1)
    student_steps: int = option("… in so many steps of the student", 100, at_least=1)

    def learns_at(self, step: int) -> bool:
        """Whether the generator takes a step before the student's step of this number."""
        return self.train_generator and step % self.student_steps < self.generator_steps
