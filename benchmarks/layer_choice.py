"""Which layers of a decoder to keep: alternate, block influence once and again after each removal, greedy removal.

    DEMIGLACE_DATA=/path/to/data python benchmarks/layer_choice.py MODEL [--rows 32] [--row-tokens 32]

MODEL: directory of a causal language model. Each choice sees the same C4 text: the beginnings of `--rows` documents.
The models with 2/3 and with 1/2 of the layers, untrained, are measured on other documents. A pass is as many operations
(tokens × layers) as one pass of the full model over the calibration text; embeddings and logits are not counted.

`greedy` tries every layer on all rows here. From the rows' losses follows what `demiglace truncate --strategy greedy`
chooses and computes, which rules layers out earlier: on these rows, and on as many longer ones as the command reads,
each made of rows drawn with replacement. The results file is written after each choice, and a repeated call continues
with the choices that are missing.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import kit
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import ReadConfig
from demiglace.data.batching import forward_tokens
from demiglace.data.text.readers import Document, read_documents
from demiglace.distillation.student import CALIBRATION_TOKENS
from demiglace.models import greedy as search
from demiglace.models.greedy import ERROR, ablation_loss, contenders
from demiglace.models.importance import Inputs, block_influence
from demiglace.models.language_model import load_language_model
from demiglace.models.layer_ablation import output_formats, skip_layers
from demiglace.models.layer_choice import ROW_TOKENS, sampled_batches
from demiglace.models.layer_stack import layer_stack
from demiglace.models.tokenizer import load_text_tokenizer
from demiglace.models.truncate import alternate

HELD_OUT_ROWS, HELD_OUT_LENGTH = 10, 256
Order = list[int]  # layers in the order in which they are dropped
Losses = Mapping[int, np.ndarray]  # of each row, by the layer that is tried


@dataclass(frozen=True)
class Material:
    """A model, the batches that its layers are chosen on, and held-out rows."""

    model: PreTrainedModel
    batches: Sequence[Inputs]
    held_out: Inputs

    @property
    def layers(self) -> nn.ModuleList:
        """The model's layers."""
        return layer_stack(self.model)

    @property
    def tokens(self) -> int:
        """Tokens of all batches."""
        return sum(batch["input_ids"].numel() for batch in self.batches)


Choice = Callable[[Material, int], Order]


def by_influence(of: Material, count: int) -> Order:
    """Return the layers of least block influence, measured once."""
    influence = block_influence(of.model, of.batches)
    return sorted(range(len(influence)), key=lambda i: (influence[i], -i))[:count]


def by_repeated_influence(of: Material, count: int) -> Order:
    """Return the layers of least block influence, measured again after each removal."""
    with torch.no_grad():
        forms, gone = output_formats(of.model, of.layers, of.batches[0]), Order()
    for _ in range(count):
        with skip_layers(of.layers, gone, forms):
            influence = block_influence(of.model, of.batches)
        left = [i for i in range(len(influence)) if i not in gone]
        gone.append(min(left, key=lambda i: (influence[i], -i)))
    return gone


def by_greedy(of: Material, count: int, steps: list[Losses]) -> Order:
    """Return the layers that greedy removal drops; put the losses of each removal's tries into `steps`."""

    def keep_all(losses: Losses, rows: int, error: float) -> list[int]:
        if len(next(iter(losses.values()))) == rows:
            steps.append(losses)
            print(len(steps), end=" ", flush=True)
        return contenders(losses, rows, error)

    with patch.object(search, "contenders", keep_all):
        _, gone = search.greedy(of.model, of.batches, count, ablation_loss(of.model), error=0.0)
    return [removal.layer for removal in gone]


def ruling_out(steps: Sequence[Losses]) -> dict[str, Any]:
    """Return what the search that rules layers out early computes and chooses, given the losses of all tries."""
    operations, same, layers = 0.0, 0, len(steps[0])
    for losses in steps:
        left, rows = sorted(losses), len(losses[min(losses)])
        alive, seen = left, 0
        for part in sampled_batches(np.full(rows, ROW_TOKENS), forward_tokens(kit.CPU)):
            seen += len(part)
            after = [len(left) - 1 - left.index(i) for i in alive]
            operations += len(part) / rows * (left.index(max(alive)) + sum(after))
            alive = contenders({i: losses[i][:seen] for i in alive}, rows)
        same += min(alive, key=lambda i: losses[i].sum()) == min(left, key=lambda i: losses[i].sum())
    each = sum(len(losses) * (len(losses) - 1) for losses in steps)
    return {
        "passes": round(operations / layers, 1),
        "passes where a try runs all layers": round(each / layers, 1),
        "same choice": f"{same} of {len(steps)}",
    }


def longer_rows(steps: Sequence[Losses], rows: int, times: int) -> list[Losses]:
    """Return the losses on `rows` rows that are each the sum of `times` rows, drawn with replacement and the seed 0."""
    drawn = np.random.default_rng(0).integers(0, len(steps[0][min(steps[0])]), (rows, times))
    return [{i: of_rows[drawn].sum(1) for i, of_rows in losses.items()} for losses in steps]


def greedy_results(steps: Sequence[Losses], row_tokens: int) -> dict[str, Any]:
    """Return what ruling layers out early saves, on these rows and on as many longer ones as the commands read."""
    rows = CALIBRATION_TOKENS // ROW_TOKENS
    longer = longer_rows(steps, rows, ROW_TOKENS // row_tokens)
    return {"ruling out": {"these rows": ruling_out(steps), f"{rows} rows of {ROW_TOKENS}": ruling_out(longer)}}


@contextmanager
def counted(layers: nn.ModuleList) -> Iterator[list[int]]:
    """Put the tokens of every layer that runs into the list; bypassed layers do not run."""
    kind, found = type(layers[0]), list[int]()
    forward = kind.forward

    def counting(layer: nn.Module, hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        found.append(hidden_states.shape[0] * hidden_states.shape[1])
        return forward(layer, hidden_states, *args, **options)

    kind.forward = counting  # type: ignore[method-assign]
    try:
        yield found
    finally:
        kind.forward = forward  # type: ignore[method-assign]


def perplexity(of: Material, keep: Sequence[int]) -> float:
    """Return the perplexity of the model with only these layers on the held-out rows."""
    gone = set(range(len(of.layers))) - set(keep)
    with torch.no_grad(), skip_layers(of.layers, gone, output_formats(of.model, of.layers, of.held_out)):
        losses = ablation_loss(of.model).outputs(of.model, of.held_out)
    return float(losses.double().mean().exp())


def measured(of: Material, sizes: Sequence[int], choose: Choice | None) -> dict[str, Any]:
    """Return what a choice keeps and costs, and its perplexity, for each number of layers; none: alternate."""
    total, found = len(of.layers), dict[str, Any]()
    if choose is None:
        keeps = {size: list(alternate(total, size)) for size in sizes}
    else:
        begun = time.process_time(), time.perf_counter()
        with counted(of.layers) as operations:
            dropped = choose(of, total - min(sizes))
        cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
        passes = sum(operations) / (of.tokens * total)
        found = {"dropped": dropped, "passes": round(passes, 1), "cpu_s": round(cpu, 1), "wall_s": round(wall, 1)}
        keeps = {size: [i for i in range(total) if i not in dropped[: total - size]] for size in sizes}
    each = {str(n): {"keep": keep, "perplexity": round(perplexity(of, keep), 1)} for n, keep in keeps.items()}
    return found | {"layers": each}


def rows(tokenizer: PreTrainedTokenizerBase, texts: Iterator[str], count: int, length: int) -> Tensor:
    """Return the first tokens of the next documents that have so many, [count, length]."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return torch.tensor(list(islice((row[:length] for row in ids if len(row) >= length), count)))


def material(args: argparse.Namespace) -> Material:
    """Load the model and tokenise its text; no document is in both parts of it."""
    tokenizer = load_text_tokenizer(str(args.model))
    documents = read_documents(str(args.text), ReadConfig())
    texts = iter([document.text for document in documents if isinstance(document, Document)])
    chosen = rows(tokenizer, texts, args.rows, args.row_tokens)
    held_out = rows(tokenizer, texts, HELD_OUT_ROWS, HELD_OUT_LENGTH)
    parts = sampled_batches(np.full(args.rows, args.row_tokens), forward_tokens(kit.CPU))
    model = load_language_model(str(args.model)).eval()
    return Material(model, [inputs(chosen[part]) for part in parts], inputs(held_out))


def inputs(ids: Tensor) -> Inputs:
    """Return a batch of rows without padding."""
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main() -> None:
    """Measure the choices that are not in the results file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    default = Path(os.environ.get("DEMIGLACE_DATA", "data")) / "c4_sample" / "train.jsonl.zst"
    parser.add_argument("--text", type=Path, default=default)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--row-tokens", type=int, default=32)
    args = parser.parse_args()
    of = material(args)
    total = len(of.layers)
    config = {
        "model": args.model.name,
        "text": "/".join(args.text.parts[-2:]),
        "rows": args.rows,
        "row_tokens": args.row_tokens,
        "held_out_tokens": HELD_OUT_ROWS * HELD_OUT_LENGTH,
        "error": ERROR,
    }
    file = kit.RESULTS / "layer_choice.json"
    earlier = json.loads(file.read_text()) if file.exists() else {}
    results = earlier["results"] if earlier.get("config") == config else {}
    if not results:
        results["all layers"] = {"perplexity": round(perplexity(of, range(total)), 1)}
    steps: list[Losses] = []
    choices: dict[str, Choice | None] = {
        "alternate": None,
        "block-influence": by_influence,
        "repeated block-influence": by_repeated_influence,
        "greedy": lambda of, count: by_greedy(of, count, steps),
    }
    for name in [name for name in choices if name not in results]:
        results[name] = measured(of, (total * 2 // 3, total // 2), choices[name])
        if name == "greedy":
            results[name] |= greedy_results(steps, args.row_tokens)
        kit.write("layer_choice", config, results)


if __name__ == "__main__":
    main()
