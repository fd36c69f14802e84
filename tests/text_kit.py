"""Tiny text, tokenizers and language models for tests; all made here."""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from demiglace.models.loading import save_model
from factories import tiny_config

END = "<end>"
WORDS = ("cat", "dog", "sat", "ran", "on", "the", "mat", "sofa", "and", "then")


def byte_tokenizer(path: Path | None = None, *, mask: bool = False, end: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte, and special ones; saved where `path` is given."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [*([END] if end else []), *(["<mask>"] if mask else [])]
    core = Tokenizer(BPE({t: i for i, t in enumerate([*special, *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    named = {"eos_token": END, "pad_token": END} if end else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named, **({"mask_token": "<mask>"} if mask else {}))
    if path is not None:
        tokenizer.save_pretrained(path)
    return tokenizer


def begin_texts(tokenizer: PreTrainedTokenizerFast, *, end: bool = False) -> PreTrainedTokenizerFast:
    """Let a tokenizer put <s> before each text, as Llama's and Gemma's do, and `end` after it."""
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    ids = [("<s>", tokenizer.bos_token_id), (END, tokenizer.eos_token_id)]
    after = f" {END}" if end else ""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"<s> $A{after}", special_tokens=ids)
    return tokenizer


def sentences(count: int, seed: int = 0) -> list[str]:
    """Documents of a few words that follow each other by simple rules, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    return [
        " ".join(f"the {generator.choice(['cat', 'dog'])} sat on the mat" for _ in range(int(generator.integers(1, 5))))
        for _ in range(count)
    ]


def write_jsonl(file: Path, texts: list[str]) -> Path:
    """A document a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "utf-8")
    return file


def tiny_lm(arch: str, vocabulary: int, num_layers: int = 2, seed: int = 0) -> PreTrainedModel:
    """A tiny random language model in eval mode: masked for bert, else causal."""
    config = tiny_config(arch, num_layers)
    config.vocab_size, config.pad_token_id, config.bos_token_id, config.eos_token_id = vocabulary, 0, 0, 0
    kind = AutoModelForMaskedLM if arch in ("bert", "roberta", "distilbert") else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config).eval()


def save_lm(path: Path, arch: str = "gpt2", num_layers: int = 4, seed: int = 0) -> Path:
    """A tiny language model and its tokenizer, as a model directory."""
    tokenizer = byte_tokenizer(path, mask=arch == "bert")
    save_model(tiny_lm(arch, len(tokenizer), num_layers, seed), path)
    return path
