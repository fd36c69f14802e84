"""Whether a teacher is fit to teach, told before the training: a wrong one costs a whole run."""

import numpy as np
from transformers import PreTrainedModel

from demiglace.console import say
from demiglace.data.tokenise import Examples, select
from demiglace.evaluation.predict import predict

_LEAST, _MOST = 64, 256
_SHARE = 64  # of that many training rows one is looked at, so that it takes less than 1 % of the run


def look_at_teacher(
    teacher: PreTrainedModel, validation: Examples, precision: str, training_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Print how well the teacher does on 64 to 256 validation rows, and warn where that is no better than chance.

    Returns the labels [N] and the teacher's logits [N, C] of these rows.
    Chance is the share of the most frequent class; of numbers, the error of their mean.
    """
    count = min(max(_LEAST, training_rows // _SHARE), _MOST, len(validation))
    rows = select(validation, np.random.default_rng(0).permutation(len(validation))[:count])
    mode = "not in eval mode" if any(m.training for m in teacher.modules()) else "in eval mode"
    logits = predict(teacher, rows, precision=precision)
    name, own, chance = _scores(rows.labels, logits)
    say(f"teacher: {mode}, {name} {own:.3f} on {count} validation rows, {chance:.3f} by chance")
    if own <= chance:
        say("warning: the teacher is no better than chance; was it fine-tuned on this task, with these labels?")
    return rows.labels, logits


def _scores(labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
    """The name of the score, the teacher's, and that of chance. R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² for numbers."""
    if labels.dtype.kind == "f":
        spread = float(np.square(labels - labels.mean()).sum()) or 1.0
        return "R²", 1 - float(np.square(labels - logits[:, 0]).sum()) / spread, 0.0
    right = float((logits.argmax(axis=1) == labels).mean())
    return "accuracy", right, float(np.unique(labels, return_counts=True)[1].max() / len(labels))
