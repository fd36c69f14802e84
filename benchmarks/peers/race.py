"""The race: demiglace against TextBrewer, torchdistill, Model-Optimizer and a plain loop, on the same rows and weights.

    make bench-peers                                 all races, about 80 minutes; goes on after an interruption
    python benchmarks/peers/race.py --quick          tiny shapes, to see that it runs
    python benchmarks/peers/race.py --races sst2_12x256 --rounds 5

Every contender runs in a process of its own, pinned to one core and one thread, all of them turn by turn in each
round, in an order that is rotated from round to round. Ratios are taken within a round; their median is reported.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import stats
import torch
from entry import Entry, entries
from material import Material, Race, arithmetic_ratio, padding, prepare

from demiglace.models.precision import choose_precision
from demiglace.models.shape import ModelShape
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import write_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RACES = (
    Race("sst2", 768, rows=128, padded_rows=16),
    Race("mrpc", 768, rows=48, padded_rows=16),
    Race("sst2", 256, rows=512, padded_rows=64),
    Race("mrpc", 256, rows=192, padded_rows=64),
)
QUICK = Race("sst2", 64, rows=32, padded_rows=16, teacher_layers=4, student_layers=2, epochs=2)
_NEEDS = {"by_textbrewer": "textbrewer", "by_torchdistill": "torchdistill", "by_modelopt": "modelopt"}
_PEERS = ("textbrewer", "torchdistill", "nvidia-modelopt")
_ROOMS = ("data", "losses", "methods", "models", "signals", "training")  # what our contenders run through


def main() -> None:
    args = _arguments()
    races = (QUICK,) if args.quick else tuple(r for r in RACES if r.name in args.races)
    for race in races:
        _run(race, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="demiglace against its peers on this machine's CPU")
    names = [race.name for race in RACES]
    parser.add_argument("--races", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, without a file in results/")
    parser.add_argument("--only", nargs="+", help="contenders whose name begins with one of these; no results file")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="the core to pin to, -1 for none")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "peers", help="finished turns, rows, weights")
    return parser.parse_args()


def _run(race: Race, args: argparse.Namespace) -> None:
    bf16 = choose_precision("auto", race.width, torch.device("cpu")) == "bf16"
    contenders = [e for e in entries(bf16) if _present(e) and _wanted(e, args.only)]
    home = args.output / f"{race.name}-{_digest(race)}"
    material = prepare(race, home / "material")
    write_json(home / "material" / "race.json", asdict(race))
    rounds: dict[str, list[stats.Record]] = {e.name: [] for e in contenders}
    for number in range(args.rounds):
        for entry in _rotated(contenders, number):
            rounds[entry.name].append(_turn(entry, number, home, args.core))
    record = _record(race, args, contenders, rounds) | {"arithmetic": _arithmetic(material)}
    _tell(record)
    if not (args.quick or args.only):
        write_json(HERE.parent / "results" / f"peers_{race.name}.json", record)


def _present(entry: Entry) -> bool:
    """Whether the package that the contender needs is installed."""
    package = _NEEDS.get(entry.module)
    return package is None or importlib.util.find_spec(package) is not None


def _wanted(entry: Entry, only: Sequence[str] | None) -> bool:
    return only is None or entry.name.startswith(tuple(only))


def _rotated(contenders: Sequence[Entry], number: int) -> Iterator[Entry]:
    """Each round begins a third of the way further on, so that nobody always runs after the same one's heat."""
    start = number * max(1, len(contenders) // 3) % len(contenders)
    yield from (*contenders[start:], *contenders[:start])


def _turn(entry: Entry, number: int, home: Path, core: int) -> stats.Record:
    """One contender's record in one round: read where its turn is finished already, else measured."""
    file = home / f"round-{number}" / f"{entry.name.replace(', ', '-').replace(' ', '-')}.json"
    if not file.exists():
        command = [sys.executable, str(HERE / "contend.py"), str(home / "material" / "race.json"), entry.name]
        done = subprocess.run([*command, str(core)], env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{entry.name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, json.loads(done.stdout.splitlines()[-1]))
    record = json.loads(file.read_text())
    print(f"  round {number + 1}  {record['rows_per_cpu_second']:9.2f} rows per CPU-second  {entry.name}", flush=True)
    return record


def _environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    return os.environ | quiet | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _digest(race: Race) -> str:
    """Of the race, the code that runs in it, and the libraries: turns of another state are not gone on with."""
    digest = hashlib.sha256(json.dumps([asdict(race), versions(), _peer_versions()]).encode())
    code = [f for room in _ROOMS for f in sorted((ROOT / "src" / "demiglace" / room).glob("*.py"))]
    for file in (*code, *sorted(HERE.glob("*.py"))):
        if file.name not in ("race.py", "stats.py", "losses.py"):  # these tell of turns, and take none
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _peer_versions() -> dict[str, str]:
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return {name: found[name] for name in _PEERS if name in found}


def _record(
    race: Race, args: argparse.Namespace, contenders: Sequence[Entry], rounds: dict[str, list[stats.Record]]
) -> dict[str, object]:
    kinds = {e.name: e.kind for e in contenders}
    padded = [e.name for e in contenders if e.padding is not None]
    found = [t for bf16 in (False, True) for t in stats.targets(rounds, kinds, padded, bf16)]
    return {
        "benchmark": f"peers_{race.name}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": 1,
        "versions": versions() | _peer_versions(),
        "config": asdict(race) | {"rounds": args.rounds, "pinned": args.core >= 0},
        "targets": [t.row() for t in found],
        "student without a teacher, over": stats.ceiling(rounds, kinds, padded),
        "contenders": {n: {"kind": kinds[n]} | s for n, s in stats.summary(rounds).items()},
    }


def _arithmetic(material: Material) -> dict[str, object]:
    """What a plain count of operations says the ratio to peers with an online teacher should be."""
    race, examples = material.race, material.examples(material.race.rows)
    shapes = ModelShape.of(material.teacher()), ModelShape.of(material.student())
    ratio = arithmetic_ratio(race, examples, *shapes)
    return {"tokens computed for each real one": padding(examples, race), "operations of peers over ours": ratio}


def _tell(record: dict) -> None:
    """The race in two Markdown tables."""
    print(f"\n{record['benchmark']}, {record['date']}\n")
    print("| contender | rows per CPU-second | from epoch 2 on | peak MiB |\n|---|---|---|---|")
    for name, row in sorted(record["contenders"].items(), key=lambda item: -item[1][stats.SPEED]["median"]):
        later = row[stats.LATER]["median"]
        print(f"| {name} | {row[stats.SPEED]['median']:.2f} | {later:.2f} | {row[stats.MEMORY]['median']:.0f} |")
    print("\n| target | wanted | found | |\n|---|---|---|---|")
    for row in record["targets"]:
        found = f"{row['median']:.3f} ({row['q1']:.3f} to {row['q3']:.3f})"
        print(f"| {row['target']} | {row['wanted']} | {found} | {row['verdict']} |")
    for title, row in record["student without a teacher, over"].items():
        print(f"\nA student without any teacher is {row['median']:.2f} times as fast as {title}.")
    ratio = record["arithmetic"]["operations of peers over ours"]
    print(f"\nPeers that ask the teacher in every step compute {ratio:.2f} times as many operations as rail-kd-l.")


if __name__ == "__main__":
    main()
