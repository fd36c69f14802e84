"""Write a sample report within a minute, from real runs: a small grid of tiny models on generated sentences.

    python examples/report_demo.py --output runs/report-demo

Two tasks are trained from scratch: `mood`, whether a sentence has more praise than blame ("not" negates the next
word), and `order`, whether an animal or a colour comes first. Each task has a teacher of four layers, and students of
two layers by three methods with three seeds. Sentences longer than those of training are out of domain.
"""

import argparse
import csv
import random
from pathlib import Path

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

import demiglace

GOOD, BAD = ("good", "great", "kind", "bright", "calm"), ("bad", "awful", "rude", "dull", "loud")
ANIMALS, COLOURS = ("cat", "dog", "fox", "owl", "bee"), ("red", "blue", "green", "pink", "grey")
FILLERS = ("the", "and", "a", "it", "was", "very", "so", "then", "by", "on")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TRAINING = {"epochs": 4, "batch_size": 32, "learning_rate": 2e-3, "max_length": 32}


def mood(generator: random.Random, length: int) -> tuple[str, str]:
    """Return a sentence and whether it has more praise than blame; some words are negated."""
    score, words = 0, []
    while not score or len(words) < length:
        praise = generator.random() < 0.5
        negated = generator.random() < 0.3
        words += generator.sample(FILLERS, 1) + ["not"] * negated + [generator.choice(GOOD if praise else BAD)]
        score += 1 if praise != negated else -1
    return " ".join(words), "positive" if score > 0 else "negative"


def order(generator: random.Random, length: int) -> tuple[str, str]:
    """Return a sentence with one animal and one colour, and which of them comes first."""
    words = [generator.choice(FILLERS) for _ in range(length)]
    animal, colour = generator.sample(range(length), 2)
    words[animal], words[colour] = generator.choice(ANIMALS), generator.choice(COLOURS)
    return " ".join(words), "animal" if animal < colour else "colour"


def write_rows(file: Path, make, count: int, lengths: range, seed: int) -> str:
    """Write a CSV file of distinct rows; return its path."""
    generator, rows = random.Random(seed), {}
    while len(rows) < count:
        text, label = make(generator, generator.choice(lengths))
        rows[text] = label
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *rows.items()])
    return str(file)


def write_model(path: Path) -> str:
    """Write an untrained classifier of four layers of width 64 with a tokenizer of the words above; return its path."""
    words = [*SPECIAL, *GOOD, *BAD, *ANIMALS, *COLOURS, *FILLERS, "not"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=core, mask_token="[MASK]", **names).save_pretrained(path)
    set_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, **size)
    BertForSequenceClassification(config).save_pretrained(path)
    return str(path)


def grid(directory: Path) -> dict:
    """Return the grid of the comparison; its rows and model are written below `directory`."""
    tasks = {}
    for name, make in (("mood", mood), ("order", order)):
        splits = {"data": (800, 1), "validation": (200, 2), "test": (300, 3)}
        files = {
            s: write_rows(directory / name / f"{s}.csv", make, n, range(6, 11), seed) for s, (n, seed) in splits.items()
        }
        longer = write_rows(directory / name / "longer.csv", make, 200, range(14, 20), 4)
        tasks[name] = files | {"evaluate": {"sets": [longer]}}
    return {
        "tasks": tasks,
        "teacher": {"model": write_model(directory / "untrained"), **TRAINING, "epochs": 16},
        "students": {"half": {"layers": 2}},
        "methods": {"none": {}, "vanilla-kd": {}, "rail-kd-l": {}},
        "defaults": TRAINING,
        "seeds": [0, 1, 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/report-demo"))
    args = parser.parse_args()
    file = args.output / "grid.yaml"
    content = grid(args.output / "material")
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    home = demiglace.compare(grid=file, output=args.output / "comparison")
    demiglace.report(
        runs=[home], output=args.output / "report.html", tables=args.output / "tables", title="A sample comparison"
    )


if __name__ == "__main__":
    main()
