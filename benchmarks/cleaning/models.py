"""What cleaning its training text does for a model: raw, `paper` and `web`, one truncated decoder, three seeds.

    python benchmarks/cleaning/models.py --teacher runs/decoders/teacher --output runs/cleaning

The raw text is noisy_web, c4_sample and docs_raw with noise planted in it (`planted`). Half of the teacher's layers go
on training on the raw text, on what `--rules paper` leaves of it and on what `--rules web` leaves, with as many tokens
each; and once more on raw and paper with the time that cleaning by `web` took on top, as tokens. Every step is a call
of demiglace on a run directory, so the script goes on where it was cut off; it writes results/cleaning_models.json.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from corpora import SETS, data_folder, rows, write

import demiglace
from demiglace.evaluation.significance import holm_correction, mean_interval, paired_t_test
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import write_json

LAYERS, TOKENS, SEEDS = 6, 500_000, (0, 1, 2)
TRAINING = {"block_size": 256, "batch_size": 16, "batch_tokens": 2048, "epochs": 1, "learning_rate": 5e-4}
HELD_BACK = ("books/test", "docs_plain/validation", "tinystories/validation", "wikitext2/test")
# docs_raw holds pages of docs_plain: of those held back, only what shares no 13 words in a row with the raw text
UNSEEN = "docs_plain, unseen"
TASKS = {"sst2": 2000, "mrpc": 2000}
TUNING = {"epochs": 2, "learning_rate": 3e-4}
SITES = 20  # rules that look at the pages of a site find them
TEXTS = ("raw", "paper", "web")
EQUAL_TIME = ", equal time"  # behind a text's name
# shares of the documents that each kind of noise meets
NOISE = {"boilerplate": 0.3, "markup": 0.15, "mojibake": 0.05, "spam": 0.1, "copies": 0.1, "near copies": 0.1}
MENU = [
    f"{verb} {thing}"
    for verb in ("Sign in to", "Share on", "Read more about", "Accept", "Go to")
    for thing in (
        "your account",
        "all social networks",
        "our cookie policy",
        "the newsletter",
        "related articles",
        "the shop",
    )
]
SPAM = ("casino", "bonus", "cheap", "loan", "pills", "free", "download", "crack", "serial", "replica", "click", "now")


def planted(documents: Sequence[str], seed: int = 0) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Documents with noise, each with the kinds of noise it got; added ones (spam and copies) behind their original.

    boilerplate: three lines of a menu before and behind; markup: a fifth of the lines in HTML tags; mojibake: UTF-8
    read as Windows-1252; spam: a document of 60 to 300 advertising words; copies: the document again; near copies:
    again, with 5 % of its words replaced.
    """
    draw = np.random.default_rng(seed)
    for text in documents:
        hit = {kind: draw.random() < share for kind, share in NOISE.items()}
        lines = text.split("\n")
        if hit["markup"]:
            lines = [f"<div class='c'><p>{line}</p></div>" if draw.random() < 0.2 else line for line in lines]
        if hit["boilerplate"]:
            lines = [*draw.choice(MENU, 3), *lines, *draw.choice(MENU, 3)]
        made = "\n".join(lines)
        if hit["mojibake"]:
            made = made.replace("'", "\u2019").encode().decode("cp1252", "replace")
        yield made, tuple(k for k in ("boilerplate", "markup", "mojibake") if hit[k])
        if hit["copies"]:
            yield made, ("copies",)
        if hit["near copies"]:
            yield _reworded(made, draw), ("near copies",)
        if hit["spam"]:
            yield " ".join(draw.choice(SPAM, int(draw.integers(60, 300)))), ("spam",)


def _reworded(text: str, draw: np.random.Generator) -> str:
    words = text.split(" ")
    for i in np.flatnonzero(draw.random(len(words)) < 0.05):
        words[i] = str(draw.choice(SPAM))
    return " ".join(words)


def write_raw(home: Path) -> dict[str, Any]:
    """The raw text as one file, and what was planted: documents and characters of all and of each kind."""
    file, facts = home / "raw.jsonl.zst", home / "raw.json"
    if not facts.exists():
        home.mkdir(parents=True, exist_ok=True)
        count: dict[str, list[int]] = {}
        draft = file.with_suffix(".part")
        with draft.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as packed:
            for i, (text, kinds) in enumerate(planted([row["text"] for name in SETS for row in rows(name)])):
                row = {"text": text, "url": f"https://site{i % SITES}.example/{i}"}
                packed.write(json.dumps(row).encode() + b"\n")
                for kind in ("all", *kinds):
                    documents, characters = count.setdefault(kind, [0, 0])
                    count[kind] = [documents + 1, characters + len(text)]
        draft.replace(file)
        write_json(facts, {k: {"documents": d, "characters": c} for k, (d, c) in count.items()})
    found: dict[str, Any] = json.loads(facts.read_text("utf-8"))
    return found


def cleaned(home: Path, rules: str) -> float:
    """Clean the raw text; returns the seconds that it took, of a call that was not cut off."""
    note = home / f"{rules}.seconds.json"
    if not note.exists():
        shutil.rmtree(home / rules, ignore_errors=True)
        begun = time.perf_counter()
        demiglace.clean(sources=[str(home / "raw.jsonl.zst")], rules=rules, output=home / rules)
        write_json(note, {"seconds": round(time.perf_counter() - begun, 1)})
    return float(json.loads(note.read_text("utf-8"))["seconds"])


def train(home: Path, start: Path, name: str, corpus: Path, seed: int, tokens: int) -> dict[str, Any]:
    """One model, trained and measured."""
    model = demiglace.pretrain(
        model=start,
        corpus=[str(corpus)],
        validation_corpus=[str(data_folder() / "books" / "validation.jsonl.zst")],
        max_tokens=tokens,
        token_files=str(home / "tokens"),
        seed=seed,
        output=home / "models" / f"{name}-{seed}",
        **TRAINING,
    )
    said = read_manifest(model)
    facts = {"text": name, "seed": seed, "tokens": said["tokens"]["train"], "seconds": said["seconds"]["train"]}
    return facts | measure(home, f"{name}-{seed}", model, seed)


def measure(home: Path, name: str, model: Path, seed: int) -> dict[str, Any]:
    """Perplexity and bits per byte on clean text that nothing was trained on, and two tasks."""
    files = {held: str(data_folder() / f"{held}.jsonl.zst") for held in HELD_BACK}
    found = scored(model, files, home / "scores" / name)
    found |= scored(model, {UNSEEN: str(unseen(home))}, home / "scores" / f"{name}-unseen")
    return {"held_back": found, "tasks": {task: tuned(home, name, model, task, seed) for task in TASKS}}


def scored(model: Path, files: Mapping[str, str], output: Path) -> dict[str, dict[str, float]]:
    """Perplexity and bits per byte on each of these corpora."""
    size = TRAINING["block_size"]
    sets = read_manifest(demiglace.evaluate(model=model, corpus=[*files.values()], block_size=size, output=output))[
        "sets"
    ]
    return {n: {m: sets[file]["metrics"][m] for m in ("perplexity", "bits_per_byte")} for n, file in files.items()}


def unseen(home: Path) -> Path:
    """What is held back of docs_plain and shares no run of words with the raw text."""
    rules = home / "unseen.yaml"
    rules.write_text(f"rules:\n- {{rule: decontamination, against: ['{home / 'raw.jsonl.zst'}']}}\n", "utf-8")
    sources = [str(data_folder() / "docs_plain" / f"{split}.jsonl.zst") for split in ("validation", "test")]
    found = demiglace.clean(sources=sources, rules=str(rules), output=home / "unseen")
    assert found is not None
    return found


def tuned(home: Path, name: str, model: Path, task: str, seed: int) -> float:
    """The first metric of a task, in per cent of its validation rows."""
    run = home / "tasks" / f"{name}-{task}"
    demiglace.finetune(model=model, data=task, max_rows=TASKS[task], seed=seed, output=run, **TUNING)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return round(100 * next(iter(read_manifest(run)["metrics"]["validation"].values())), 2)


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What models are compared by."""
    return {f"{held}, bits per byte": s["bits_per_byte"] for held, s in row["held_back"].items()} | row["tasks"]


def compared(found: Sequence[dict[str, Any]], against: str = "raw") -> dict[str, Any]:
    """Differences to the raw text's models, by text and number: mean, 95 % interval, Holm-corrected p over seeds."""
    by_text = {t: [numbers(r) for r in found if r["text"] == t] for t in dict.fromkeys(r["text"] for r in found)}
    pairs = [(t, n) for t in by_text if t not in (against, "start") for n in by_text[t][0]]
    result, p = [], []
    for text, name in pairs:
        ours, theirs = ([row[name] for row in by_text[t]] for t in (text, against))
        differences = np.subtract(ours[: len(theirs)], theirs[: len(ours)])
        spread = float(differences.std(ddof=1)) if len(differences) > 1 else None
        mean = float(differences.mean())
        result.append({"difference": mean, "interval": mean_interval(mean, spread, len(differences))})
        p.append(paired_t_test(ours[: len(differences)], theirs[: len(differences)]))
    said: dict[str, Any] = {}
    for (text, name), one, value in zip(pairs, result, holm_correction(p), strict=True):
        said.setdefault(text, {})[name] = one | {"p": value}
    return said


def main() -> None:
    """Make what is not made yet, and write the results after every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, default=Path("runs/decoders/teacher"))
    parser.add_argument("--output", type=Path, default=Path("runs/cleaning"))
    args = parser.parse_args()
    home = args.output
    noise = write_raw(home)
    cleaning = {rules: cleaned(home, rules) for rules in TEXTS[1:]}
    texts = {"raw": home / "raw.jsonl.zst"} | {rules: home / rules for rules in TEXTS[1:]}
    start = demiglace.truncate(model=str(args.teacher), layers=LAYERS, output=home / "start")
    found = [{"text": "start", "seed": 0, "tokens": 0, "seconds": 0.0} | measure(home, "start", start, 0)]
    todo = [(text, seed, TOKENS) for seed in SEEDS for text in TEXTS]
    while todo:
        text, seed, tokens = todo.pop(0)
        found.append(train(home, start, text, texts[text.split(",")[0]], seed, tokens))
        if not todo and len(found) == 1 + len(SEEDS) * len(TEXTS):
            speed = np.median([row["tokens"] / row["seconds"] for row in found[1:]])
            for plain, saved in (("raw", cleaning["web"]), ("paper", cleaning["web"] - cleaning["paper"])):
                todo += [(f"{plain}{EQUAL_TIME}", s, TOKENS + round(float(speed * saved))) for s in SEEDS]
        facts = {"noise": noise, "cleaning_seconds": cleaning, "models": found, "compared": compared(found)}
        of_equal_time = [row for row in found if row["text"] == "web" or row["text"].endswith(EQUAL_TIME)]
        if f"raw{EQUAL_TIME}" in {row["text"] for row in of_equal_time}:
            facts["compared at equal time"] = compared(of_equal_time, f"raw{EQUAL_TIME}")
        write("cleaning_models", facts)


if __name__ == "__main__":
    main()
