"""Narrower students of a classifier: how units are chosen, and what distillation recovers.

    python benchmarks/width.py TEACHER --data train.csv --test test.csv [--rows 1000] [--epochs 12]

TEACHER: run directory of `finetune`, a BERT-like classifier. First its width is pruned at full depth, without training:
the units are those of the largest importance by activations and gradients, of the largest weights, or the first ones;
hidden channels are also replaced by principal components of the hidden states. Then students of three layers are
distilled from `--rows` labelled rows with each size. The results file is written after each model, and the same call
continues with the missing ones.
"""

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kit
import torch
from torch import Tensor
from transformers import PreTrainedModel

import demiglace
from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.batching import collate, sorted_batches
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.text.calibration_sample import drawn_rows
from demiglace.data.tokenize import TokenizedSplit, tokenize
from demiglace.distillation.student import CALIBRATION_TOKENS
from demiglace.evaluation.predict import predict
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.models.measured_layers import ROW_TOKENS
from demiglace.models.prune_width import choose_units, magnitudes, norms, prune_units, smaller_sizes, width_slots
from demiglace.models.width import HIDDEN, SIZES, narrow_config, sizes_of
from demiglace.models.width_importance import importance_on_rows
from demiglace.runs.directory import read_manifest

SIZES_TO_TRY: dict[str, dict[str, int]] = {
    "full width": {},
    "half of the feed-forward units": {"intermediate_size": 768},
    "hidden size 256": {"hidden_size": 256},
}
FILE = kit.RESULTS / "width.json"
Scores = Mapping[str, Tensor]


def first_units(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return an importance by which the first units are kept: a choice that knows nothing."""
    shapes = magnitudes(model, SIZES)
    return {name: -torch.arange(s.shape[1]).expand(s.shape).double() for name, s in shapes.items()}


@torch.no_grad()
def components(model: PreTrainedModel, rows: TokenizedSplit, size: int, scores: Scores) -> PreTrainedModel:
    """Return the model with `size` principal components of its norms' outputs as hidden channels, heads as chosen.

    The first component is the direction of equal channels, so that subtracting the mean stays the same operation. A
    norm's weights, which are not equal, become the diagonal of their matrix in the new basis: this is approximate.
    Outputs that no norm reads (the pooler's) keep channels instead.
    """
    slots = width_slots(model, (HIDDEN,))
    named = norms(model, slots)
    second = torch.zeros(sizes_of(model.config)[HIDDEN], sizes_of(model.config)[HIDDEN], dtype=torch.float64)

    def observe(_: Any, __: Any, output: Tensor) -> None:
        states = output.flatten(0, 1).double()
        second.add_(states.T @ states)

    handles = [module.register_forward_hook(observe) for _, module in named]
    for part in sorted_batches(rows.lengths, 2048):
        model(**collate(rows, part, "cpu").inputs)
    for handle in handles:
        handle.remove()
    width = len(second)
    ones = torch.ones(width, 1, dtype=torch.float64) / width**0.5
    others = torch.eye(width, dtype=torch.float64) - ones @ ones.T
    principal = torch.linalg.eigh(others @ second @ others).eigenvectors[:, -(size - 1) :]
    # new channels whose equal direction is the old one's
    turn = torch.linalg.qr(torch.cat([torch.ones(size, 1), torch.eye(size)[:, 1:]], 1).double()).Q
    turn *= turn[0, 0].sign()
    basis = torch.cat([ones, principal], 1) @ turn.T
    share = ((basis.T @ second @ basis).trace() / second.trace()).item()

    units = choose_units(model, smaller_sizes(model.config, narrow_config(model.config, hidden_size=size)), scores)
    pruned = prune_units(model, units)
    weights, new = model.state_dict(), pruned.state_dict()
    of_norms = {name for name, _ in named}
    for name, target in new.items():
        owner = name.rpartition(".")[0]
        value = weights[name].double()
        for slot in (s for s in slots if s.weight == name):
            kept = torch.as_tensor(units[slot.size][slot.layer or 0 if slot.size != HIDDEN else 0])
            if slot.size == HIDDEN and owner in of_norms and name.endswith("weight"):
                value = (basis * value[:, None] * basis).sum(0) * (share * width / size) ** 0.5
            elif slot.size == HIDDEN and not (name.startswith("classifier") or ("pooler" in name and slot.dim == 0)):
                value = (value.movedim(slot.dim, -1) @ basis).movedim(-1, slot.dim)
            else:
                entries = (slot.units[:, None] == kept).any(1).nonzero()[:, 0]
                value = value.index_select(slot.dim, entries)
        target.copy_(value)
    return pruned


def quality(model: PreTrainedModel, reference: Tensor, rows: TokenizedSplit) -> dict[str, float]:
    """Return accuracy on rows in percent, and the mean KL(reference ‖ model) in nats."""
    logits = torch.as_tensor(predict(model, rows)).float()
    log_p, log_q = reference.log_softmax(-1), logits.log_softmax(-1)
    right = (logits.argmax(-1).numpy() == rows.labels).mean()
    return {
        "accuracy": round(100 * float(right), 2),
        "kl": round(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--home", type=Path, default=Path("runs/width"))
    parser.add_argument("--part", choices=("untrained", "distilled"))
    options = parser.parse_args()
    results = json.loads(FILE.read_text())["results"] if FILE.exists() else {"untrained": {}, "distilled": {}}
    config = {"teacher": "MiniLM, 6 layers", "rows": options.rows, "epochs": options.epochs}
    rows = {"data": options.data, "test": options.test, "max_rows": options.rows, "data_seed": 1}

    def record(part: str, name: str, compute: Callable[[], dict[str, Any]]) -> None:
        if name not in results[part]:
            results[part][name] = compute()
            kit.write("width", config, results)

    if options.part != "distilled":
        untrained(options.teacher, rows, record)
    for name, sizes in SIZES_TO_TRY.items() if options.part != "untrained" else ():
        record("distilled", name, lambda name=name, sizes=sizes: distilled(options, name, sizes, rows))


def untrained(teacher: str, options: Mapping[str, Any], record: Callable[..., None]) -> None:
    """Record the quality of the pruned teacher, on the first 1,000 test rows, for each size and choice of units."""
    model, tokenizer = load_classifier(teacher, None), load_tokenizer(teacher)
    dataset = load_dataset(DataConfig(**options), DataLocation())
    test = tokenize(dataset.splits["test"], tokenizer, 128)
    test = drawn_rows(test, 15_000, 128)
    train = drawn_rows(tokenize(dataset.splits["train"], tokenizer, 128), CALIBRATION_TOKENS, ROW_TOKENS)
    reference = torch.as_tensor(predict(model, test)).float()
    scores = {
        "activations and gradients": importance_on_rows(model, train, SIZES),
        "weight magnitude": magnitudes(model, SIZES),
        "first units": first_units(model),
    }
    for name, sizes in SIZES_TO_TRY.items():
        smaller = smaller_sizes(model.config, narrow_config(model.config, **sizes))
        for choice, of_units in scores.items():
            if not sizes:
                record("untrained", name, lambda: quality(model, reference, test))
                continue
            units = choose_units(model, smaller, of_units)
            record(
                "untrained",
                f"{name}, {choice}",
                lambda units=units: quality(prune_units(model, units), reference, test),
            )
    by_gradients = scores["activations and gradients"]
    record(
        "untrained",
        "hidden size 256, principal components",
        lambda: quality(components(copy.deepcopy(model), train, 256, by_gradients), reference, test),
    )


def distilled(options: Any, name: str, sizes: Mapping[str, int], rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters and test metrics of a distilled student of three layers."""
    run = options.home / name.replace(" ", "-")
    training = {"epochs": options.epochs, "learning_rate": 3e-4, "seed": 1}
    demiglace.distill(teacher=options.teacher, layers=3, output=run, **sizes, **rows, **training)
    manifest = read_manifest(run)
    return {"parameters": manifest["parameters"], "test": manifest["metrics"]["test"], "seconds": manifest["seconds"]}


if __name__ == "__main__":
    main()
