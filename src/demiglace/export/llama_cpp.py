"""Time a GGUF file in llama.cpp itself, with its program llama-bench."""

import json
import shutil
import subprocess

from demiglace.errors import ModelError
from demiglace.export.decoding import Load, Speed, speed_of

PROGRAM = "llama-bench"


def missing_program() -> str | None:
    """Return why llama.cpp cannot be measured here, as a sentence; None if it can."""
    if shutil.which(PROGRAM):
        return None
    return f"the speed in llama.cpp is not measured: its program {PROGRAM} is not on PATH."


def time_file(path: str, load: Load) -> Speed:
    """Time a file on the CPU; the prompt is as long as that of `load`, of random tokens.

    llama-bench runs one untimed round first. Raises `ModelError` with its last words if it fails.
    """
    sizes = {"-m": path, "-p": len(load.prompt), "-n": load.new_tokens, "-r": load.rounds, "-t": load.threads}
    sizes |= {"-ngl": 0, "-o": "json"}
    command = [PROGRAM, *(str(part) for option in sizes.items() for part in option)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"{PROGRAM} could not run {path} (exit code {done.returncode}): {last}")
    tests = json.loads(done.stdout)  # one of the prompt, one of new tokens

    def seconds(part: str) -> list[float]:
        return next([1e-9 * ns for ns in test["samples_ns"]] for test in tests if test[part])

    return speed_of(load, seconds("n_prompt"), seconds("n_gen"))
