"""Small pieces for tests of the stages: rows that can be learned, command lines, and commands in a process to kill."""

import csv
import json
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from demiglace.cli import main
from demiglace.config.options import options_of
from demiglace.methods.registry import METHODS

GOOD, BAD = ("good", "great", "yes"), ("bad", "awful", "no")
NEUTRAL = ("the", "film", "card", "money", "red", "blue", "green")
QUICK = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "log_steps": 1}
SAVED = QUICK | {"checkpoint_seconds": 0}  # a checkpoint after every step, which takes as long as the step
# what a manifest of finetune and distill holds beside format, stage, config, inputs, versions and machine
RESULTS = {
    *("task", "problem", "labels", "rows", "drops", "method", "precision", "layers", "parameters", "bytes"),
    *("best_epoch", "metrics", "seconds", "rows_per_second"),
}


def lenient(method: str) -> dict[str, bool]:
    """The options that let a method have phases of one epoch and an untrained generator, where it has such options."""
    names = {o.name for o in options_of(METHODS[method].options)}
    return {name: True for name in ("short_phases", "allow_poor_generator") if name in names}


def words(generator: np.random.Generator) -> tuple[str, int]:
    """A text of distinct words, and how many more good ones than bad ones it has."""
    chosen = generator.permutation([*GOOD, *BAD, *NEUTRAL])[: generator.integers(3, 8)].tolist()
    return " ".join(chosen), sum(w in GOOD for w in chosen) - sum(w in BAD for w in chosen)


def write_rows(directory: Path, kind: str = "classes", train: int = 36, held_out: int = 12) -> dict[str, str]:
    """Files of rows whose label is in the words; returns the options that name them.

    kind: classes (negative and positive), pairs (whether two texts are of one mood), integers (0, 1) or regression.
    """
    generator, seen, options = np.random.default_rng(0), set(), {}
    for split, count in (("data", train), ("validation", held_out), ("test", held_out)):
        rows: list[dict[str, Any]] = []
        while len(rows) < count:
            row = _row(generator, kind)
            if tuple(row.values())[:-1] not in seen:
                seen.add(tuple(row.values())[:-1])
                rows.append(row)
        options[split] = str(write_csv(directory / f"{split}.csv", rows))
    return options


def _row(generator: np.random.Generator, kind: str) -> dict[str, Any]:
    text, mood = words(generator)
    match kind:
        case "pairs":
            other, other_mood = words(generator)
            return {"sentence1": text, "sentence2": other, "label": "same" if mood * other_mood > 0 else "different"}
        case "integers":
            return {"text": text, "label": int(mood > 0)}
        case "regression":
            return {"text": text, "score": mood / 2 + 0.25}
    return {"text": text, "label": "positive" if mood > 0 else "negative"}


def write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A CSV file of these rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def arguments(command: str, **options: Any) -> list[str]:
    """The command line of a command with these options; none is left out, a mapping is given name by name."""
    line = [command]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, dict):
            line += [word for key, each in value.items() for word in (f"{flag}.{key}", str(each))]
        elif value is not None:
            line += [flag, *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    return line


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind in a run's log."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def weights(run: Path, which: str = "model") -> dict[str, torch.Tensor]:
    """The tensors of RUN/model or RUN/last."""
    return load_file(run / which / "model.safetensors")


def close(one: Path, other: Path, tolerance: float, which: str = "model") -> None:
    """Assert that two runs have the same weights within a tolerance.

    The biases of attention keys are left out: they shift all scores of a query alike, so their true gradient is 0,
    and Adam makes whole steps of what rounding leaves of it.
    """
    ours, theirs = weights(one, which), weights(other, which)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if not name.endswith("key.bias"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=name)


def damage(file: Path, how: str) -> None:
    """Cut a file in half, or flip a bit in its middle or near its end."""
    content = bytearray(file.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2 if how == "middle" else -9] ^= 1
    file.write_bytes(content)


def in_child(line: Sequence[str], prepare: Callable[[], None]) -> int:
    """Run a command line in a forked process, after `prepare`; its exit code, or minus the signal that killed it."""
    return ended(start(line, prepare))


def start(line: Sequence[str], prepare: Callable[[], None]) -> int:
    """The id of a forked process that runs a command line after `prepare`.

    A fork, because a fresh interpreter would spend seconds on importing torch and transformers.
    """
    child = os.fork()
    if child == 0:
        code = 99
        try:
            prepare()
            code = main(line)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a process; its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def strike(owner: Any, name: str, at: int = 1, *, after: bool = False, number: int = signal.SIGKILL) -> None:
    """Let the `at`-th call of `owner.name` meet a signal instead, or just after it has returned."""
    original, calls = getattr(owner, name), 0

    def struck(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and not after:
            os.kill(os.getpid(), number)
        result = original(*args, **options)
        if calls == at and after:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, struck)
