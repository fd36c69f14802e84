"""One run on a GPU: is everything right there, and how fast is it? Prepared; it has not been run on a GPU yet.

    python benchmarks/gpu.py runs/gpu                          # at most 8 minutes; writes runs/gpu/gpu.json
    python benchmarks/gpu.py runs/gpu --device cpu --quick     # tiny shapes, to see that it runs

It needs demiglace and its core dependencies only: models have random weights of real shapes, rows and texts are
made up. Three parts, of which each step is timed, and a step that fails is kept with its error:

1. Correctness: bf16 against fp32, the teacher cached and online, pretraining, sharding with one process, attention
   kernels, --compile, and a run that is interrupted and resumed.
2. Speed: rows/s and peak memory of distilling 12 layers of width 768 to 6, in batches of 32 and 128: a plain PyTorch
   loop, and demiglace with the teacher online and cached. Peers are raced by benchmarks/peers.
3. Healing of a language model of SmolLM2's shape, 30 layers to 15: tokens/s.
"""

import argparse
import itertools
import json
import os
import random
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TEXT = "the old quiet river garden letter window found carried mended a broken bridge before winter came to market"
WORDS = tuple(_TEXT.split())
GOOD, BAD = ("good", "great", "fine"), ("bad", "awful", "poor")


class Bench:
    """Material and results of one run of this script."""

    def __init__(self, home: Path, quick: bool, limit: float):
        self.home, self.quick, self.limit, self.begun = home, quick, limit, time.perf_counter()
        self.results: dict[str, Any] = {}

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step; keep its result, its seconds and its peak memory, or its error."""
        import torch

        if time.perf_counter() - self.begun > self.limit:
            self.results[name] = {"skipped": f"{self.limit:.0f} s are over"}
            return None
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        begun, found = time.perf_counter(), {}
        try:
            found = work() or {}
        except Exception as error:  # the other steps are still worth their time
            self.results[name] = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-1500:]}
        else:
            self.results[name] = dict(found)
        self.results[name]["seconds"] = round(time.perf_counter() - begun, 2)
        if torch.cuda.is_available():
            self.results[name]["peak_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
        print(name, json.dumps({k: v for k, v in self.results[name].items() if k != "trace"}), flush=True)
        return found


def write_material(home: Path, quick: bool) -> None:
    """Write rows whose label is in their words, texts, a tokenizer, an encoder and two decoders."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        BertConfig,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )

    draw = random.Random(0)
    home.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 200 if quick else 4000), ("validation", 60 if quick else 500)):
        lines = ["text,label"]
        for i in range(count):
            label = draw.choice(("good", "bad"))
            words = [
                *draw.choices(WORDS, k=draw.randint(8, 12 if quick else 60)),
                draw.choice(GOOD if label == "good" else BAD),
            ]
            draw.shuffle(words)
            lines.append(f"{' '.join(words)} {i},{label}")
        (home / f"{split}.csv").write_text("\n".join(lines) + "\n")
    texts = [" ".join(draw.choices(WORDS, k=200)) for _ in range(100 if quick else 4000)]
    (home / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), marks, strict=True))
    vocabulary = {word: i for i, word in enumerate([*marks, *dict.fromkeys((*WORDS, *GOOD, *BAD))])}
    core = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")]
    )
    encoder = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=128, **names)
    core = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    decoder = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=2048, unk_token="[UNK]", eos_token="[SEP]"
    )
    torch.manual_seed(0)
    width, layers = (64, 4) if quick else (768, 12)
    bert = BertConfig(
        vocab_size=len(vocabulary) if quick else 30_522,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64 * 4 if quick else 12,
        intermediate_size=4 * width,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    smol = LlamaConfig(  # HuggingFaceTB/SmolLM2-135M
        vocab_size=len(vocabulary) if quick else 49_152,
        hidden_size=64 if quick else 576,
        num_hidden_layers=4 if quick else 30,
        num_attention_heads=4 if quick else 9,
        num_key_value_heads=2 if quick else 3,
        intermediate_size=128 if quick else 1536,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=vocabulary["[SEP]"],
        pad_token_id=None,
    )
    for name, kind, config, tokenizer in (
        ("bert", AutoModelForSequenceClassification, bert, encoder),
        ("smol", AutoModelForCausalLM, smol, decoder),
    ):
        kind.from_config(config).save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)


def correctness(bench: Bench) -> None:
    """Compare runs that must agree: exactly on one device and kernel, or within the rounding of bf16."""
    import demiglace

    home = bench.home
    rows = {"data": str(home / "train.csv"), "validation": str(home / "validation.csv"), "batch_size": 32}
    rows |= {"epochs": 3 if bench.quick else 2, "learning_rate": 1e-3 if bench.quick else 5e-5}

    def finetune(name: str, **options: Any) -> Callable[[], dict[str, Any]]:
        return lambda: dict(demiglace.finetune(model=str(home / "bert"), output=home / name, **rows, **options).metrics)

    bench.step("finetune fp32", finetune("teacher", precision="fp32"))
    bench.step("finetune bf16", finetune("bf16", precision="bf16"))
    bench.step("finetune bf16, eager attention", finetune("eager", precision="bf16", attention="eager"))
    bench.step("finetune bf16, sharded, one process", finetune("sharded", precision="bf16", sharding="full"))
    student = rows | {"teacher": str(home / "teacher"), "layers": 2 if bench.quick else 6, "method": "rail-kd-l"}

    def distill(name: str, **options: Any) -> Callable[[], dict[str, Any]]:
        return lambda: dict(demiglace.distill(output=home / name, **student, **options).metrics)

    cached = {"cache_dtype": "float32", "precision": "fp32"}
    bench.step("distill cached", distill("cached", **cached))
    bench.step("distill online", distill("online", precision="fp32", cache="off"))
    bench.step("cached = online", lambda: difference(home / "cached", home / "online"))
    bench.step("distill cached, once more", distill("again", **cached))
    bench.step("repeated = first", lambda: difference(home / "cached", home / "again"))

    class Interrupt(demiglace.Callback):
        def on_step(self, event: Any) -> None:
            if event.step == event.steps // 2:
                raise KeyboardInterrupt

    def interrupted() -> dict[str, Any]:
        try:
            demiglace.distill(output=home / "resumed", callbacks=[Interrupt()], **student, **cached)
        except KeyboardInterrupt:
            return dict(demiglace.distill(output=home / "resumed", **student, **cached).metrics)
        raise RuntimeError("it was not interrupted")

    bench.step("distill interrupted and resumed", interrupted)
    bench.step("resumed = first", lambda: difference(home / "cached", home / "resumed"))
    text = {"corpus": [str(home / "corpus.jsonl")], "block_size": 64 if bench.quick else 512, "epochs": 1}
    bench.step(
        "pretrain bf16",
        lambda: dict(
            demiglace.pretrain(
                model=str(home / "smol"), output=home / "pretrained", precision="bf16", max_steps=4, **text
            ).metrics
        ),
    )
    bench.step("attention kernels", lambda: kernels(home / "bert"))
    bench.step("finetune bf16, compiled", finetune("compiled", precision="bf16", compile=True))


def difference(one: Path, other: Path) -> dict[str, float]:
    """Return the largest difference of the weights of two runs, and of the largest weight."""
    from safetensors.torch import load_file

    sides = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    return {
        "largest difference": max(float((a.float() - sides[1][n].float()).abs().max()) for n, a in sides[0].items()),
        "largest weight": max(float(a.float().abs().max()) for a in sides[0].values()),
    }


def kernels(model: Path) -> dict[str, Any]:
    """Compare the logits of the attention kernels in bf16 and fp32 with those of eager attention in fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    device = "cuda" if torch.cuda.is_available() else "cpu"
    ids, expected, found = torch.arange(5, 21).repeat(8, 4).to(device), None, {}
    for kernel in ("eager", "sdpa", "flash_attention_2"):
        for dtype in (torch.float32, torch.bfloat16):
            try:
                made = AutoModelForSequenceClassification.from_pretrained(
                    model, attn_implementation=kernel, dtype=dtype
                )
                with torch.no_grad():
                    logits = made.to(device).eval()(input_ids=ids).logits.float()
            except (ImportError, ValueError, RuntimeError) as error:
                found[f"{kernel} {dtype}"] = str(error).split("\n")[0][:120]
                continue
            expected = logits if expected is None else expected
            found[f"{kernel} {dtype}"] = float((logits - expected).abs().max())
    return found


def race(bench: Bench) -> None:
    """Measure rows/s of a plain loop, and of demiglace with the teacher online and cached, in bf16."""
    import demiglace

    rows = {"data": str(bench.home / "train.csv"), "validation": str(bench.home / "validation.csv"), "epochs": 2}
    student = {"teacher": str(bench.home / "teacher"), "layers": 2 if bench.quick else 6, "method": "vanilla-kd"}
    for size in (16,) if bench.quick else (32, 128):
        bench.step(f"plain loop, batches of {size}", lambda size=size: plain_loop(bench, size))
        for name, cache in (("online", "off"), ("cached", "auto")):
            bench.step(
                f"demiglace {name}, batches of {size}",
                lambda size=size, name=name, cache=cache: timed(
                    lambda **options: demiglace.distill(
                        output=bench.home / f"race-{name}-{size}",
                        batch_size=size,
                        cache=cache,
                        **rows,
                        **student,
                        **options,
                    ),
                    size,
                ),
            )


def timed(run: Callable[..., Any], unit: int) -> dict[str, float]:
    """Run with a callback that times steps; return units per second between the second step and the last one."""
    import demiglace

    times: list[float] = []

    class Clock(demiglace.Callback):
        def on_step(self, event: Any) -> None:
            _ = event.loss  # waits for the device
            times.append(time.perf_counter())

    run(callbacks=[Clock()], precision="bf16")
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    return {"per_second": round(unit / gaps[len(gaps) // 2], 1), "steps": len(times)}


def plain_loop(bench: Bench, size: int) -> dict[str, float]:
    """Distil by a loop in plain PyTorch: the teacher online, logits only, bf16 autocast, padded random batches."""
    import csv

    import torch
    from torch.nn.functional import cross_entropy, kl_div
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(bench.home / "bert")
    teacher = AutoModelForSequenceClassification.from_pretrained(bench.home / "teacher" / "model").to(device).eval()
    student = AutoModelForSequenceClassification.from_pretrained(
        bench.home / "teacher" / "model", num_hidden_layers=2 if bench.quick else 6
    ).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, fused=True)
    with (bench.home / "train.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    random.Random(0).shuffle(rows)
    times = []
    for start in range(0, len(rows) - size + 1, size):
        part = rows[start : start + size]
        batch = tokenizer([row["text"] for row in part], padding=True, truncation=True, return_tensors="pt").to(device)
        labels = torch.tensor([int(row["label"] == "good") for row in part], device=device)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                targets = teacher(**batch).logits.float()
            logits = student(**batch).logits.float()
        loss = 0.5 * cross_entropy(logits, labels) + 0.5 * kl_div(
            logits.log_softmax(-1), targets.log_softmax(-1), log_target=True, reduction="batchmean"
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(time.perf_counter())
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    return {"per_second": round(size / gaps[len(gaps) // 2], 1), "steps": len(times)}


def healing(bench: Bench) -> None:
    """Measure tokens/s of healing half of the layers of a language model of SmolLM2's shape."""
    import demiglace

    block, size = (64, 8) if bench.quick else (1024, 16)
    layers = 2 if bench.quick else 15
    bench.step(
        f"healing, blocks of {block}, batches of {size}",
        lambda: timed(
            lambda **options: demiglace.distill(
                teacher=str(bench.home / "smol"),
                layers=layers,
                method="vanilla-kd",
                corpus=[str(bench.home / "corpus.jsonl")],
                block_size=block,
                batch_size=size,
                max_steps=6 if bench.quick else 40,
                cache="off",
                output=bench.home / "healed",
                **options,
            ),
            block * size,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, help="a new directory")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny shapes")
    parser.add_argument("--limit", type=float, default=420.0, help="seconds, after which no further step begins")
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported
    import torch

    from demiglace.runs.environment import machine, versions

    bench = Bench(args.dir, args.quick, args.limit)
    write_material(args.dir, args.quick)
    for part in (correctness, race, healing):
        part(bench)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    record = {"date": datetime.now(UTC).date().isoformat(), "device": device, "quick": args.quick}
    record |= {"machine": machine(), "versions": versions(), "seconds": round(time.perf_counter() - bench.begun)}
    (args.dir / "gpu.json").write_text(json.dumps(record | {"results": bench.results}, indent=1) + "\n")
    odd = [name for name, result in bench.results.items() if "error" in result or "skipped" in result]
    print(
        f"wrote {args.dir / 'gpu.json'}; "
        + (f"failed or skipped: {', '.join(odd)}" if odd else "every step ended well")
    )


if __name__ == "__main__":
    main()
