"""Compress a model to a budget with `demiglace compress`, and keep the numbers of the page.

    OMP_NUM_THREADS=1 python benchmarks/compress.py NAME MODEL OUTPUT --data banking77 --max-mb 8 --max-drop 1
    OMP_NUM_THREADS=1 python benchmarks/compress.py demo OUTPUT
    python benchmarks/compress.py rows FOLDER ROWS

All further options are those of the command. A second call resumes in OUTPUT. results/compress_NAME.json has the chosen
file, all files and candidates, and the rungs of the training.

demo: the same for `demiglace demo`, in results/compress_demo.json.

rows: from the rows of a task that evidence_rows.py wrote to FOLDER, write train.csv, validation.csv (1,000 of the test
rows, which a teacher of experiment E1 has not seen), test.csv (the others) and texts.csv (1,000 texts without labels).
"""

import csv
import json
import random
import sys
from pathlib import Path

import kit

from demiglace.cli import main
from demiglace.report.compression.page import headline
from demiglace.runs.directory import read_manifest

VALIDATION = TEXTS = 1_000
KEPT = ("rows", "metric", "chosen", "drop", "vocabulary", "teacher", "pytorch", "model_files", "candidates", "rungs")
PATHS = ("run", "export", "file")  # of one machine


def rows(source: Path, output: Path) -> int:
    """Write the four files; return the exit code 0."""
    content = {name: read(source / f"{name}.csv") for name in ("train", "test", "texts")}
    held = content["test"][1]
    random.Random(0).shuffle(held)
    content["validation"] = (content["test"][0], held[:VALIDATION])
    content["test"] = (content["test"][0], held[VALIDATION:])
    content["texts"] = (content["texts"][0], content["texts"][1][:TEXTS])
    output.mkdir(parents=True, exist_ok=True)
    for name, (header, lines) in content.items():
        with (output / f"{name}.csv").open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([header, *lines])
    return 0


def read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file."""
    with file.open(newline="", encoding="utf-8") as handle:
        header, *lines = csv.reader(handle)
    return header, lines


def without_paths(value: object) -> object:
    """Return a value of JSON without the entries that are paths."""
    if isinstance(value, dict):
        return {k: without_paths(v) for k, v in value.items() if k not in PATHS}
    return [without_paths(v) for v in value] if isinstance(value, list) else value


def compress(name: str, model: str, output: Path, options: list[str]) -> int:
    """Run the command; write the results and return its exit code."""
    return keep(name, output, main(["compress", model, "--output", str(output), *options]))


def keep(name: str, output: Path, code: int) -> int:
    """Write the results of a complete compression; return the command's exit code, which is given."""
    if code == 0:
        manifest = read_manifest(output)
        results = {"headline": headline(manifest)} | {key: without_paths(manifest[key]) for key in KEPT}
        config = {k: v for k, v in manifest["config"].items() if k not in ("model", "data_dir")} | manifest["limits"]
        config = json.loads(json.dumps(config).replace(f"{output.parent}/", ""))
        print(kit.write(f"compress_{name}", config, results))
    return code


if __name__ == "__main__":
    if sys.argv[1] == "rows":
        sys.exit(rows(Path(sys.argv[2]), Path(sys.argv[3])))
    if sys.argv[1] == "demo":
        sys.exit(keep("demo", Path(sys.argv[2]) / "small", main(["demo", "--output", sys.argv[2]])))
    sys.exit(compress(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
