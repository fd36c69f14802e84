"""Reproduce Li et al. 2021 (arXiv 2110.08460) at a small scale: one teacher, its truncations, two distillations.

    python benchmarks/decoders.py --output runs/decoders
    python benchmarks/decoders.py --only distilgpt2 alternate-kd-seed-1   # only these, in parallel to another process

Every step is a demiglace command on a run directory, so the script resumes after an interruption. It writes
benchmarks/results/decoders.json and its tables, decoders.md; docs/results/decoders.md discusses the results. The
students are fine-tuned on tasks by recipes/compare/decoders.yaml, which reads them from runs/decoders.
"""

import argparse
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

import demiglace
from demiglace.evaluation.significance import holm_correction, mean_interval, paired_t_test
from demiglace.runs.directory import read_manifest
from demiglace.runs.environment import machine
from demiglace.runs.files import write_json

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("DEMIGLACE_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results" / "decoders.json"
CORPORA = ("books", "docs_plain", "encyclopedic", "tinystories")
TRUNCATIONS = ("alternate", "distil", "bottom", "top", "block-influence", "random")
TRAINING = {"block_size": 256, "batch_size": 32, "batch_tokens": 2048, "epochs": 1, "validation_blocks": 128}
WIDTH, LAYERS, VOCABULARY = 256, 12, 8192
TEACHER_TOKENS, STUDENT_TOKENS = 8_000_000, 1_000_000
STUDYING = {"batch_size": 16}  # half of the teacher's, for twice as many steps
PLAIN = {"learning_rate": 5e-4}
# Resampling of windows or texts: the variance over other texts of the same kind, not over other trainings.
RESAMPLING: dict[str, Any] = {"n_resamples": 2000, "method": "percentile", "vectorized": True, "rng": 0}
# DistilGPT2's recipe; its weights and temperature are those of the method `distil`
DISTIL = {
    "learning_rate": 5e-4,
    "warmup_ratio": 0.05,
    "weight_decay": 0.0,
    "adam_epsilon": 1e-6,
    "max_grad_norm": 5.0,
    "freeze": ["wpe"],
}


@dataclass(frozen=True)
class Student:
    """A student: its initial weights and its training."""

    name: str
    start: str  # strategy of the truncation
    method: str | None = None  # None: the plain loss of a language model
    tokens: int = STUDENT_TOKENS
    seed: int = 0

    @property
    def run(self) -> str:
        """Return the name of its directories."""
        return run_name(self.name, self.seed)


def run_name(name: str, seed: int) -> str:
    """Return the name of the directory of a student with this seed."""
    return f"{name}-seed-{seed}" if seed else name


STUDENTS = (
    *(Student(f"{start}-plain", start) for start in TRUNCATIONS),
    Student("distilgpt2", "distil", "distil"),
    Student("alternate-kd", "alternate", "vanilla-kd"),
)
EQUAL_TIME = "alternate-plain-equal-time"
# students that claims are about; trained again with these seeds, which change the order of blocks and the dropout
SEEDED = ("alternate-plain", "distil-plain", "distilgpt2", "alternate-kd", EQUAL_TIME)
SEEDS = (1, 2)
# (a, b): the difference loss(a) − loss(b)
COMPARED = (
    *((f"{start}-plain", "alternate-plain") for start in TRUNCATIONS if start != "alternate"),
    ("alternate-plain", "distilgpt2"),
    (EQUAL_TIME, "distilgpt2"),
    ("distilgpt2", "distil-plain"),
    ("alternate-kd", "alternate-plain"),
    ("alternate-kd", EQUAL_TIME),
)


def texts(split: str) -> list[str]:
    """Return the files of this split of all corpora."""
    return [str(DATA / corpus / f"{split}.jsonl.zst") for corpus in CORPORA]


def make_teacher(home: Path) -> Path:
    """Train a tokenizer and a GPT-2 from random weights."""
    demiglace.tokenizer(action="train", corpus=texts("train"), vocab_size=VOCABULARY, output=home / "tokenizer")
    return demiglace.pretrain(
        architecture="gpt2",
        hidden_size=WIDTH,
        num_layers=LAYERS,
        tokenizer=str(home / "tokenizer"),
        corpus=texts("train"),
        validation_corpus=texts("validation"),
        max_tokens=TEACHER_TOKENS,
        token_files=str(home / "tokens"),
        learning_rate=1e-3,
        output=home / "teacher",
        **TRAINING,
    )


def make_start(home: Path, teacher: Path, strategy: str) -> Path:
    """Truncate the teacher to half of its layers."""
    chosen = {"calibration": texts("validation")} if strategy == "block-influence" else {}
    start = home / "starts" / strategy
    return demiglace.truncate(model=teacher, layers=LAYERS // 2, strategy=strategy, output=start, **chosen)


def make_student(home: Path, teacher: Path, student: Student) -> Path:
    """Train a student."""
    start = make_start(home, teacher, student.start)
    shared: dict[str, Any] = (
        TRAINING
        | STUDYING
        | {
            "corpus": texts("train"),
            "validation_corpus": texts("validation"),
            "max_tokens": student.tokens,
            "token_files": str(home / "tokens"),
            "seed": student.seed,
            "output": home / "students" / student.run,
        }
    )
    if student.method is None:
        return demiglace.pretrain(model=start, **shared, **PLAIN)
    more = DISTIL if student.method == "distil" else PLAIN
    return demiglace.distill(teacher=teacher, student=start, method=student.method, **shared, **more)


def at_equal_time(home: Path) -> Student:
    """Return the plain student with as many tokens as it would process in the time of DistilGPT2's recipe."""
    seconds = {n: read_manifest(home / "students" / n)["seconds"]["train"] for n in ("alternate-plain", "distilgpt2")}
    tokens = STUDENT_TOKENS * seconds["distilgpt2"] / seconds["alternate-plain"]
    return Student(EQUAL_TIME, "alternate", None, round(tokens))


def students(home: Path) -> Iterator[Student]:
    """Yield every student. Those after `STUDENTS` need the training times of `STUDENTS`."""
    yield from STUDENTS
    named = {s.name: s for s in (*STUDENTS, at_equal_time(home))}
    yield named[EQUAL_TIME]
    yield from (replace(named[name], seed=seed) for seed in SEEDS for name in SEEDED)


def zero_shot(home: Path, name: str, model: Path) -> dict[str, Any]:
    """Evaluate a model on held-out texts and LAMBADA."""
    options = {"block_size": TRAINING["block_size"], "lambada": str(DATA / "lambada" / "test.jsonl.zst")}
    return _short(demiglace.evaluate(model=str(model), corpus=held_back(), output=home / "scores" / name, **options))


def fine_tuned(home: Path, name: str, model: Path) -> dict[str, Any]:
    """Evaluate a model on WikiText-2's test text after two epochs on its validation text."""
    tuned = demiglace.pretrain(
        model=model,
        corpus=[str(DATA / "wikitext2" / "validation.jsonl.zst")],
        learning_rate=2e-4,
        output=home / "tuned" / name,
        **TRAINING | {"epochs": 2},
    )
    run = demiglace.evaluate(
        model=str(tuned),
        corpus=held_back()[:1],
        block_size=TRAINING["block_size"],
        output=home / "tuned-scores" / name,
    )
    return _short(run)


def held_back() -> list[str]:
    """Return the texts that no model was trained on."""
    files = ("wikitext2/test", "tinystories/validation", "books/test")
    return [str(DATA / f"{name}.jsonl.zst") for name in files]


def _short(run: Path) -> dict[str, Any]:
    names = ("perplexity", "word_perplexity", "bits_per_byte", "accuracy")
    found = {
        label(text): {n: round(scores["metrics"][n], 4) for n in names if n in scores["metrics"]}
        for text, scores in read_manifest(run)["sets"].items()
    }
    for number, scores in enumerate(found.values(), 1):
        losses, counts = parts(run, "lambada" if "accuracy" in scores else str(number))
        interval = bootstrap((losses, counts), mean, paired=True, **RESAMPLING).confidence_interval
        scores["perplexity_95"] = [round(float(np.exp(end)), 4) for end in interval]
    return found


def measured() -> list[str]:
    """Return the names of the texts on which models are compared."""
    return [*map(label, held_back()), "lambada/test", f"{label(held_back()[0])}, fine-tuned"]


def label(text: str) -> str:
    """Return the corpus and split of a text."""
    return "/".join(Path(text).parts[-2:]).removesuffix(".jsonl.zst")


def parts(run: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss (nats) and the tokens of each window of a text; for LAMBADA, of each last word, and 1."""
    losses = np.load(run / f"{stem}-losses.npy")
    return losses, np.ones(len(losses)) if stem == "lambada" else np.load(run / f"{stem}-tokens.npy")


def mean(losses: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean loss per token."""
    return np.asarray(losses.sum(axis) / counts.sum(axis))


def difference(home: Path, one: str, other: str) -> dict[str, Any]:
    """Return the difference of two models' mean losses in nats, with its 95 % interval, by text."""
    found: dict[str, Any] = {"model": one, "against": other}
    sources = [("scores", stem) for stem in ("1", "2", "3", "lambada")] + [("tuned-scores", "1")]
    for (folder, stem), name in zip(sources, measured(), strict=True):
        runs = [home / folder / model for model in (one, other)]
        if all((run / "manifest.json").exists() for run in runs):
            (losses, counts), (others, _) = (parts(run, stem) for run in runs)
            ends = bootstrap((losses - others, counts), mean, paired=True, **RESAMPLING).confidence_interval
            found[name] = [round(float(v), 4) for v in (mean(losses - others, counts), *ends)]
    return found


def over_seeds(home: Path, names: set[str]) -> list[dict[str, Any]]:
    """Return the differences of pairs in nats by text: by seed, their mean, 95 % t interval, and Holm's p.

    Seeds with missing models are left out.
    """
    seeds = [seed for seed in (0, *SEEDS) if {run_name(name, seed) for name in SEEDED} <= names]
    found: list[dict[str, Any]] = []
    for one, other in (pair for pair in COMPARED if {*pair} <= {*SEEDED} and len(seeds) > 1):
        each = [difference(home, run_name(one, seed), run_name(other, seed)) for seed in seeds]
        for text in measured()[:-1]:  # only the first seed's models are fine-tuned
            values = [row[text][0] for row in each]
            average, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
            ends = mean_interval(average, deviation, len(values)) or []
            facts = {"seeds": values, "mean": round(average, 4), "interval": [round(end, 4) for end in ends]}
            found.append({"model": one, "against": other, "text": text} | facts)
    p = holm_correction([paired_t_test(row["seeds"], [0.0] * len(seeds)) for row in found])
    return [row | {"p": value} for row, value in zip(found, p, strict=True)]


def record(home: Path, name: str, model: Path) -> dict[str, Any]:
    """Return the results of one model."""
    manifest = read_manifest(model)
    facts = {name: manifest[name]["train"] for name in ("tokens", "seconds")} | {"parameters": manifest["parameters"]}
    loss = manifest["metrics"]["validation"]["loss"]
    return {"name": name, **facts, "loss": loss, "zero_shot": zero_shot(home, name, model)}


def write(home: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the results so far."""
    names = {row["name"] for row in rows}
    compared = [difference(home, a, b) for a, b in COMPARED if {a, b} <= names]
    found = {"date": str(date.today()), "machine": machine(), "models": rows, "compared": compared}
    found["over seeds"] = over_seeds(home, names)
    write_json(RESULTS, found)
    if compared:
        RESULTS.with_suffix(".md").write_text(tables(found), "utf-8")


def tables(found: Mapping[str, Any]) -> str:
    """Return the results as Markdown tables: models, comparisons, and comparisons over seeds."""
    rows = found["models"]
    texts = list(rows[0]["zero_shot"])
    head = ["model", "tokens", "training, s", *(f"{t}: perplexity (95 %), bits/byte" for t in texts[:-1])]
    lines = [[*head, "LAMBADA right, perplexity", "WikiText-2 fine-tuned"]]
    for row in rows:
        *plain, lambada = row["zero_shot"].values()
        cells = [f"{_perplexity(s)}, {s['bits_per_byte']:.3f}" for s in plain]
        last = f"{lambada['accuracy']:.2%}, {_perplexity(lambada)}"
        tuned = _perplexity(row["fine_tuned"][texts[0]]) if "fine_tuned" in row else "–"
        lines.append([row["name"], f"{row['tokens']:,}", f"{row['seconds']:,.0f}", *cells, last, tuned])
    compared = [["model", "against", *measured()]]
    for pair in found["compared"]:
        cells = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*pair[text]) if text in pair else "–" for text in measured()]
        compared.append([pair["model"], pair["against"], *cells])
    return "\n".join(_table(t) for t in (lines, compared, _of_seeds(found["over seeds"])) if len(t) > 1)


def _of_seeds(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a line per pair: the mean difference over seeds on each text, its interval and p."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        text = "{:+.3f} ({:+.3f} to {:+.3f}), p {:.2g}".format(row["mean"], *row["interval"], row["p"])
        cells.setdefault((row["model"], row["against"]), []).append(text)
    return [["model", "against", *measured()[:-1]], *([*pair, *values] for pair, values in cells.items())]


def _perplexity(scores: Mapping[str, Any]) -> str:
    shown = [f"{v:,.1f}" if v < 1e4 else f"{v:.2g}" for v in (scores["perplexity"], *scores["perplexity_95"])]
    return "{} ({} to {})".format(*shown)


def _table(lines: Sequence[Sequence[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in ruled)


def main() -> None:
    """Train and evaluate every model that is not done, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/decoders"))
    again = [run_name(name, seed) for seed in SEEDS for name in SEEDED]
    names = [*(s.name for s in STUDENTS), EQUAL_TIME, *again]
    parser.add_argument("--only", nargs="+", metavar="STUDENT", choices=names, help="train and evaluate only these")
    args = parser.parse_args()
    home, teacher = args.output, make_teacher(args.output)
    if args.only:
        for student in itertools.islice(students(home), 1 + max(map(names.index, args.only))):
            if student.run in args.only:
                record(home, student.run, make_student(home, teacher, student))
        return
    models, rows = {"teacher": teacher}, [record(home, "teacher", teacher)]
    for student in students(home):
        models[student.run] = make_student(home, teacher, student)
        rows.append(record(home, student.run, models[student.run]))
        write(home, rows)
    for row in rows:
        if row["name"] not in again:
            row["fine_tuned"] = fine_tuned(home, row["name"], models[row["name"]])
            write(home, rows)


if __name__ == "__main__":
    main()
