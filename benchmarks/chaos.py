"""Kill commands, fill their disk, start them three at once, flip bits: does anything differ, or stay hidden?

    python benchmarks/chaos.py DIR --kills 60 --disks 20 --crowds 6       # half an hour; repeat it to go on

DIR gets tiny models and rows (`reference_material`) and, for each command, one undisturbed run. Then come rounds:

- kill: the command starts again with another output, gets SIGKILL up to three times, at a random moment or ahead of a
  random rename of a file, and then is left to end.
- disk: its output, its cache and its temporary files lie on a disk (tmpfs, which needs root on Linux) of a random size;
  where it is full, the command must end with exit code 2 and no traceback. Then the disk grows and the command repeats.
- crowd: three start at once with the same output. One must end well, and the others say that the output is in use.

Commands start as forks of this process, which has imported the libraries: most of a short command's time is imports.
After each round weights, predictions and shards must be those of the undisturbed run bit for bit, no process and no
temporary file may be left, and `demiglace verify` must agree. At the end bits of each file of each finished run are
flipped in turn: `demiglace verify` must name the file. DIR/rounds.jsonl holds the rounds that are done, so that the
same call goes on; the counts go to results/chaos.json.
"""

import argparse
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import reference_runs
from kit import write
from reference_digests import digest_tree
from reference_material import write_material

import demiglace
import demiglace.commands.distill
import demiglace.commands.evaluate
import demiglace.commands.export
import demiglace.commands.pretrain
from demiglace.cli import main as command_line
from demiglace.errors import RunError
from demiglace.runs.directory import read_manifest

RUNS = reference_runs.RUNS | {"grid-ray": reference_runs.RUNS["grid"] + " --engine ray"}
HEAVY = ("grid", "grid-ray")  # in each third turn only
LIGHT = (
    *("teacher", "rail-kd-l", "mate-kd", "half-greedy", "tokenizer", "lm", "lm-sampled"),
    *("scored", "perplexity", "vanilla-kd", "onnx", "cleaned"),
)
SAME = {"grid-ray": "grid"}  # commands whose result is that of another one
COMPARED = ("weights", "predictions", "shards")
MOST_KILLS = 3  # in one round
FLIPS = 2  # of each file
CROWD = 3
PATIENCE = 30.0  # seconds in which children have to notice that their parent is gone


class Round:
    """One command with an output of its own."""

    def __init__(self, work: Path, kind: str, stage: str, number: int, seconds: float, renames: int, seed: int):
        self.work, self.stage, self.seconds, self.renames = work, stage, seconds, renames
        self.draw = random.Random(f"{seed}/{kind}/{number}")
        self.folder = Path("disk") if kind == "disk" else Path(f"{kind}-{number}")  # from `work`
        self.mark = f"{kind}-{number}-{os.getpid()}"
        self.wrong: list[str] = []
        self.counts = Counter[str]()
        self.logs: dict[int, Path] = {}  # process -> what it printed

    def start(self, write: int = 0) -> BaseProcess:
        """Start the command; write: the rename ahead of which it is killed, 0 for none."""
        line = RUNS[self.stage].replace("--cache cache ", f"--cache {self.folder}/cache ")
        (self.work / self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        log = self.work / "logs" / f"{self.mark}-{len(self.logs)}.txt"
        process = start(self.work, f"{line} -o {self.folder}/run", log, self.mark, self.folder / "tmp", write)
        self.logs[process.pid or 0] = log
        return process

    def end(self, process: BaseProcess, allowed: tuple[int, ...] = (0,)) -> int:
        """Wait for a command and return its exit code; another one than `allowed`, and a traceback, is wrong."""
        process.join()
        code, said = process.exitcode or 0, self.logs[process.pid or 0].read_text(errors="replace")
        if code not in allowed or "Traceback (most recent call last)" in said:
            self.wrong.append(f"exit code {code}: {said[-2000:]}")
        return code

    def check(self) -> None:
        """Compare the result with that of the undisturbed run, and look for what is left."""
        expected = SAME.get(self.stage, self.stage)
        if results_of(self.work / self.folder / "run") != results_of(self.work / expected):
            self.wrong.append("the result differs")
        cached, known = results_of(self.work / self.folder / "cache"), results_of(self.work / "cache")
        if any(known.get(path) != digest for path, digest in cached.items()):
            self.wrong.append("the cache differs")
        left = [str(f) for f in (self.work / self.folder).rglob("*.part")]
        left += [str(f) for f in (self.work / self.folder / "tmp").iterdir() if f.name != "ray"]  # Ray keeps its logs
        self.wrong += [f"{file} was left" for file in left]
        if pids := survivors(self.mark):
            self.wrong.append(f"processes are left: {pids}")
        try:
            demiglace.verify(self.work / self.folder / "run")
        except RunError as error:
            self.wrong.append(str(error))

    def kill(self) -> None:
        """Kill the command some times and let it end."""
        for _ in range(self.draw.randint(1, MOST_KILLS)):
            at_write = self.draw.random() < 0.5
            process = self.start(self.draw.randint(1, max(1, self.renames)) if at_write else 0)
            process.join(None if at_write else self.draw.uniform(0, self.seconds))
            if process.is_alive():
                process.kill()  # the command alone: its children have to notice
                process.join()
            if process.exitcode == -signal.SIGKILL:
                self.counts["kills"] += 1
                self.counts["kills ahead of a rename"] += at_write
            deadline = time.monotonic() + PATIENCE
            while survivors(self.mark) and time.monotonic() < deadline:
                time.sleep(0.2)
            for pid in survivors(self.mark):
                self.wrong.append(f"a child process outlived a kill: {command_of(pid)}")
                os.kill(pid, signal.SIGKILL)
        if self.end(self.start()) == 0:
            self.counts["resumed"] += 1
            self.check()
        shutil.rmtree(self.work / self.folder)

    def fill(self) -> None:
        """Run the command on a small disk, and again when the disk has grown."""
        size = sum(f.stat().st_size for f in (self.work / SAME.get(self.stage, self.stage)).rglob("*") if f.is_file())
        with small_disk(self.work / self.folder, int(self.draw.uniform(0.02, 2.0) * size)) as grow:
            if self.end(self.start(), (0, 2)) == 2:
                self.counts["full disks"] += 1
            grow()
            if self.end(self.start()) == 0:
                self.check()

    def crowd(self) -> None:
        """Start the command several times at once."""
        processes = []
        for _ in range(CROWD):
            processes.append(self.start())
            time.sleep(self.draw.choice((0.0, 0.0, self.draw.uniform(0, self.seconds / 2))))
        codes = [self.end(process, (0, 2)) for process in processes]
        self.counts["crowds"] += 1
        self.counts["refused in a crowd"] += codes.count(2)
        if 0 not in codes:
            self.wrong.append(f"none of {CROWD} at once ended well")
        if self.end(self.start()) == 0:
            self.check()
        shutil.rmtree(self.work / self.folder)


KINDS: dict[str, tuple[Callable[[Round], None], str]] = {
    "kill": (Round.kill, "kills"),
    "disk": (Round.fill, "full disks"),
    "crowd": (Round.crowd, "crowds"),
}


def start(work: Path, line: str, log: Path, mark: str, temporary: Path, write: int = 0) -> BaseProcess:
    """Start a command line in a fork; what it prints goes to the file `log`.

    write: the rename ahead of which it is killed, 0 for none. Everything that demiglace writes is renamed into place.
    """
    log.parent.mkdir(exist_ok=True)
    environment = {"CHAOS_ROUND": mark, "TMPDIR": str((work / temporary).absolute())}
    process = get_context("fork").Process(
        target=run_command, args=(work, shlex.split(line), log.absolute(), environment, write)
    )
    process.start()
    return process


def run_command(work: Path, words: list[str], log: Path, environment: dict[str, str], write: int) -> None:
    """Run a command in this process, which is new, and end it; write the number of its renames to a file."""
    os.setsid()
    os.chdir(work)
    os.environ.update(environment)
    stream = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    renames = 0

    def counted(rename: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal renames
            renames += 1
            if renames == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(*args, **options)

        return call

    os.replace, os.rename = counted(os.replace), counted(os.rename)
    try:
        code = command_line(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    Path("renames.txt").write_text(str(renames))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Mount a disk of `size` bytes; yield a function that lets it grow."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, f"size={max(size, 1 << 14)}", "tmpfs", str(folder)], check=True)

    def grow() -> None:
        subprocess.run(["mount", "-o", "remount,size=1G", str(folder)], check=True)

    try:
        yield grow
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def results_of(folder: Path) -> dict[str, str]:
    """Return path -> digest of the weights, predictions and shards below a folder."""
    found = digest_tree(folder) if folder.exists() else {}
    return {path: entry["sha256"] for path, entry in found.items() if entry["kind"] in COMPARED}


def survivors(mark: str) -> list[int]:
    """Return the processes that the commands of a round started, by their environment, and that run still."""
    word, found = f"CHAOS_ROUND={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended, or is another user's
            continue
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return f"process {pid}"


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


def undisturbed(work: Path, stages: list[str]) -> dict[str, dict[str, float]]:
    """Run each command once, with those that it reads; return its seconds and renames."""
    if not (work / "inputs").exists():
        write_material(work / "inputs", {n: reference_runs.GRID | g for n, g in reference_runs.GRIDS.items()})
    file = work.parent / "undisturbed.json"
    known: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    for name in dict.fromkeys(name for stage in stages for name in (*needs(stage), stage)):
        if name in known:
            continue
        (work / "tmp").mkdir(exist_ok=True)
        begun = time.perf_counter()
        log = work / "logs" / f"{name}.txt"
        process = start(work, f"{RUNS[name]} -o {name}", log, "undisturbed", Path("tmp"))
        process.join()
        if process.exitcode:
            raise SystemExit(f"{name} failed; see {log}")
        renames = int((work / "renames.txt").read_text())
        known[name] = {"seconds": time.perf_counter() - begun, "renames": renames}
        file.write_text(json.dumps(known))
    return known


def needs(stage: str) -> tuple[str, ...]:
    """Return the runs that a command reads, and the one that it is compared with, in order."""
    words = shlex.split(RUNS[stage])
    read = [word for word in words[1:] if word in RUNS and word != stage] + [SAME[s] for s in [stage] if s in SAME]
    return tuple(name for word in read for name in (*needs(word), word))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--kills", type=int, default=60, help="kills at least")
    parser.add_argument("--disks", type=int, default=0, help="full disks at least; needs root")
    parser.add_argument("--crowds", type=int, default=6, help="rounds of three at once")
    parser.add_argument("--stages", nargs="+", default=(*LIGHT, *HEAVY), choices=(*LIGHT, *HEAVY))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not reference_runs.FIXED.items() <= os.environ.items():  # which libraries read when they are imported
        os.execve(sys.executable, [sys.executable, *sys.argv], reference_runs._environment())
    work, log = args.dir / "work", args.dir / "rounds.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    known = undisturbed(work, list(args.stages))
    done: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for kind, wanted in (("kill", args.kills), ("disk", args.disks), ("crowd", args.crowds)):
        number = sum(each["kind"] == kind for each in done)
        while sum(each["counts"].get(KINDS[kind][1], 0) for each in done if each["kind"] == kind) < wanted:
            stage = args.stages[number % len(args.stages)]
            if stage not in HEAVY or number // len(args.stages) % 3 == 0:
                each = one_round(work, kind, stage, number, known[stage], args.seed)
            else:
                each = {"kind": kind, "stage": stage, "counts": {}, "wrong": [], "cpu_seconds": 0.0}
            done.append(each)
            number += 1
            with log.open("a") as stream:
                stream.write(json.dumps(each) + "\n")
    counts, wrong = Counter[str](), [f"{e['kind']} {e['stage']}: {text}" for e in done for text in e["wrong"]]
    draw = random.Random(args.seed)
    for name in [name for name in known for _ in range(FLIPS)]:
        if (work / name / "manifest.json").exists():
            wrong += flip_files(work / name, draw, counts)
    for each in done:
        counts.update(each["counts"])
    by_stage = Counter[str]()
    for each in done:
        by_stage[each["stage"]] += each["counts"].get("kills", 0)
    print("\n".join(wrong) or "nothing differs, nothing is left, no damage is hidden")
    counted = {**counts, "kills by command": by_stage, "cpu_seconds": round(sum(e["cpu_seconds"] for e in done))}
    write("chaos", {**vars(args), "dir": "DIR", "commit": commit()}, counted | {"wrong": wrong})
    sys.exit(bool(wrong))


def one_round(work: Path, kind: str, stage: str, number: int, known: dict[str, float], seed: int) -> dict[str, Any]:
    """Run a round; return what is kept of it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    each = Round(work, kind, stage, number, known["seconds"], int(known["renames"]), seed)
    shutil.rmtree(work / each.folder, ignore_errors=True)  # of a round that was interrupted
    KINDS[kind][0](each)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{kind} {number} {stage}: {dict(each.counts)}; {'; '.join(each.wrong) or 'equal'}", flush=True)
    return {"kind": kind, "stage": stage, "counts": dict(each.counts), "wrong": each.wrong, "cpu_seconds": cpu}


def commit() -> str:
    """Return the commit of this file."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
