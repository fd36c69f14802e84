"""Which methods train which kinds of problem, as docs/token-classification.md and docs/sentence-encoders.md say."""

from collections.abc import Callable
from pathlib import Path

from demiglace.config.command_options import DistillConfig
from demiglace.distillation.classifier import check_unit
from demiglace.distillation.sentence_encoder import for_embeddings
from demiglace.errors import ConfigError
from demiglace.methods.base import Method
from demiglace.methods.registry import METHODS, build_method
from demiglace.tasks.multi_label import MULTI_LABEL
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION

LABELS_ALONE = {"none", "minilm", "minilmv2", "annealing-kd", "combined-kd", "rail-annealing"}
SCORES_OF_CLASSES = {"pseudo-labels", "continuation-kd", "universal-kd", "mate-kd", "rail-mate"}


def refused(check: Callable[[str, Method], object]) -> set[str]:
    """Return the methods that a check refuses."""
    found = set()
    for name in METHODS:
        try:
            check(name, build_method(name, {}))
        except ConfigError:
            found.add(name)
    return found


def test_words_and_sets_of_labels_are_trained_by_all_methods_but_one() -> None:
    def check(task):
        return refused(
            lambda name, method: check_unit(DistillConfig(teacher="t", output=Path("o"), method=name), method, task)
        )

    assert check(TOKEN_CLASSIFICATION) == {"universal-kd"}
    assert check(MULTI_LABEL) == set()


def test_embeddings_are_trained_by_methods_that_need_neither_labels_nor_classes() -> None:
    assert refused(for_embeddings) == LABELS_ALONE | SCORES_OF_CLASSES
