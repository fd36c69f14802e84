"""Measure examples/few_labels.py: the accuracies of README's example.

    OMP_NUM_THREADS=1 python benchmarks/few_labels.py runs/few-labels

Runs the example with its default options and writes results/few_labels.json: of each run its metrics, rows, seconds and
options. A run that is complete in the given directory is read, not trained again.
"""

import argparse
import runpy
import sys
from pathlib import Path

import kit

from demiglace.runs.directory import read_manifest

EXAMPLE = Path(__file__).parents[1] / "examples" / "few_labels.py"
RUNS = ("teacher", "student", "baseline")


def main() -> None:
    """Run the example in a directory and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    sys.argv = [str(EXAMPLE), "--output", str(directory)]
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    results = {}
    for name in RUNS:
        manifest = read_manifest(directory / name)
        config = {key: value for key, value in manifest["config"].items() if not str(value).startswith("/")}
        found = {key: manifest[key] for key in ("rows", "best_epoch", "seconds")}
        results[name] = {**manifest["metrics"], **found, "config": config}
    kit.write("few_labels", {"example": "examples/few_labels.py, its defaults", "seed": 0}, results)


if __name__ == "__main__":
    main()
