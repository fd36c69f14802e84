"""Kill commands at random moments, resume them, and flip bits of what they wrote: does anything differ, or stay hidden?

    python benchmarks/chaos.py DIR --kills 60        # some minutes; hours with more

DIR gets tiny models and rows (`reference_material`) and, for each command, one uninterrupted run. A round starts the
command again in another directory, kills it with SIGKILL up to three times, each time after a random part of the time
that the uninterrupted run took, and then lets it end. Weights, predictions and shards must be those of the
uninterrupted run bit for bit, no child process and no temporary file may be left, and `demiglace verify` must agree.
Then one bit of each file of each finished run is flipped in turn: `demiglace verify` must name the file. The counts go
to results/chaos.json.
"""

import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import reference_runs
from kit import write
from reference_digests import digest_tree
from reference_material import write_material

import demiglace
from demiglace.errors import RunError
from demiglace.runs.directory import read_manifest

STAGES = (
    *("teacher", "rail-kd-l", "mate-kd", "half-greedy", "tokenizer", "lm", "lm-sampled"),
    *("scored", "perplexity", "vanilla-kd", "onnx", "cleaned", "grid"),
)
COMPARED = ("weights", "predictions", "shards")
MOST_KILLS = 3  # in one round


def start(work: Path, name: str, output: str) -> "subprocess.Popen[bytes]":
    """Start the command of a run in a process group of its own."""
    words = [sys.executable, "-P", "-m", "demiglace", *shlex.split(reference_runs.RUNS[name]), "-o", output]
    with (work / "chaos.log").open("ab") as log:
        return subprocess.Popen(
            words, cwd=work, env=reference_runs._environment(), stdout=log, stderr=log, start_new_session=True
        )


def results_of(work: Path, output: str) -> dict[str, str]:
    """Return path in the run -> digest of its weights, predictions and shards."""
    found = digest_tree(work / output)
    return {path: entry["sha256"] for path, entry in found.items() if entry["kind"] in COMPARED}


def is_alive(group: int) -> bool:
    """Return whether a process of a group runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    states = [p.read_text().rsplit(")", 1)[1].split() for p in Path("/proc").glob("[0-9]*/stat") if p.exists()]
    return any(int(fields[2]) == group and fields[0] != "Z" for fields in states)


def kill_round(work: Path, name: str, seconds: float, draw: random.Random, counts: Counter[str]) -> list[str]:
    """Kill a command some times and let it end; return what went wrong."""
    output, wrong = f"chaos-{name}", []
    for _ in range(draw.randint(1, MOST_KILLS)):
        process = start(work, name, output)
        try:
            process.wait(draw.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)  # the command alone: its children have to notice
            process.wait()
            counts["kills"] += 1
            deadline = time.monotonic() + 20
            while is_alive(process.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            if is_alive(process.pid):
                wrong.append(f"{name}: a child process outlived a kill")
                os.killpg(process.pid, signal.SIGKILL)
    if start(work, name, output).wait() != 0:
        return [*wrong, f"{name}: did not resume"]
    counts["resumed"] += 1
    if results_of(work, output) != results_of(work, name):
        wrong.append(f"{name}: the result differs")
    left = [str(f) for f in (work / output).rglob("*.part")]
    wrong += [f"{name}: {file} was left" for file in left]
    try:
        demiglace.verify(work / output)
    except RunError as error:
        wrong.append(f"{name}: {error}")
    shutil.rmtree(work / output)
    return wrong


def flip_files(run: Path, draw: random.Random, counts: Counter[str]) -> list[str]:
    """Flip a bit of each recorded file of a run in turn; return the files whose damage `verify` does not name."""
    hidden = []
    for name in (*read_manifest(run).get("files", {}), "manifest.json"):
        file = run / name
        content, status = file.read_bytes(), file.stat()
        if not content:
            continue
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a failing disk leaves it
        counts["flips"] += 1
        try:
            demiglace.verify(run)
            hidden.append(f"{run.name}/{name}: a flipped bit was not found")
        except RunError as error:
            if str(file) not in str(error):
                hidden.append(f"{run.name}/{name}: another file was named")
        finally:
            file.write_bytes(content)
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return hidden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--kills", type=int, default=60, help="kills at least")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work, draw = args.dir / "work", random.Random(args.seed)
    if not (work / "inputs").exists():
        write_material(work / "inputs", {n: reference_runs.GRID | g for n, g in reference_runs.GRIDS.items()})
    seconds: dict[str, float] = {}
    needed = list(dict.fromkeys(name for stage in args.stages for name in (*_needs(stage), stage)))
    for name in needed:
        begun = time.perf_counter()
        if start(work, name, name).wait() != 0:
            raise SystemExit(f"{name} failed; see {work / 'chaos.log'}")
        seconds[name] = time.perf_counter() - begun
    counts, by_stage, wrong = Counter[str](), Counter[str](), list[str]()
    while counts["kills"] < args.kills:
        for name in args.stages:
            before = counts["kills"]
            found = kill_round(work, name, seconds[name], draw, counts)
            by_stage[name] += counts["kills"] - before
            wrong += found
            print(f"{name}: {counts['kills'] - before} kills; {'; '.join(found) or 'equal'}", flush=True)
            if counts["kills"] >= args.kills:
                break
    for name in needed:
        if (work / name / "manifest.json").exists():
            wrong += flip_files(work / name, draw, counts)
    print("\n".join(wrong) or "nothing differs, nothing is left, no damage is hidden")
    write("chaos", {"kills": args.kills, "seed": args.seed}, {**counts, "kills by stage": by_stage, "wrong": wrong})
    sys.exit(bool(wrong))


def _needs(stage: str) -> tuple[str, ...]:
    """Return the runs that a command reads, in order."""
    words = shlex.split(reference_runs.RUNS[stage])
    read = [word for word in words[1:] if word in reference_runs.RUNS and word != stage]
    return tuple(name for word in read for name in (*_needs(word), word))


if __name__ == "__main__":
    main()
