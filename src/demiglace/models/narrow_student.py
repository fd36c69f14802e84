"""Prune the width of a truncated student by what its units do in the model that it was truncated from."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from demiglace.console import notice
from demiglace.data.tokenize import TokenizedSplit
from demiglace.models.prune_width import Units, choose_units, magnitudes, smaller_sizes
from demiglace.models.truncate import Keep
from demiglace.models.width import FEED_FORWARD, HIDDEN, narrow_config, sizes_of
from demiglace.models.width_importance import importance_on_rows

BY_GRADIENTS = "activations and gradients"
BY_MAGNITUDE = "weight magnitude"


def student_units(
    model: PreTrainedModel,
    student: PreTrainedModel,
    keep: Keep,
    sizes: Mapping[str, int],
    rows: TokenizedSplit | None,
) -> Units:
    """Return the units that the student keeps for these sizes.

    Args:
        model: the model that the student was truncated from.
        student: of its layers.
        keep: these layers, ascending.
        sizes: of `models.width.SIZES`, each with the size to prune to.
        rows: text on which the importance of units is measured in the full model. None: the size of the student's
            weights decides, which a notice says.

    Raises:
        ModelError: as `narrow_config` and `measure_importance` do.
    """
    smaller = smaller_sizes(student.config, narrow_config(student.config, **sizes))
    if rows is None:
        notice(
            "units without text",
            "warning: the units to keep are chosen by the size of their weights, which needs no text; give text as "
            "--calibration to choose them by what they do in the model.",
        )
        return choose_units(student, smaller, magnitudes(student, smaller))
    scores = importance_on_rows(model, rows, smaller)
    of_student = {size: of_units if size == HIDDEN else of_units[list(keep)] for size, of_units in scores.items()}
    return choose_units(student, smaller, of_student)


def describe_width(before: PreTrainedModel, after: PreTrainedModel, measure: str, text: str = "") -> str:
    """Return a line for the user: sizes before and after, and how the units were chosen."""
    words = ", ".join(
        f"{name} {old:,} -> {new:,}"
        for (name, old), new in zip(sizes_of(before.config).items(), sizes_of(after.config).values(), strict=True)
        if old != new
    )
    return f"width: {words or 'unchanged'}; units chosen by {measure}{f' on {text}' if text else ''}"


def width_facts(before: PreTrainedModel, after: PreTrainedModel, units: Units, measure: str) -> dict[str, Any]:
    """Return the manifest's fields about a narrower model: sizes, measure, and the heads and channels that are kept.

    Kept feed-forward units, of which a large model has too many for a manifest, are left out; `width.json` has them.
    """
    kept: dict[str, Sequence[Sequence[int]]] = {name: of for name, of in units.items() if name != FEED_FORWARD}
    sizes = {"before": sizes_of(before.config), "after": sizes_of(after.config)}
    return {"width": {**sizes, "measure": measure, "kept": kept}}
