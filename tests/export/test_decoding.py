"""Decoding with a KV cache, its speed, and llama.cpp's program that measures it."""

import json
import os
import stat

import numpy as np
import pytest
import torch

from demiglace.errors import ModelError
from demiglace.export import llama_cpp
from demiglace.export.base import Artefact
from demiglace.export.decoding import Load, Speed, generate_greedily, speed_of, time_decoder
from demiglace.export.measure import measure_decoding
from demiglace.export.pytorch import TorchDecoder, checkpoint
from text_kit import save_lm, tiny_lm

LOAD = Load(prompt=(5, 6, 7, 8), new_tokens=3, rounds=2)
# what llama-bench prints with -o json, its fields about machine and model left out
PRINTED = [
    {"n_prompt": 4, "n_gen": 0, "n_threads": 1, "samples_ns": [2_000_000, 4_000_000, 2_000_000], "avg_ts": 1600.0},
    {"n_prompt": 0, "n_gen": 3, "n_threads": 1, "samples_ns": [30_000_000, 20_000_000, 30_000_000], "avg_ts": 115.0},
]


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_the_cache_changes_no_token(arch):
    model, prompt = tiny_lm(arch, 60), [7, 3, 20, 11]
    tokens, decoder = list(prompt), TorchDecoder(model)
    with torch.inference_mode():
        for _ in range(12):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    generate_greedily(decoder, [50, 51], 4)  # another text must leave nothing in the cache
    assert generate_greedily(decoder, prompt, 12) == tokens[4:]
    logits = decoder.prefill(prompt)
    assert logits.shape == (60,) and logits.dtype == np.float32


class _Counting:
    """A decoder that counts its calls."""

    def __init__(self):
        self.calls = []

    def prefill(self, ids):
        self.calls.append(len(ids))
        return np.eye(9, dtype=np.float32)[2]

    def decode(self, token):
        self.calls.append(-token)
        return np.eye(9, dtype=np.float32)[token + 1]


def test_every_round_reads_the_prompt_and_feeds_back_the_tokens():
    decoder = _Counting()
    speed = time_decoder(decoder, LOAD)
    assert decoder.calls == [4, -2, -3, -4] * 3  # one round to warm up
    assert speed.prefill > 0 and speed.decode > 0


def test_speeds_are_medians():
    assert speed_of(LOAD, [0.1, 0.2, 9.0], [1.0, 1.5, 0.1]) == Speed(prefill=20.0, decode=3.0)


def test_speed_and_memory_of_a_model_are_measured(tmp_path):
    save_lm(tmp_path / "model", "llama")
    found = measure_decoding(checkpoint(str(tmp_path / "model")), LOAD)
    assert found.speed.prefill > 0 and found.speed.decode > 0 and found.peak_memory_mb > 100


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A llama-bench on PATH that prints JSON and keeps its arguments."""
    program = tmp_path / "bin" / "llama-bench"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat {tmp_path}/printed\nexit $(cat {tmp_path}/code)\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    (tmp_path / "printed").write_text(json.dumps(PRINTED))
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_llama_bench_is_read(bench):
    assert llama_cpp.missing_program() is None
    found = llama_cpp.time_file("some/model.gguf", LOAD)
    assert found == Speed(prefill=2000.0, decode=100.0)
    assert (bench / "arguments").read_text().split() == [
        "-m",
        "some/model.gguf",
        "-p",
        "4",
        "-n",
        "3",
        "-r",
        "2",
        "-t",
        "1",
        "-ngl",
        "0",
        "-o",
        "json",
    ]
    (bench / "code").write_text("3")
    with pytest.raises(ModelError, match=r"llama-bench could not run some/model.gguf \(exit code 3\)"):
        llama_cpp.time_file("some/model.gguf", LOAD)


@pytest.mark.usefixtures("fresh_processes")
def test_gguf_is_timed_in_a_fresh_process_by_llama_bench(bench):
    found = measure_decoding(Artefact("gguf", "q8_0", "some/model.gguf", ()), LOAD)
    assert found.speed == Speed(2000.0, 100.0) and found.peak_memory_mb > 1


def test_without_the_program_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "llama-bench is not on PATH" in llama_cpp.missing_program()
