"""Which layers of a decoder to keep: alternate, block influence once and again after each removal, greedy removal.

    DEMIGLACE_DATA=/path/to/data python benchmarks/layer_choice.py MODEL [--rows 32] [--row-tokens 32] [--only NAME …]

MODEL: directory of a causal language model. Each choice sees the same C4 text: the beginnings of `--rows` documents.
The models with 2/3 and with 1/2 of the layers, untrained, are measured on other documents. `greedy-all` tries every
layer on all rows, to check the choice of `greedy`. A pass is as many operations (tokens × layers) as one pass of the
full model over the calibration text; embeddings and logits are not counted. The results file is written after each
choice, and a repeated call continues with the choices that are missing.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import kit
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.data.document_config import ReadConfig
from demiglace.data.documents import Document, read_documents
from demiglace.models.bypass import bypassed, layer_forms
from demiglace.models.greedy import STANDARD_ERRORS, greedy, measure_of
from demiglace.models.importance import Inputs, block_influence
from demiglace.models.language import load_language_model
from demiglace.models.stack import layer_stack
from demiglace.models.tokenizer import load_text_tokenizer
from demiglace.models.truncate import alternate

HELD_OUT_ROWS, HELD_OUT_LENGTH = 10, 256
BATCH_ROWS = (8, 8, 16, 32, 64, 128)  # as the commands make them
Order = list[int]  # layers in the order in which they are dropped


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


def by_influence(of: Material, count: int) -> Order:
    """Return the layers of least block influence, measured once."""
    influence = block_influence(of.model, of.batches)
    return sorted(range(len(influence)), key=lambda i: (influence[i], -i))[:count]


def by_repeated_influence(of: Material, count: int) -> Order:
    """Return the layers of least block influence, measured again after each removal."""
    with torch.no_grad():
        forms, gone = layer_forms(of.model, of.layers, of.batches[0]), Order()
    for _ in range(count):
        with bypassed(of.layers, gone, forms):
            influence = block_influence(of.model, of.batches)
        left = [i for i in range(len(influence)) if i not in gone]
        gone.append(min(left, key=lambda i: (influence[i], -i)))
    return gone


def by_greedy(of: Material, count: int, standard_errors: float = STANDARD_ERRORS) -> Order:
    """Return the layers that greedy removal drops."""

    def finished() -> None:
        print(".", end="", flush=True)

    _, gone = greedy(of.model, of.batches, count, measure_of(of.model), finished, standard_errors)
    return [removal.layer for removal in gone]


CHOICES: dict[str, Callable[[Material, int], Order]] = {
    "block-influence": by_influence,
    "repeated block-influence": by_repeated_influence,
    "greedy": by_greedy,
    "greedy-all": lambda of, count: by_greedy(of, count, standard_errors=1e9),
}


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
    with torch.no_grad(), bypassed(of.layers, gone, layer_forms(of.model, of.layers, of.held_out)):
        losses = measure_of(of.model).read(of.model, of.held_out)
    return float(losses.double().mean().exp())


def measured(of: Material, sizes: Sequence[int], choose: Callable[[Material, int], Order] | None) -> dict[str, Any]:
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
    ends, batches = 0, []
    for size in BATCH_ROWS:
        batches.append(chosen[ends : ends + size])
        ends += size
    made = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in (*batches, held_out) if len(ids)]
    return Material(load_language_model(str(args.model)).eval(), made[:-1], made[-1])


def main() -> None:
    """Measure the choices that are not in the results file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    default = Path(os.environ.get("DEMIGLACE_DATA", "data")) / "c4_sample" / "train.jsonl.zst"
    parser.add_argument("--text", type=Path, default=default)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--row-tokens", type=int, default=32)
    parser.add_argument("--only", nargs="*", default=["alternate", *CHOICES])
    args = parser.parse_args()
    of = material(args)
    total = len(of.layers)
    config = {
        "model": args.model.name,
        "text": "/".join(args.text.parts[-2:]),
        "rows": args.rows,
        "row_tokens": args.row_tokens,
        "held_out_tokens": HELD_OUT_ROWS * HELD_OUT_LENGTH,
        "standard_errors": STANDARD_ERRORS,
    }
    file = kit.RESULTS / "layer_choice.json"
    earlier = json.loads(file.read_text()) if file.exists() else {}
    results = earlier["results"] if earlier.get("config") == config else {}
    if not results:
        results["all layers"] = {"perplexity": round(perplexity(of, range(total)), 1)}
    for name in args.only:
        if name not in results:
            results[name] = measured(of, (total * 2 // 3, total // 2), CHOICES.get(name))
            kit.write("layer_choice", config, results)


if __name__ == "__main__":
    main()
