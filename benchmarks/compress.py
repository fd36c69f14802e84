"""Compress a model to a budget with `demiglace compress`, and keep the numbers of the page.

    OMP_NUM_THREADS=1 python benchmarks/compress.py NAME MODEL OUTPUT --data banking77 --max-mb 8 --max-drop 1

All further options are those of the command. A second call resumes in OUTPUT. results/compress_NAME.json has the chosen
file, all files and candidates, and the rungs of the training.
"""

import sys
from pathlib import Path

import kit

from demiglace.cli import main
from demiglace.report.compression.page import headline
from demiglace.runs.directory import read_manifest

KEPT = ("rows", "metric", "chosen", "drop", "vocabulary", "teacher", "pytorch", "model_files", "candidates", "rungs")
PATHS = ("run", "export", "file")  # of one machine


def without_paths(value: object) -> object:
    """Return a value of JSON without the entries that are paths."""
    if isinstance(value, dict):
        return {k: without_paths(v) for k, v in value.items() if k not in PATHS}
    return [without_paths(v) for v in value] if isinstance(value, list) else value


def compress(name: str, model: str, output: Path, options: list[str]) -> int:
    """Run the command; write the results and return its exit code."""
    code = main(["compress", model, "--output", str(output), *options])
    if code == 0:
        manifest = read_manifest(output)
        results = {"headline": headline(manifest)} | {key: without_paths(manifest[key]) for key in KEPT}
        config = {k: v for k, v in manifest["config"].items() if k not in ("model", "data_dir")} | manifest["limits"]
        print(kit.write(f"compress_{name}", config, results))
    return code


if __name__ == "__main__":
    sys.exit(compress(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
