"""Measure what trimming the vocabulary saves and costs: of a classifier on Banking77, and of a decoder.

    OMP_NUM_THREADS=1 python benchmarks/vocabulary.py rows CLASSIFIER RUNS
    OMP_NUM_THREADS=1 DEMIGLACE_DATA=/path/to/data python benchmarks/vocabulary.py decoder SMOLLM2 RUNS

rows: of a classifier that was fine-tuned on Banking77, only the tokens that the training texts use are kept, and fewer
of them with --vocabulary-size, without further training. A student that is trained with these tokens sees the
same tokens in training, so that it has the same weights (tests/commands/test_trim_vocabulary.py). Sizes are those of
three of the layers.

decoder: the model keeps 24 of its 30 layers and the tokens of WikiText-2's validation text, and is exported to GGUF.
The truncated model, the trimmed one and its GGUF file continue ten prompts.

RUNS is a directory of runs, which a second call reuses.
"""

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch

from demiglace import evaluate, export, truncate
from demiglace.config.data import DataConfig, DataLocation, ReadConfig
from demiglace.data.rows import dataset as rows_of
from demiglace.data.text.readers import read_texts
from demiglace.export.gguf import GgufExporter
from demiglace.models.gguf import read_gguf
from demiglace.models.loading import load_as_saved, load_tokenizer
from demiglace.models.trimmed_tokenizer import coverage
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.runs.directory import read_manifest
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING

TRAIN = Path(rows_of.__file__).parent.parent / "banking77" / "train.csv.gz"
SIZES = (2000, 1500, 1000)


def rows(model: str, runs: Path) -> None:
    """Measure the classifier: tokens, length of the test rows, accuracy, and bytes as int8 ONNX."""
    texts = rows_of.load_dataset(DataConfig(data="banking77"), DataLocation()).splits["test"].texts
    corpus = [str(TRAIN)]
    found: dict[str, Any] = {"full": accuracy(model, runs)}
    for size in (None, *SIZES):
        name = "trim" if size is None else f"trim-{size}"
        options = {"vocabulary": "trim", "vocabulary_corpus": corpus, "vocabulary_size": size}
        small = truncate(model, output=runs / name, **options).path
        covered = coverage(load_tokenizer(model), load_tokenizer(str(small)), TrimmedVocabulary.load(small), texts)
        kept = read_manifest(small)["vocabulary"]["kept"]
        found[name] = {"kept": kept, "test": covered.facts()} | accuracy(str(small), runs)
    for name, options in (("full", {}), ("trim", {"vocabulary": "trim", "vocabulary_corpus": corpus})):
        three = truncate(model, output=runs / f"three-{name}", layers=3, **options).path
        run = export(
            str(three),
            output=runs / f"onnx-{name}",
            quantize="int8",
            data="banking77:test",
            rows=16,
            score_rows=16,
            repeats=3,
        )
        found[name]["bytes of three layers"] = {a["name"]: a["bytes"] for a in read_manifest(run)["artefacts"]}
    kit.write("vocabulary_rows", {"data": "banking77", "corpus": TRAIN.name, "model": trained_on(model)}, found)


def accuracy(model: str, runs: Path) -> dict[str, float]:
    """Return the accuracy on the test rows."""
    found = evaluate(model, data="banking77:test", output=runs / f"evaluation-{Path(model).name}")
    return {"accuracy": found.metrics["banking77:test"]["accuracy"]}


def trained_on(model: str) -> dict[str, Any]:
    """Return layers and training rows of a run directory."""
    manifest = read_manifest(model)
    return {
        "layers": manifest["layers"],
        "rows": manifest["rows"],
        "config": manifest["config"]["model"].split("/")[-1],
    }


def decoder(source: str, runs: Path, data: Path) -> None:
    """Measure the decoder: tokens, length of the test text, bytes, and equal continuations."""
    corpus, test = (str(data / "wikitext2" / f"{split}.jsonl.zst") for split in ("validation", "test"))
    options = {"layers": 24, "calibration": [corpus], "calibration_tokens": 2_000}
    full = truncate(source, output=runs / "full", **options).path
    trimming = {"vocabulary": "trim", "vocabulary_corpus": [corpus]}
    small = truncate(source, output=runs / "trim", **options, **trimming).path
    vocabulary = TrimmedVocabulary.load(small)
    tokenizers = [load_tokenizer(str(path)) for path in (full, small)]
    texts = list(read_texts([test], ReadConfig(), Counter()))
    covered = coverage(*tokenizers, vocabulary, texts)
    models = [load_as_saved(str(path)).float() for path in (full, small)]
    files: dict[str, dict[str, int]] = {}
    for name, model, tokenizer in zip(("full", "trim"), models, tokenizers, strict=True):
        folder = runs / f"gguf-{name}"
        folder.mkdir(exist_ok=True)
        written = (GgufExporter().write(model, tokenizer, LANGUAGE_MODELLING, folder, p) for p in ("fp16", "q8_0"))
        files[name] = {artefact.precision: artefact.size for artefact in written}
    removed = np.setdiff1d(np.arange(vocabulary.full), vocabulary.kept).tolist()
    prompts = [text.strip()[:60] for text in texts[:10]]
    texts_of = [
        continuations(models[0], tokenizers[0], prompts, removed),
        continuations(models[1], tokenizers[1], prompts),
        continuations(read_gguf(runs / "gguf-trim" / "model-F16.gguf"), tokenizers[1], prompts),
    ]
    results = {
        "vocabulary": read_manifest(small)["vocabulary"],
        "test": covered.facts(),
        "bytes": files,
        "prompts": len(prompts),
        "prompts of kept tokens": sum(
            bool((vocabulary.new_ids[tokenizers[0](p).input_ids] >= 0).all()) for p in prompts
        ),
        "same as with all tokens": sum(map(str.__eq__, texts_of[0], texts_of[1])),
        "same from the GGUF file": sum(map(str.__eq__, texts_of[1], texts_of[2])),
        "example": texts_of[1][0],
    }
    config = {
        "model": Path(source).name,
        "corpus": "wikitext2 validation",
        "layers": 24,
        "keep": read_manifest(small)["keep"],
    }
    kit.write("vocabulary_decoder", config, results)


def continuations(model: Any, tokenizer: Any, prompts: list[str], never: list[int] | None = None) -> list[str]:
    """Return the prompts with twenty tokens that a model generates greedily after each; never: tokens to exclude."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        made = model.generate(ids, max_new_tokens=20, do_sample=False, suppress_tokens=never, pad_token_id=0)
        texts.append(tokenizer.decode(made[0]))
    return texts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rows", "decoder"))
    parser.add_argument("model")
    parser.add_argument("runs", type=Path)
    given = parser.parse_args()
    if given.part == "rows":
        rows(given.model, given.runs)
    else:
        decoder(given.model, given.runs, Path(os.environ["DEMIGLACE_DATA"]))
