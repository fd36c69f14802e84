"""The tutorial in Python: fine-tune a classifier on CSV files, distil it into half of its layers, export and report.

python examples/compress.py train.csv test.csv --output runs
"""

import argparse
from pathlib import Path

import demiglace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="CSV, TSV, JSONL or Parquet file of labelled rows")
    parser.add_argument("test", help="file of test rows, for the reported results")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="directory or hub name")
    parser.add_argument("--layers", type=int, default=3, help="layers of the student")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    args = parser.parse_args()
    data = {"data": args.train, "test": args.test, "learning_rate": 2e-4}
    student = {"layers": args.layers, "epochs": 4}
    home = args.output

    teacher = demiglace.finetune(model=args.model, output=home / "teacher", **data)
    demiglace.distill(teacher=teacher, method="rail-kd-l", output=home / "student", **student, **data)
    demiglace.distill(teacher=teacher, method="none", output=home / "baseline", **student, **data)
    for name in ("teacher", "student", "baseline"):
        demiglace.evaluate(model=home / name, data=args.test, teacher=teacher, output=home / f"evaluation-{name}")
    demiglace.export(model=home / "student", teacher=teacher, quantize="int8", output=home / "onnx")
    demiglace.report(runs=[home], output=home / "report.html", title=Path(args.train).stem)


if __name__ == "__main__":
    main()
