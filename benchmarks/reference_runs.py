"""Prove that a refactoring changed nothing but names: run every command before and after it, and compare all they made.

    python benchmarks/reference_runs.py make DIR                   # some minutes; DIR/work holds the runs
    python benchmarks/reference_runs.py compare DIR OTHER          # exit code 1 if anything differs
    python benchmarks/reference_runs.py compare DIR OTHER --only weights,predictions
    python benchmarks/reference_runs.py compare DIR OTHER --renamed old_option=new_option   # is that all?

`make` writes tiny random models, rows and texts with fixed seeds, runs the commands below on them, one process each,
and puts digests of all files into DIR/digests.json. It uses nothing of demiglace but its command line. Both sides must
be made on one machine with the same libraries, as the last bits of floats depend on these. `demo` is left out: it is
finetune, distill, evaluate, export and report, and takes minutes.
"""

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from reference_digests import KINDS, differences, digest_tree, read_digests, renamed, write_digests

RECIPES = Path(__file__).parent.parent / "recipes"

# ---- the commands: name of the output -> command line, to which "-o NAME" is added; later ones read earlier ones

FAST = "--batch-size 8 --lr 5e-3 --log-steps 1 --checkpoint-seconds 3600"
ROWS = "--data inputs/moods/train.csv --validation inputs/moods/validation.csv --test inputs/moods/test.csv --epochs 6"
SCORES = "--data inputs/scores/train.csv --validation inputs/scores/validation.csv --epochs 6"
TEXT = "--corpus inputs/train.jsonl --validation-corpus inputs/validation.jsonl --block-size 16 --epochs 2"
CUT = "distill --teacher teacher --layers 2"  # a student on rows
TINY = "--hidden-size 32 --num-layers 2 --num-heads 4 --intermediate-size 64"
LENIENT = "--method-options.allow_poor_generator true"

RUNS = {
    "teacher": f"finetune --model inputs/bert {ROWS} {FAST} --dropout 0.1",
    "regressor": f"finetune --model inputs/bert {SCORES} {FAST}",
    "decoder": f"finetune --model inputs/gpt2-classifier {ROWS} {FAST} --load-best-model-at-end false",
    "half": "truncate teacher --layers 2 --strategy bottom",
    "half-new": "truncate inputs/gpt2 --layers 2 --strategy embeddings --seed 1",
    "half-influence": "truncate inputs/gpt2 --layers 2 --strategy block-influence --calibration inputs/train.jsonl",
    "half-greedy": "truncate inputs/gpt2 --layers 2 --strategy greedy --calibration inputs/train.jsonl",
    "vanilla-kd": f"{CUT} --method vanilla-kd {ROWS} {FAST} --unlabelled inputs/unlabelled.csv --cache cache",
    "rail-kd-l": f"{CUT} --method rail-kd-l {ROWS} {FAST} --cache cache --cache-dtype float32",
    "rail-kd-l-online": f"{CUT} --method rail-kd-l {ROWS} {FAST} --cache off --method-options.sampling step",
    "rail-kd-c-narrow": f"distill --teacher teacher --student inputs/narrow --method rail-kd-c {ROWS} {FAST}",
    "tinybert": f"{CUT} --method tinybert --method-options.transfer_share 0.5 {ROWS} {FAST}",
    "mate-kd": f"{CUT} --method mate-kd {LENIENT} --method-options.generator inputs/masked {ROWS} {FAST}",
    "rail-reverse": f"{CUT} --method inputs/rail-reverse.yaml {ROWS} {FAST}",
    "regression": f"distill --teacher regressor --student half --method annealing-kd {SCORES} {FAST}",
    "decoder-half": f"distill --teacher decoder --layers 2 --method rail-kd-l {ROWS} {FAST}"
    " --label-map.positive positive --label-map.negative negative",
    "tokenizer": "tokenizer train --corpus inputs/train.jsonl --vocab-size 270 --mask-token true",
    "lm": f"pretrain --config-of gpt2 {TINY} --tokenizer tokenizer {TEXT} {FAST}",
    "masked-lm": f"pretrain --model inputs/masked {TEXT} {FAST}",
    "lm-online": f"distill --teacher inputs/gpt2 --layers 2 --method rail-kd-l {TEXT} {FAST} --token-files tokens",
    "lm-sampled": f"distill --teacher lm --layers 1 --method vanilla-kd {TEXT} {FAST} --cache cache"
    " --cache-tokens sampled",
    "lm-top-k": f"distill --teacher lm --layers 1 --method vanilla-kd {TEXT} {FAST} --cache-tokens top-k",
    "masked-half": f"distill --teacher masked-lm --layers 2 --method distil {TEXT} {FAST} --token-files tokens",
    "scored": "evaluate rail-kd-l --teacher teacher --data inputs/moods/test.csv inputs/moods/validation.csv"
    " --group-column place",
    "perplexity": "evaluate lm-sampled --corpus inputs/train.jsonl inputs/validation.jsonl --lambada inputs/train.jsonl"
    " --block-size 16 --stride 4",
    "onnx": "export vanilla-kd --teacher teacher --quantize int8 --rows 12 --repeats 3",
    "cleaned": "clean inputs/pages --rules web --against inputs/held-back.jsonl --workers 1",
    "cleaned-paper": "clean inputs/pages --rules paper --format jsonl --workers 1",
    "grid": "compare inputs/grid.yaml",
    "all-methods": "compare inputs/all-methods.yaml --no-controls",
    "searched": "compare inputs/searched.yaml --search optuna",
    "report/runs.html": "report teacher half rail-kd-l scored onnx --tables report/runs",
    "report/grid.html": "report grid --tables report/grid",
}

# what is only printed: name of the file -> command line
PRINTED = {
    "plan-rows": f"plan --teacher teacher --layers 2 --method mate-kd {LENIENT} {ROWS} {FAST} --flops 1e9",
    "plan-text": f"plan --teacher lm --layers 1 --method vanilla-kd {TEXT} --cache-tokens sampled --flops 1e9",
    "generate": "generate lm-online --prompt 'the cat' the --new-tokens 16 --seed 1",
    "explain": "clean inputs/pages --explain",
    "methods": "methods",
    "method": "methods rail-kd-l",
    "method-show": "methods show rail-kd-l",
    "tasks": "tasks",
    "task": "tasks mnli",
}

PLAIN = (
    *("none", "vanilla-kd", "pseudo-labels", "pkd", "distil", "ckd", "alp-kd", "universal-kd", "last-layer-kd", "jsd"),
    *("rail-kd-c", "rail-balanced", "continuation-kd", "reverse-kl", "skew-kl", "skew-reverse-kl"),
)
IN_PHASES = ("annealing-kd", "rail-annealing", "minilm", "minilmv2")
SHORT, POOR = {"short_phases": True}, {"allow_poor_generator": True}
METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in PLAIN},
    **{name: {"method_options": SHORT} for name in IN_PHASES},
    "combined-kd": {"method_options": SHORT | POOR},
    "rail-mate": {"method_options": POOR},
}
SPLITS = {"data": "train", "validation": "validation", "test": "test"}
GRID = {
    "tasks": {"mood": {k: f"inputs/moods/{v}.csv" for k, v in SPLITS.items()}},
    "teacher": {"model": "inputs/bert", "epochs": 6, "batch_size": 8, "lr": 5e-3},
    "students": {"half": {"layers": 2}},
    "defaults": {"epochs": 4, "batch_size": 16, "lr": 5e-3, "log_steps": 1, "load_best_model_at_end": False},
}
TWO = {"none": {}, "vanilla-kd": {}}
GRIDS: dict[str, dict[str, Any]] = {
    "grid": {"methods": TWO, "seeds": [0, 1, 2], "primary": [{"method": "vanilla-kd", "control": "none"}]},
    "searched": {
        "methods": TWO,
        "replicates": [1, 2],
        "search": {"trials": 2, "ranges": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}},
    },
    "all-methods": {"methods": METHODS, "seeds": [0]},
}

CLEAN, EXPORT = ("daft", "ftfy", "py3langid", "trafilatura", "fastwarc"), ("onnx", "onnxscript", "onnxruntime")
NEEDS = {
    **dict.fromkeys(("cleaned", "cleaned-paper", "explain"), CLEAN),
    **dict.fromkeys(("onnx", "report/runs.html"), EXPORT),
    "searched": ("optuna",),
}

# one thread and one width, because both change what comes out; nothing is to be looked for in a network
FIXED = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def make(home: Path) -> None:
    """Run every command in home/work and write home/digests.json. Raises `SystemExit` if a command failed."""
    from reference_material import write_material  # here, because torch takes seconds to load

    work = home / "work"
    if work.exists():
        raise SystemExit(f"{work} is there already; give another directory, or remove it.")
    write_material(work / "inputs", {name: GRID | grid for name, grid in GRIDS.items()})
    shutil.copy(RECIPES / "methods" / "rail-reverse.yaml", work / "inputs")
    print(f"of {getattr(importlib.util.find_spec('demiglace'), 'origin', 'no demiglace')}", flush=True)
    begun = time.perf_counter()
    failed = [name for name, line in RUNS.items() if not _run(work, name, f"{line} -o {name}")]
    failed += [name for name, line in PRINTED.items() if not _run(work, name, line, keep=True)]
    if failed:  # the rest was run nevertheless: after options were renamed, all lines to adapt are seen at once
        raise SystemExit(f"these commands failed: {', '.join(failed)}")
    digests = digest_tree(work)
    write_digests(home, digests)
    print(f"{len(digests)} files, made in {time.perf_counter() - begun:.0f} s")


def _run(work: Path, name: str, line: str, keep: bool = False) -> bool:
    """Run one command and say whether it ended well or was skipped; `keep` what it prints in printed/NAME.txt."""
    missing = [module for module in NEEDS.get(name, ()) if importlib.util.find_spec(module) is None]
    if missing:
        print(f"SKIPPED {name}: {', '.join(missing)} not installed", flush=True)
        return True
    (work / name).parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-P", "-m", "demiglace", *shlex.split(line)]
    begun = time.perf_counter()
    done = subprocess.run(words, cwd=work, env=_environment(), capture_output=True, text=True, check=False)
    print(f"{time.perf_counter() - begun:6.1f} s  {name}", flush=True)
    if done.returncode:
        print(f"FAILED  demiglace {line}\n{done.stdout[-1000:]}{done.stderr[-3000:]}", flush=True)
    elif keep:
        file = work / "printed" / f"{name}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(done.stdout or done.stderr, encoding="utf-8")  # `generate` prints to standard error
    return not done.returncode


def _environment() -> dict[str, str]:
    """Return the present one with `FIXED`, and with PYTHONPATH so that it names the same folders from home/work."""
    folders = [str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return os.environ | FIXED | {"PYTHONPATH": os.pathsep.join(folders)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="run all commands in DIR/work and write DIR/digests.json")
    making.add_argument("dir", type=Path)
    comparing = commands.add_parser("compare", help="say what differs between two directories that were made")
    comparing.add_argument("dirs", type=Path, nargs=2)
    comparing.add_argument("--only", default=",".join(KINDS), help="kinds of files, with commas: " + ", ".join(KINDS))
    comparing.add_argument("--renamed", nargs="+", default=[], metavar="OLD=NEW", help="names to replace in DIR")
    args = parser.parse_args()
    if args.command == "make":
        make(args.dir)
        return
    kinds = args.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        raise SystemExit(f"--only: {', '.join(unknown)} is no kind; there are {', '.join(KINDS)}")
    before, after = map(read_digests, args.dirs)
    names = dict(pair.split("=", 1) for pair in args.renamed)
    lines = differences(renamed(before, names), after, kinds)
    print("\n".join(lines) if lines else "no difference")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
