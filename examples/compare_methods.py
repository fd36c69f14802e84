"""Compare methods over several seeds, with the baseline `none`; all students start from the same layers.

python examples/compare_methods.py --data mrpc --methods none vanilla-kd rail-kd-l --seeds 5
"""

import argparse
import statistics
from pathlib import Path

import demiglace
from demiglace.runs.directory import read_manifest


def score(run: Path) -> float:
    """Return the validation metric that selects the epoch of a run: the task's first."""
    return next(iter(read_manifest(run)["metrics"]["validation"].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mrpc", help="a named task, or a file of labelled rows")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="directory or hub name")
    parser.add_argument("--methods", nargs="+", default=["none", "vanilla-kd", "rail-kd-l"])
    parser.add_argument("--seeds", type=int, default=5, help="at least 2, for a standard deviation")
    parser.add_argument("--layers", type=int, default=3, help="layers of the students")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    args = parser.parse_args()
    shared = {"data": args.data, "epochs": args.epochs}
    teacher = demiglace.finetune(model=args.model, output=args.output / "teacher", **shared)
    print(f"{'teacher':<12} {score(teacher):.4f}")
    for method in args.methods:
        scores = [
            score(
                demiglace.distill(
                    teacher=teacher,
                    layers=args.layers,
                    method=method,
                    seed=seed,
                    cache=args.output / "signals",  # the teacher runs once for all of them
                    output=args.output / f"{method}-{seed}",
                    **shared,
                )
            )
            for seed in range(args.seeds)
        ]
        print(f"{method:<12} {statistics.mean(scores):.4f} ± {statistics.stdev(scores):.4f}")


if __name__ == "__main__":
    main()
