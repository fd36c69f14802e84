"""Checks of a teacher and of a generator on a few rows before training, since a wrong one costs a full run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from demiglace.console import say
from demiglace.data.batching import collate, forward_tokens, sorted_batches
from demiglace.data.text.blocks import Blocks
from demiglace.data.tokenize import TokenizedSplit, select
from demiglace.errors import ModelError
from demiglace.evaluation.predict import predict
from demiglace.evaluation.scores import by_unit
from demiglace.methods.base import TrainingProgress
from demiglace.runs.processes import processes
from demiglace.signals.request import SignalRequest
from demiglace.signals.sinks import Sinks, find_sinks
from demiglace.tasks.base import RowTask
from demiglace.training.adversarial_generator import AdversarialGenerator
from demiglace.training.run import TrainingRun

_LEAST, _MOST = 64, 256
# A generator must predict this share of the masked tokens, and this many times the share of the most frequent one. On
# SST-2 the most frequent token is 5 % of them, which a generator that knows only the tokens' frequencies reaches. A
# fine-tuned MiniLM's body reaches 0 %; MiniLM after one epoch of masked language modelling on 20,000 sentences, 19 %; a
# new model of 2 layers after three such epochs, 4 %.
FLOOR, FLOOR_OF_FREQUENT = 0.1, 2.0
_SHARE = 64  # one of so many training rows is checked, so that the check takes less than 1 % of the run


def check_teacher_accuracy(
    teacher: PreTrainedModel, validation: TokenizedSplit, precision: str, training_rows: int, task: RowTask
) -> tuple[np.ndarray, np.ndarray]:
    """Print the teacher's score on 64 to 256 validation rows, and warn if it is no better than chance.

    Score and chance are the kind's `score_and_chance`. Returns the labels [N] and the teacher's logits [N, C] of these
    rows, or of their words.
    """
    rows = _some(validation, training_rows)
    count = len(rows)
    mode = "not in eval mode" if any(m.training for m in teacher.modules()) else "in eval mode"
    logits = predict(teacher, rows, precision=precision)
    name, score, chance = task.score_and_chance(rows.labels, logits)
    say(f"teacher: {mode}, {name} {score:.3f} on {count} validation rows, {chance:.3f} by chance")
    if score <= chance:
        say("warning: the teacher is no better than chance; was it fine-tuned on this task, with these labels?")
    return by_unit(rows.labels, logits, task)


@dataclass(frozen=True)
class GeneratorSkill:
    """How well a generator predicts the tokens that it would refill in some rows."""

    tokens: int  # how many they are
    accuracy: float  # share of them whose most probable token is the right one
    most_frequent: float  # share of the most frequent token among them: the accuracy of one that ignores the text

    @property
    def is_poor(self) -> bool:
        """Whether the accuracy is below the floor."""
        return self.accuracy < max(FLOOR, FLOOR_OF_FREQUENT * self.most_frequent)


def check_generator(adversary: AdversarialGenerator, validation: TokenizedSplit, training_rows: int) -> GeneratorSkill:
    """Measure and print how many masked tokens of 64 to 256 validation rows the generator predicts.

    Raises `ModelError` for a generator below the floor, unless the method's options allow it.
    """
    skill = _skill(adversary, _some(validation, training_rows))
    result = (
        f"predicts {skill.accuracy:.1%} of {skill.tokens:,} masked tokens; the most frequent token would be right for "
        f"{skill.most_frequent:.1%}"
    )
    if skill.is_poor and not adversary.options.allow_poor_generator:
        name = "the generator" if adversary.options.generator else "the generator, made of the teacher's own body,"
        raise ModelError(
            f"{name} {result}. It must predict at least {FLOOR:.0%}, and {FLOOR_OF_FREQUENT:g} times as many as the "
            "most frequent token; below that its text is noise. Give a language model of the teacher's "
            "vocabulary with --method-options.generator: a masked model from the hub, or one trained on the task's "
            "text by `demiglace pretrain --model BASE --corpus FILE`, where BASE is the model that the teacher was "
            "fine-tuned from. To train with this generator nevertheless, give "
            "--method-options.allow-poor-generator true."
        )
    say(f"generator: {result}")
    return skill


def _skill(adversary: AdversarialGenerator, rows: TokenizedSplit) -> GeneratorSkill:
    batches = (
        collate(rows, r, adversary.device) for r in sorted_batches(rows.lengths, forward_tokens(adversary.device))
    )
    # [2, M]: the tokens and the predictions
    found = torch.cat(
        [torch.stack(adversary.predictions(batch, TrainingProgress(0, 0, 0))) for batch in batches], dim=1
    ).cpu()
    tokens, predicted = found
    count = len(tokens)
    if not count:
        return GeneratorSkill(0, 0.0, 0.0)
    return GeneratorSkill(count, int((tokens == predicted).sum()) / count, int(tokens.bincount().max()) / count)


def _some(validation: TokenizedSplit, training_rows: int) -> TokenizedSplit:
    """Return 64 to 256 of the rows, drawn with seed 0."""
    count = min(max(_LEAST, training_rows // _SHARE), _MOST, len(validation))
    return select(validation, np.random.default_rng(0).permutation(len(validation))[:count])


def look_at_states(
    teacher: PreTrainedModel, training: TokenizedSplit | Blocks, request: SignalRequest, precision: str
) -> dict[str, Any]:
    """Print how the teacher's hidden states are pooled and which attention sinks they have; return both.

    Warn if the sinks dominate a pooling: the pooled states of all rows are then nearly equal.
    """
    poolings, layers = request.poolings, {layer for _, layer in request.hidden}
    sinks = find_sinks(teacher, training, layers, precision)
    say(f"hidden states: pooled by {' and '.join(poolings)}; {_described(sinks)}")
    for pooling in poolings:
        if (pooling == "mean" and sinks.layers) or (pooling == "first" and sinks.first):
            say(
                f"warning: with the pooling {pooling}, attention sinks make the pooled states of all rows nearly the "
                "same, so that matching them has little effect; take the pooling normalized-mean (or auto) if the "
                "method has it."
            )
    return {"poolings": list(poolings), "sinks": asdict(sinks)}


def _described(sinks: Sinks) -> str:
    times = f"{sinks.largest_ratio:g} times the median of its row"
    if not sinks.layers:
        return f"no attention sinks in the teacher on {sinks.rows} rows (the largest norm of a token is {times})"
    counts = {"first": sinks.first, "last": sinks.last, "other": sinks.between}
    tokens = ", ".join(f"{count} {name} tokens" for name, count in counts.items() if count)
    return (
        f"attention sinks in the teacher's layers {_ranges(sinks.layers)}: {tokens} of {sinks.rows} rows (the largest "
        f"norm of a token is {times})"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ranges, such as ``3, 12 to 29``."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(f"{g[0]} to {g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)


def with_hidden_states(
    training_run: TrainingRun,
    teacher: PreTrainedModel,
    requests: Sequence[SignalRequest],
    training: TokenizedSplit | Blocks,
) -> TrainingRun:
    """Return the training run with what `look_at_states` finds, if the run pools hidden states.

    training: the examples in the teacher's tokens. Without effect with `--diagnostics off`, and on all but the main
    process.
    """
    request = reduce(or_, requests)
    pools = any(pooling != "tokens" for pooling in request.poolings)
    if not pools or training_run.config.diagnostics == "off" or not processes().is_main_process:
        return training_run
    states = look_at_states(teacher, training, request, training_run.precision)
    return replace(training_run, findings={**training_run.findings, "hidden_states": states})
