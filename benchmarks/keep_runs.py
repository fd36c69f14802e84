"""Archive the finished runs of a comparison without weights, and restore them, so that another machine can continue it.

    python benchmarks/keep_runs.py pack runs/evidence/few-labels benchmarks/results/few-labels.tar.xz
    python benchmarks/keep_runs.py unpack benchmarks/results/few-labels.tar.xz runs/evidence/few-labels GRID.yaml

The archive holds the manifests, logs and predictions of every finished run, and the state of searches, which resume
after their last finished trial. `demiglace compare` treats unpacked runs as done. Only replicates with all student runs
are unpacked. The others still need the weights of their teacher, so they start again, as the teacher of searches does.
"""

import argparse
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from demiglace.compare.grid import Grid, parse_grid
from demiglace.compare.grid_cells import student_runs
from demiglace.config.options import read_yaml

WANTED = (".json", ".jsonl", ".predictions.npy", ".labels.npy", "search.db")
TRIAL = re.compile(r"predictions-trial-\d+\.npy")
SEARCHES = "replicate-0"  # tunes and is never reported
MACHINE_PATH = re.compile(r"^/|[\s\"']/(home|root|srv|work|tmp|Users)/")  # a path that exists only on one machine


def is_wanted(file: Path, home: Path) -> bool:
    """Return whether a file is archived: a small result of a finished run or of the comparison."""
    wanted = file.name.endswith(WANTED) or TRIAL.fullmatch(file.name)
    if not wanted or {"model", "last", "checkpoints", "signals"} & {*file.parts}:
        return False
    return file.parent == home or any(
        (file.parent / name).exists() for name in ("manifest.json", "search.json", "best.json")
    )


def pack(home: Path, archive: Path) -> None:
    """Write the archive. Raises `SystemExit` if a file contains a path of this machine."""
    files = sorted(f for f in home.rglob("*") if f.is_file() and is_wanted(f, home))
    for file in files:
        if file.suffix == ".json" and MACHINE_PATH.search(file.read_text("utf-8")):
            raise SystemExit(f"{file} contains a path of this machine; run the comparison with relative paths.")
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(archive.name + ".part")
    with tarfile.open(draft, "w:xz") as tar:
        for file in files:
            tar.add(file, str(file.relative_to(home)), filter=_plain)
    draft.replace(archive)
    print(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e6:.2f} MB")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(archive: Path, home: Path, grid: Path) -> None:
    """Restore the runs of complete replicates; existing files are not overwritten.

    Raises `SystemExit` for a grid with seeds: its students share one teacher, whose weights are not archived.
    """
    parsed = parse_grid(read_yaml(str(grid)))
    if parsed.unit != "replicate":
        raise SystemExit(f"{grid} has seeds, which share a teacher; expected a grid with replicates.")
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        with tarfile.open(archive) as tar:
            tar.extractall(kept, filter="data")
        absent = incomplete(kept, parsed) | {SEARCHES}
        for file in sorted(f for f in kept.rglob("*") if f.is_file()):
            name = file.relative_to(kept)
            if absent & set(re.findall(r"replicate-\d+", str(name))) or (home / name).exists():
                continue
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, home / name)
    print(f"{home}: unpacked; still to run: {', '.join(sorted(absent)) or 'nothing'}")


def incomplete(kept: Path, grid: Grid) -> set[str]:
    """Return the replicates for which a student run of the grid is missing."""
    return {
        Path(run.path).name
        for run in student_runs(grid)
        if not all((kept / key / "manifest.json").exists() for key in (run.path, run.evaluation))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing, unpacking = commands.add_parser("pack"), commands.add_parser("unpack")
    packing.add_argument("home", type=Path)
    packing.add_argument("archive", type=Path)
    unpacking.add_argument("archive", type=Path)
    unpacking.add_argument("home", type=Path)
    unpacking.add_argument("grid", type=Path)
    args = parser.parse_args()
    if args.command == "pack":
        pack(args.home, args.archive)
    else:
        unpack(args.archive, args.home, args.grid)


if __name__ == "__main__":
    main()
