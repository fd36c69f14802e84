"""Compare two students of a comparison with the same task, method and seed, which its page does not test.

    python benchmarks/between_students.py runs/decoders-tasks plain distilgpt2

Prints a Markdown table: for each method that both have, on each task and on average over the tasks, the mean difference
in the main metric, its 95 % t interval over seeds, and p with Holm's correction over the table (averages separately).
It reads only the summary, without predictions. So interval and p are about new seeds on these test rows, not about new
test rows.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.evaluation.significance import holm_correction, mean_interval, paired_t_test
from demiglace.runs.files import read_json

AVERAGE = "average"


def scores(summary: Mapping[str, Any]) -> dict[tuple[str, str, str], list[float]]:
    """Return (task or average, student, method) -> the main metric of each seed."""
    found = {}
    for cell in summary["cells"]:
        metrics = cell["sets"][cell["in_domain"]]["metrics"]
        found[cell["task"], cell["student"], cell["method"]] = next(iter(metrics.values()))["values"]
    for row in summary["averages"]:
        found[AVERAGE, row["student"], row["method"]] = row["in_domain"]["values"]
    return found


def differences(summary: Mapping[str, Any], one: str, other: str) -> list[dict[str, Any]]:
    """Return a row per task and method: the mean difference `one` − `other`, its interval and p."""
    values = scores(summary)
    rows = []
    for (task, student, method), first_scores in values.items():
        second_scores = values.get((task, other, method))
        if student == one and second_scores is not None and len(first_scores) == len(second_scores):
            each = np.subtract(first_scores, second_scores)
            mean = float(each.mean())
            ends = mean_interval(mean, float(each.std(ddof=1)), len(each))
            found = {
                "task": task,
                "method": method,
                "mean": mean,
                "interval": ends,
                "p": paired_t_test(first_scores, second_scores),
            }
            rows.append(found)
    parts = [r for r in rows if r["task"] != AVERAGE], [r for r in rows if r["task"] == AVERAGE]
    return [
        row | {"p": p} for part in parts for row, p in zip(part, holm_correction([r["p"] for r in part]), strict=True)
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown in points, with a line per method and a column per task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    cells: dict[str, list[str]] = {}
    for row in rows:
        mean, low, high = (100 * v for v in (row["mean"], *row["interval"]))
        cells.setdefault(row["method"], []).append(f"{mean:+.1f} ({low:+.1f} to {high:+.1f}), p {row['p']:.2g}")
    lines = [
        ["method", *tasks],
        ["---"] * (1 + len(tasks)),
        *([method, *row_cells] for method, row_cells in cells.items()),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("students", nargs=2, metavar="STUDENT")
    args = parser.parse_args()
    print(table(differences(read_json(args.comparison / "summary.json"), *args.students)), end="")


if __name__ == "__main__":
    main()
