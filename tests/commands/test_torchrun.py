"""Two processes train as one does: gloo on the CPU, at the same global batch."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState
from command_kit import (
    QUICK,
    SAVED,
    arguments,
    close,
    ended,
    in_child,
    lenient,
    records,
    start,
    strike,
    write_csv,
    write_rows,
)
from torch import nn
from torch.optim import Optimizer

from demiglace.cli import main
from demiglace.config.training import TrainConfig
from demiglace.models.language_model import load_language_model
from demiglace.runs import processes
from demiglace.runs.directory import read_manifest
from demiglace.signals import hidden_state_cache, shard_store
from demiglace.training import loop
from demiglace.training import run as fit
from text_kit import save_lm, sentences, write_jsonl

# 33 rows in steps of 8 make four whole steps and one of a single row, in which one of two processes has none; forward
# passes of 24 tokens cut the shares into different numbers of parts.
UNEVEN = QUICK | {"layers": 2, "batch_tokens": 24, "cache_dtype": "float32", "dropout": 0.0}
TOLERANCE = 2e-5
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def odd_rows(home: Path) -> dict[str, str]:
    return write_rows(home / "odd", train=33)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def assert_one_run(run: Path, alone: Path) -> None:
    """The result of one process, and one log, one manifest, nothing else."""
    for which in ("model", "last"):
        close(run, alone, TOLERANCE, which)
    ours, theirs = records(run, "step"), records(alone, "step")
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for key in ("loss", "gradient_norm"):
        assert [r[key] for r in ours] == pytest.approx([r[key] for r in theirs], rel=1e-4, abs=1e-7)
    assert records(run, "mapping") == records(alone, "mapping")
    assert read_manifest(run)["metrics"] == read_manifest(alone)["metrics"]
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in alone.iterdir())


def test_torchrun_with_a_cache(tmp_path: Path, teacher: Path, odd_rows: dict[str, str]) -> None:
    def line(output: Path) -> list[str]:
        return arguments("distill", teacher=teacher, output=output, **odd_rows, **UNEVEN)

    assert main(line(tmp_path / "alone")) == 0
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [sys.executable, *launch, "-m", "demiglace", *line(tmp_path / "two")]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_one_run(tmp_path / "two", tmp_path / "alone")
    assert len(re.findall("epoch 1/2", done.stderr)) == 1  # one process speaks


def as_rank(rank: int, port: int, prepare: Callable[[], None]) -> Callable[[], None]:
    """What makes a forked process one of the two that `torchrun` would start."""

    def become() -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({k: str(v) for k, v in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
        for state in (PartialState, AcceleratorState, GradientState):
            state._reset_state()
        prepare()

    return become


def on_two(line: Sequence[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command line on two forked processes, the first after `prepare`; the exit code of the first.

    The other is killed where the first fails, as `torchrun` does.
    """
    port = free_port()
    other = start(line, as_rank(1, port, lambda: None))
    first = in_child(line, as_rank(0, port, prepare))
    if first:
        os.kill(other, signal.SIGKILL)
    second = ended(other)
    assert first or second == 0
    return first


@needs_fork
def test_without_a_cache_and_with_unlabelled_rows(tmp_path: Path, teacher: Path, odd_rows: dict[str, str]) -> None:
    texts = [" ".join(["card", *["red"] * i]) for i in range(1, 17)]  # 49 rows in all: again one is left over
    file = write_csv(tmp_path / "more.csv", [{"text": t} for t in texts])
    given = {"cache": "off", "method": "vanilla-kd", "unlabelled": file} | odd_rows | UNEVEN

    def line(output: Path) -> list[str]:
        return arguments("distill", teacher=teacher, output=output, **given)

    assert main(line(tmp_path / "alone")) == 0
    assert on_two(line(tmp_path / "two")) == 0
    assert_one_run(tmp_path / "two", tmp_path / "alone")


@needs_fork
@pytest.mark.parametrize("method", ["tinybert", "combined-kd", "rail-balanced"])
def test_phases_that_use_different_parameters_and_starts_from_rows(
    method: str, tmp_path: Path, teacher: Path, odd_rows: dict[str, str]
) -> None:
    given = {"method": method, "method_options": lenient(method)} | odd_rows | UNEVEN

    def line(output: Path) -> list[str]:
        return arguments("distill", teacher=teacher, output=output, **given)

    assert main(line(tmp_path / "alone")) == 0
    assert on_two(line(tmp_path / "two")) == 0
    assert_one_run(tmp_path / "two", tmp_path / "alone")


@needs_fork
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_second_phase_starts_from_the_best_epoch(
    sharding: str, tmp_path: Path, teacher: Path, odd_rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two epochs of the first phase the first one is the better; all processes go back to it."""
    original, scores = loop.Loop._validate, [0.9, 0.2, 0.5]

    def measured(self: loop.Loop, rows: np.ndarray) -> dict[str, float]:
        return original(self, rows) | {"accuracy": scores[(self.state.step - 1) // self._epoch_length]}

    monkeypatch.setattr(loop.Loop, "_validate", measured)
    given = {"method": "annealing-kd", "method_options": lenient("annealing-kd")} | odd_rows | UNEVEN | {"epochs": 3}

    def line(output: Path, sharding: str) -> list[str]:
        return arguments("distill", teacher=teacher, output=output, sharding=sharding, **given)

    assert main(line(tmp_path / "alone", "none")) == 0
    assert on_two(line(tmp_path / "two", sharding)) == 0
    assert [r["starts_from_epoch"] for r in records(tmp_path / "two", "phase")] == [0]
    assert_one_run(tmp_path / "two", tmp_path / "alone")


@needs_fork
def test_a_method_without_a_term_on_outputs(tmp_path: Path, teacher: Path, odd_rows: dict[str, str]) -> None:
    """The student's head gets no gradient. And the processes' patience, which is not torch's 30 minutes."""
    method = tmp_path / "layers.yaml"
    method.write_text("terms: [{term: layers, mapping: skip, pooling: mean, distance: mse}]")

    def line(output: Path) -> list[str]:
        return arguments("distill", teacher=teacher, output=output, method=method, **odd_rows, **UNEVEN)

    assert main(line(tmp_path / "alone")) == 0
    assert on_two(line(tmp_path / "two"), lambda: note_patience(tmp_path / "patience")) == 0
    assert_one_run(tmp_path / "two", tmp_path / "alone")
    assert (tmp_path / "patience").read_text() == str(processes._BARRIER_TIMEOUT)


def note_patience(file: Path) -> None:
    """Let the process write down how long it waits for the other."""
    make = loop.make_optimizer

    def noted(module: nn.Module, config: TrainConfig) -> Optimizer:
        group = torch.distributed.group.WORLD
        file.write_text(str(group._get_backend(torch.device("cpu")).options._timeout))
        return make(module, config)

    loop.make_optimizer = noted


@needs_fork
def test_killed_and_resumed(
    tmp_path: Path, teacher: Path, odd_rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden_state_cache, "SHARD_ROWS", 8)

    def line(output: Path) -> list[str]:
        return arguments("distill", teacher=teacher, output=output, **odd_rows, **UNEVEN | SAVED | {"dropout": 0.1})

    assert on_two(line(tmp_path / "whole")) == 0
    again = line(tmp_path / "run")
    assert on_two(again, lambda: strike(shard_store, "_write_shard", 2)) == -signal.SIGKILL
    assert on_two(again, lambda: strike(loop, "save_checkpoint", 8, after=True)) == -signal.SIGKILL
    assert on_two(again, lambda: strike(fit, "write_model", 2, after=True)) == -signal.SIGKILL
    assert on_two(again) == 0
    for which in ("model", "last"):
        file = f"{which}/model.safetensors"
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert [r["step"] for r in records(tmp_path / "run", "step")] == list(range(1, 11))
    assert on_two(again) == 0  # up to date


@needs_fork
def test_an_error_of_the_first_process_is_told_once(
    tmp_path: Path, teacher: Path, odd_rows: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert on_two(arguments("distill", teacher=teacher, output=tmp_path, **odd_rows, **UNEVEN)) == 2
    assert capfd.readouterr().err.count("holds files that are no demiglace run") == 1


@needs_fork
@pytest.mark.parametrize("command", ["pretrain", "distill"])
def test_language_models(command: str, tmp_path: Path) -> None:
    model, corpus = save_lm(tmp_path / "lm"), write_jsonl(tmp_path / "text.jsonl", sentences(12))
    given = {"model": model} if command == "pretrain" else {"teacher": model, "layers": 2, "method": "distil"}
    # steps of 3 blocks: one process has two of them, the other one
    given |= {"corpus": corpus, "block_size": 16, "max_tokens": 320} | QUICK | {"batch_size": 3, "epochs": 1}

    def line(output: Path) -> list[str]:
        return arguments(command, output=output, **given)

    assert main(line(tmp_path / "alone")) == 0
    assert on_two(line(tmp_path / "two")) == 0
    ours, theirs = (records(tmp_path / name, "step") for name in ("two", "alone"))
    assert len(ours) == len(theirs) == 7
    for key in ("loss", "gradient_norm"):
        assert [r[key] for r in ours] == pytest.approx([r[key] for r in theirs], rel=1e-3)


def note_shares(file: Path) -> None:
    """Let the process write down which share of the numbers of the optimised weights it holds."""
    make = loop.make_optimizer

    def noted(module: nn.Module, config: TrainConfig) -> Optimizer:
        held = sum(p.to_local().numel() for p in module.parameters())
        file.write_text(str(held / sum(p.numel() for p in module.parameters())))
        return make(module, config)

    loop.make_optimizer = noted


@needs_fork
@pytest.mark.parametrize("command", ["pretrain", "distill"])
def test_a_model_shared_out_among_processes(command: str, tmp_path: Path) -> None:
    """FSDP: the same run as one process's though it is killed inside the epoch and resumed; with a whole model."""
    model, corpus = save_lm(tmp_path / "lm"), write_jsonl(tmp_path / "text.jsonl", sentences(12))
    given = {"model": model} if command == "pretrain" else {"teacher": model, "layers": 2, "method": "rail-kd-c"}
    given |= {"corpus": corpus, "block_size": 16, "max_tokens": 320}
    # steps of 7 blocks, one a forward pass: one process has four passes, the other three
    given |= SAVED | {"batch_size": 7, "batch_tokens": 16, "learning_rate": 1e-3}

    def line(output: Path, sharding: str = "full") -> list[str]:
        return arguments(command, output=output, sharding=sharding, **given)

    assert main(line(tmp_path / "alone", "none")) == 0
    assert on_two(line(tmp_path / "cut"), lambda: strike(loop, "save_checkpoint", 2, after=True)) == -signal.SIGKILL
    assert on_two(line(tmp_path / "cut"), lambda: note_shares(tmp_path / "share")) == 0
    assert 0.4 < float((tmp_path / "share").read_text()) < 0.7  # weights are cut by their first axis
    ours, theirs = (records(tmp_path / name, "step") for name in ("cut", "alone"))
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for key in ("loss", "gradient_norm"):
        assert [r[key] for r in ours] == pytest.approx([r[key] for r in theirs], rel=1e-3)
    assert read_manifest(tmp_path / "cut")["metrics"]["validation"] == pytest.approx(
        read_manifest(tmp_path / "alone")["metrics"]["validation"], rel=1e-3
    )
    load_language_model(str(tmp_path / "cut"))
