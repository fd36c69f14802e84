"""kill -9 at chosen moments, then the same command again: the run's end is that of one that nobody disturbed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_kit import SAVED, arguments, in_child, records, strike

from demiglace.cli import main
from demiglace.runs import directory as manifest
from demiglace.runs.directory import read_manifest
from demiglace.signals import hidden_state_cache, shard_store
from demiglace.training import checkpoint, datasets, loop
from demiglace.training import run as fit
from demiglace.training.adversarial_generator import AdversarialGenerator
from demiglace.training.log import RunLog

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# 36 rows in steps of 8 make 5 steps an epoch. Every step writes a line of the log and a checkpoint, except that the
# last one of an epoch is followed by two checkpoints (best and last).
TRAINING: dict[str, tuple[Any, str, int, bool]] = {
    "before the first line of the log": (RunLog, "write", 1, False),
    "after a line of the log": (RunLog, "write", 3, True),
    "before the first checkpoint": (loop, "save_checkpoint", 1, False),
    "after a checkpoint": (loop, "save_checkpoint", 3, True),
    "before a checkpoint's draft is put in place": (checkpoint, "save_file", 4, True),
    "between the best and the last checkpoint of an epoch": (loop, "save_checkpoint", 5, True),
    "after an epoch": (loop, "save_checkpoint", 6, True),
    "during the evaluation of an epoch": (datasets, "predict", 2, False),
    "before RUN/last": (fit, "save_model", 1, False),
    "while RUN/last is written": (fit, "write_model", 1, True),
    "while RUN/model is written": (fit, "write_model", 2, True),
    "during the last evaluation": (datasets, "predict", 4, False),
    "before the manifest": (manifest.Run, "finish", 1, False),
    "after the manifest": (fit, "remove_leftovers", 1, False),
}
CAPTURE: dict[str, tuple[Any, str, int, bool]] = {
    "before the cache is claimed": (shard_store, "write_json", 1, False),
    "before the first shard": (shard_store, "_write_shard", 1, False),
    "before a shard's receipt": (shard_store, "write_json", 3, False),
    "after a shard": (shard_store, "_write_shard", 2, True),
    "after the last shard": (shard_store, "_write_shard", 3, True),
}
# of the generator of `mate-kd`, which takes a step before every other one of the student's
ADVERSARY: dict[str, tuple[Any, str, int, bool]] = {
    "before the generator's first step": (AdversarialGenerator, "train_step", 1, False),
    "in the middle of a generator's step": (AdversarialGenerator, "_divergence", 3, True),
    "after a generator's step": (AdversarialGenerator, "train_step", 4, True),
}
# of `annealing-kd`, whose second phase of two begins with the sixth step, from the first one's best epoch
PHASES: dict[str, tuple[Any, str, int, bool]] = {
    "at the end of the first phase": (loop.Loop, "_end_epoch", 1, True),
    "before the second phase loads its weights": (loop.Loop, "best_weights", 1, False),
    "after the second phase loaded its weights": (loop, "load", 1, True),
    "in the second phase, after a checkpoint": (loop, "save_checkpoint", 8, True),
}


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_state_cache, "SHARD_ROWS", 16)
        yield


@pytest.fixture(scope="module")
def lines(base: Path, teacher: Path, rows: dict[str, str]) -> dict[str, Callable[[Path], list[str]]]:
    """The command lines under test, by output directory; with dropout and draws, so that all randomness counts."""
    chance = SAVED | {"dropout": 0.1}
    draws = {"layers": 2, "method": "rail-kd-l", "method_options": {"sampling": "step"}}
    often = {"generator_steps": 1, "student_steps": 2, "generator_lr": 1e-3, "allow_poor_generator": True}
    against = {"layers": 2, "method": "mate-kd", "method_options": often}
    phased = {"layers": 2, "method": "annealing-kd", "method_options": {"short_phases": True}}
    return {
        "annealing-kd": lambda output: arguments("distill", teacher=teacher, output=output, **rows, **chance, **phased),
        "finetune": lambda output: arguments("finetune", model=base, output=output, **rows, **chance),
        "distill": lambda output: arguments("distill", teacher=teacher, output=output, **rows, **chance, **draws),
        "mate-kd": lambda output: arguments("distill", teacher=teacher, output=output, **rows, **chance, **against),
    }


@pytest.fixture(scope="module")
def whole(home: Path, lines: dict[str, Callable[[Path], list[str]]]) -> Callable[[str], Path]:
    """An undisturbed run of a command."""

    def run(command: str) -> Path:
        output = home / f"whole-{command}"
        assert output.exists() or main(lines[command](output)) == 0
        return output

    return run


def assert_same_run(run: Path, whole: Path) -> None:
    """The same bits of weights, the same metrics and the same log (but for the clock), and nothing left over."""
    for file in ("model/model.safetensors", "last/model.safetensors", "model/config.json"):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file
    ours, theirs = read_manifest(run), read_manifest(whole)
    assert (ours["metrics"], ours["best_epoch"]) == (theirs["metrics"], theirs["best_epoch"])
    for kind in ("step", "mapping", "epoch"):
        assert [r | {"seconds": 0} for r in records(run, kind)] == [r | {"seconds": 0} for r in records(whole, kind)]
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in whole.iterdir())


MOMENTS = TRAINING | CAPTURE | ADVERSARY | PHASES
KILLS = {
    "finetune": list(TRAINING),
    "distill": [*CAPTURE, "after a checkpoint", "while RUN/model is written", "after the manifest"],
    "mate-kd": [*ADVERSARY, "after a checkpoint"],
    "annealing-kd": list(PHASES),
}


@pytest.mark.parametrize(("command", "moment"), [(c, m) for c, moments in KILLS.items() for m in moments])
def test_a_killed_run_ends_as_if_nothing_had_been(
    command: str, moment: str, tmp_path: Path, lines: dict[str, Any], whole: Callable[[str], Path]
) -> None:
    owner, name, at, after = MOMENTS[moment]
    line = lines[command](tmp_path / "run")
    assert in_child(line, lambda: strike(owner, name, at, after=after)) == -signal.SIGKILL
    assert main(line) == 0
    assert_same_run(tmp_path / "run", whole(command))


def test_shards_that_are_there_are_not_captured_again(
    tmp_path: Path, lines: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = lines["distill"](tmp_path / "run")
    assert in_child(line, lambda: strike(shard_store, "_write_shard", 2, after=True)) == -signal.SIGKILL
    captured, original = [], shard_store._write_shard

    def noted(directory: Path, shard: int, *rest: Any) -> None:
        captured.append(shard)
        original(directory, shard, *rest)

    monkeypatch.setattr(shard_store, "_write_shard", noted)
    assert main(line) == 0
    assert captured == [2]


def test_killed_again_and_again(tmp_path: Path, lines: dict[str, Any], whole: Callable[[str], Path]) -> None:
    line, kills = lines["finetune"](tmp_path / "run"), 0
    while (code := in_child(line, lambda: strike(loop, "save_checkpoint", 4))) == -signal.SIGKILL:
        kills += 1
    assert code == 0
    assert kills >= 3
    assert_same_run(tmp_path / "run", whole("finetune"))


def test_killed_in_the_middle_of_a_checkpoint_file(
    tmp_path: Path, lines: dict[str, Any], whole: Callable[[str], Path]
) -> None:
    def tear() -> None:
        original, calls = checkpoint.save_file, []

        def torn(tensors: Any, file: Path, metadata: Any) -> None:
            original(tensors, file, metadata)
            calls.append(file)
            if len(calls) == 4:
                os.truncate(file, file.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.save_file = torn

    line = lines["finetune"](tmp_path / "run")
    assert in_child(line, tear) == -signal.SIGKILL
    assert list((tmp_path / "run" / "checkpoints").glob("last.safetensors.*.part"))
    assert main(line) == 0
    assert_same_run(tmp_path / "run", whole("finetune"))


@pytest.mark.parametrize("command", ["finetune", "distill"])
def test_ctrl_c_says_how_to_go_on(
    command: str, tmp_path: Path, lines: dict[str, Any], whole: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    line = lines[command](tmp_path / "run")
    interrupt = lambda: strike(RunLog, "write", 5, number=signal.SIGINT)  # noqa: E731
    assert in_child(line, interrupt) == 130
    assert "interrupted; repeat the same command" in capfd.readouterr().err
    assert main(line) == 0
    assert_same_run(tmp_path / "run", whole(command))


def test_killed_in_a_second_phase_that_starts_from_an_earlier_epoch(
    tmp_path: Path, teacher: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of three epochs is the best of the first phase, and the last checkpoint is the one at its end."""
    scores = {0: 0.9, 1: 0.2, 2: 0.5}
    original, phase = loop.Loop._validate, {"method": "annealing-kd", "method_options": {"short_phases": True}}

    def measured(self: loop.Loop, seen: Any) -> dict[str, float]:
        return original(self, seen) | {"accuracy": scores[(self.state.step - 1) // self._epoch_length]}

    def line(output: Path) -> list[str]:
        given = rows | SAVED | {"epochs": 3, "dropout": 0.1, "layers": 2} | phase
        return arguments("distill", teacher=teacher, output=output, **given)

    monkeypatch.setattr(loop.Loop, "_validate", measured)
    assert main(line(tmp_path / "whole")) == 0
    assert [r["starts_from_epoch"] for r in records(tmp_path / "whole", "phase")] == [0]
    for moment in ((loop.Loop, "best_weights", 1, False), (loop.Loop, "_step", 12, False)):
        owner, name, at, after = moment
        run = tmp_path / f"{name}-{at}"
        with monkeypatch.context() as patch:
            patch.setattr(loop.Loop, "_is_save_due", lambda self: self.state.step in (3, 10))
            assert in_child(line(run), lambda: strike(owner, name, at, after=after)) == -signal.SIGKILL  # noqa: B023
            assert main(line(run)) == 0
        assert_same_run(run, tmp_path / "whole")
        assert records(run, "phase") == records(tmp_path / "whole", "phase")
