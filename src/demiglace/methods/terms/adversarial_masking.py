"""The augmentation of MATE-KD: a generator replaces tokens so that student and teacher disagree."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import option
from demiglace.methods.base import Augmentation


@dataclass(frozen=True)
class AdversarialMasking(Augmentation):
    """Options of a generator that masks tokens of a row and replaces them so that teacher and student differ more.

    Rashid et al. 2021, arXiv 2105.05912, eq. 3 and algorithm 1. The generator is trained in `generator_steps` out of
    every `student_steps` steps of the student; its weights are fixed in the others.
    """

    name = "adversarial-masking"

    mask_share: float = option(
        "p, share of tokens that are masked and replaced, between 0 and 1", 0.3, above=0, at_most=1
    )
    gumbel_temperature: float = option("temperature of the straight-through Gumbel-softmax", 1.0, above=0)
    generator: str | None = option(
        "language model with the teacher's vocabulary, masked or causal: directory or hub name; none: the teacher's "
        "body with its input embeddings as output layer, which generates noise for most encoders",
        None,
    )
    allow_poor_generator: bool = option(
        "train even if the generator predicts hardly any masked token and generates noise", False
    )
    objective: Literal["kl", "mse"] = option(
        "objective that the generator maximises: kl, KL(teacher ‖ student), or mse, squared error of the logits", "kl"
    )
    train_generator: bool = option("train the generator; false: keep its weights fixed", True)
    generator_lr: float = option("learning rate of the generator (AdamW)", 5e-7, above=0)
    generator_steps: int = option("generator steps in every student_steps steps of the student", 10, at_least=1)
    student_steps: int = option("student steps after which the generator steps repeat", 100, at_least=1)

    def trains_at(self, step: int) -> bool:
        """Return whether the generator takes a step before the student's step of this number, from 0."""
        return self.train_generator and step % self.student_steps < self.generator_steps
