"""Compare ways to choose the layers of a decoder: alternate, block influence (once, or repeated), greedy removal.

    DEMIGLACE_DATA=/path/to/data python benchmarks/layer_choice.py MODEL [--rows 32] [--row-tokens 32]

MODEL: directory of a causal language model. Each way reads the same C4 text: the beginnings of `--rows` documents. The
models with 2/3 and with 1/2 of the layers, untrained, are evaluated on other documents. A pass is the cost (tokens ×
layers) of one pass of the full model over the calibration text; embeddings and logits are not counted.

`greedy` tries every layer on all rows here. `demiglace truncate --strategy greedy` excludes layers early. Its choice
and cost are computed from the losses of the rows: on these rows, and on as many longer rows as the command reads, each
made of rows sampled with replacement. The results file is written after each way; the same call continues with the
missing ones.
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
from demiglace.models.layer_stack import layer_stack
from demiglace.models.measured_layers import ROW_TOKENS, sampled_batches
from demiglace.models.tokenizer import load_text_tokenizer
from demiglace.models.truncate import alternate

HELD_OUT_ROWS, HELD_OUT_LENGTH = 10, 256
Order = list[int]  # layers in the order in which they are dropped
Losses = Mapping[int, np.ndarray]  # removed layer -> loss of each row


@dataclass(frozen=True)
class ModelData:
    """A model, the batches on which its layers are chosen, and held-out rows."""

    model: PreTrainedModel
    batches: Sequence[Inputs]
    held_out: Inputs

    @property
    def layers(self) -> nn.ModuleList:
        """Return the model's layers."""
        return layer_stack(self.model)

    @property
    def tokens(self) -> int:
        """Return the tokens of all batches."""
        return sum(batch["input_ids"].numel() for batch in self.batches)


Choice = Callable[[ModelData, int], Order]


def by_influence(data: ModelData, count: int) -> Order:
    """Return the layers with the least block influence, measured once."""
    influence = block_influence(data.model, data.batches)
    return sorted(range(len(influence)), key=lambda i: (influence[i], -i))[:count]


def by_repeated_influence(data: ModelData, count: int) -> Order:
    """Return the layers with the least block influence, measured again after each removal."""
    with torch.no_grad():
        forms, dropped = output_formats(data.model, data.layers, data.batches[0]), Order()
    for _ in range(count):
        with skip_layers(data.layers, dropped, forms):
            influence = block_influence(data.model, data.batches)
        remaining = [i for i in range(len(influence)) if i not in dropped]
        dropped.append(min(remaining, key=lambda i: (influence[i], -i)))
    return dropped


def by_greedy(data: ModelData, count: int, steps: list[Losses]) -> Order:
    """Return the layers that greedy removal drops; append the losses of each removal to `steps`."""

    def keep_all(losses: Losses, rows: int, error: float) -> list[int]:
        if len(next(iter(losses.values()))) == rows:
            steps.append(losses)
            print(len(steps), end=" ", flush=True)
        return contenders(losses, rows, error)

    with patch.object(search, "contenders", keep_all):
        _, dropped = search.greedy(data.model, data.batches, count, ablation_loss(data.model), error=0.0)
    return [removal.layer for removal in dropped]


def ruling_out(steps: Sequence[Losses]) -> dict[str, Any]:
    """Return cost and choices of the search that excludes layers early, from the losses of all tries."""
    operations, same, layers = 0.0, 0, len(steps[0])
    for losses in steps:
        remaining, rows = sorted(losses), len(losses[min(losses)])
        candidates, seen = remaining, 0
        for part in sampled_batches(np.full(rows, ROW_TOKENS), forward_tokens(kit.CPU)):
            seen += len(part)
            after = [len(remaining) - 1 - remaining.index(i) for i in candidates]
            operations += len(part) / rows * (remaining.index(max(candidates)) + sum(after))
            candidates = contenders({i: losses[i][:seen] for i in candidates}, rows)
        same += min(candidates, key=lambda i: losses[i].sum()) == min(remaining, key=lambda i: losses[i].sum())
    each = sum(len(losses) * (len(losses) - 1) for losses in steps)
    return {
        "passes": round(operations / layers, 1),
        "passes where a try runs all layers": round(each / layers, 1),
        "same choice": f"{same} of {len(steps)}",
    }


def longer_rows(steps: Sequence[Losses], rows: int, times: int) -> list[Losses]:
    """Return the losses on `rows` rows, each the sum of `times` rows sampled with replacement (seed 0)."""
    samples = np.random.default_rng(0).integers(0, len(steps[0][min(steps[0])]), (rows, times))
    return [{i: of_rows[samples].sum(1) for i, of_rows in losses.items()} for losses in steps]


def greedy_results(steps: Sequence[Losses], row_tokens: int) -> dict[str, Any]:
    """Return what early exclusion saves, on these rows and on as many longer rows as the command reads."""
    rows = CALIBRATION_TOKENS // ROW_TOKENS
    longer = longer_rows(steps, rows, ROW_TOKENS // row_tokens)
    return {"ruling out": {"these rows": ruling_out(steps), f"{rows} rows of {ROW_TOKENS}": ruling_out(longer)}}


@contextmanager
def counted(layers: nn.ModuleList) -> Iterator[list[int]]:
    """Yield a list of the tokens of every layer call; skipped layers do not run."""
    kind, result = type(layers[0]), list[int]()
    forward = kind.forward

    def counting(layer: nn.Module, hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        result.append(hidden_states.shape[0] * hidden_states.shape[1])
        return forward(layer, hidden_states, *args, **options)

    kind.forward = counting  # type: ignore[method-assign]
    try:
        yield result
    finally:
        kind.forward = forward  # type: ignore[method-assign]


def perplexity(data: ModelData, keep: Sequence[int]) -> float:
    """Return the perplexity of the model with only these layers on the held-out rows."""
    dropped = set(range(len(data.layers))) - set(keep)
    with torch.no_grad(), skip_layers(data.layers, dropped, output_formats(data.model, data.layers, data.held_out)):
        losses = ablation_loss(data.model).outputs(data.model, data.held_out)
    return float(losses.double().mean().exp())


def measured(data: ModelData, sizes: Sequence[int], choose: Choice | None) -> dict[str, Any]:
    """Return the kept layers, the cost and the perplexity of a choice for each number of layers; None: alternate."""
    total, result = len(data.layers), dict[str, Any]()
    if choose is None:
        keeps = {size: list(alternate(total, size)) for size in sizes}
    else:
        start = time.process_time(), time.perf_counter()
        with counted(data.layers) as operations:
            dropped = choose(data, total - min(sizes))
        cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
        passes = sum(operations) / (data.tokens * total)
        result = {"dropped": dropped, "passes": round(passes, 1), "cpu_s": round(cpu, 1), "wall_s": round(wall, 1)}
        keeps = {size: [i for i in range(total) if i not in dropped[: total - size]] for size in sizes}
    each = {str(n): {"keep": keep, "perplexity": round(perplexity(data, keep), 1)} for n, keep in keeps.items()}
    return result | {"layers": each}


def rows(tokenizer: PreTrainedTokenizerBase, texts: Iterator[str], count: int, length: int) -> Tensor:
    """Return the first `length` tokens of the next `count` documents that are long enough, [count, length]."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return torch.tensor(list(islice((row[:length] for row in ids if len(row) >= length), count)))


def load(args: argparse.Namespace) -> ModelData:
    """Load the model and tokenize its text; calibration and held-out rows have no document in common."""
    tokenizer = load_text_tokenizer(str(args.model))
    documents = read_documents(str(args.text), ReadConfig())
    texts = iter([document.text for document in documents if isinstance(document, Document)])
    chosen = rows(tokenizer, texts, args.rows, args.row_tokens)
    held_out = rows(tokenizer, texts, HELD_OUT_ROWS, HELD_OUT_LENGTH)
    parts = sampled_batches(np.full(args.rows, args.row_tokens), forward_tokens(kit.CPU))
    model = load_language_model(str(args.model)).eval()
    return ModelData(model, [inputs(chosen[part]) for part in parts], inputs(held_out))


def inputs(ids: Tensor) -> Inputs:
    """Return a batch of rows without padding."""
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main() -> None:
    """Measure the choices that are missing in the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    default = Path(os.environ.get("DEMIGLACE_DATA", "data")) / "c4_sample" / "train.jsonl.zst"
    parser.add_argument("--text", type=Path, default=default)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--row-tokens", type=int, default=32)
    args = parser.parse_args()
    data = load(args)
    total = len(data.layers)
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
        results["all layers"] = {"perplexity": round(perplexity(data, range(total)), 1)}
    steps: list[Losses] = []
    choices: dict[str, Choice | None] = {
        "alternate": None,
        "block-influence": by_influence,
        "repeated block-influence": by_repeated_influence,
        "greedy": lambda data, count: by_greedy(data, count, steps),
    }
    for name in [name for name in choices if name not in results]:
        results[name] = measured(data, (total * 2 // 3, total // 2), choices[name])
        if name == "greedy":
            results[name] |= greedy_results(steps, args.row_tokens)
        kit.write("layer_choice", config, results)


if __name__ == "__main__":
    main()
