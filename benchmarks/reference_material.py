"""Write what the commands of reference_runs.py read: tiny random models, rows, texts. Nothing of demiglace is used."""

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

GOOD, BAD = ("good", "great", "yes"), ("bad", "awful", "no")
NEUTRAL = ("the", "film", "card", "money", "red", "blue", "green")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), *GOOD, *BAD, *NEUTRAL)
LABELS = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
KINDS = "old quiet green broken distant famous heavy narrow gentle cold empty painted bright wooden early"
NOUNS = "river garden letter window morning bridge market winter captain story kitchen harbour teacher valley"
VERBS = "found carried remembered followed answered bought mended crossed opened lost drew sold"
LINKS = ("and", "of", "with", "that had", "by", "to have", "near", "under", "behind", "without", "before")


def write_material(home: Path, grids: Mapping[str, Mapping[str, Any]]) -> None:
    """Write all models, rows, texts and grid files into `home`."""
    _write_models(home)
    draw = random.Random(0)
    moods, scores = _rows(draw, 72, _mood), _rows(draw, 48, _score)
    for split, rows in (("train", moods[:40]), ("validation", moods[40:56]), ("test", moods[56:])):
        _write_csv(home / "moods" / f"{split}.csv", rows)
    for split, rows in (("train", scores[:32]), ("validation", scores[32:])):
        _write_csv(home / "scores" / f"{split}.csv", rows)
    _write_csv(home / "unlabelled.csv", [{"text": row["text"]} for row in _rows(draw, 12, _mood)])
    _write_lines(home / "train.jsonl", [{"text": _sentences(draw)} for _ in range(40)])
    _write_lines(home / "validation.jsonl", [{"text": _sentences(draw)} for _ in range(8)])
    pages = _pages(draw)
    for k in range(2):
        _write_lines(home / "pages" / f"part{k}.jsonl", pages[k::2])
    _write_lines(home / "held-back.jsonl", pages[8:9])
    for name, grid in grids.items():
        (home / f"{name}.yaml").write_text(json.dumps(grid, indent=1))  # JSON is YAML


def _write_models(home: Path) -> None:
    """Write encoders and decoders of four layers, one of half the width, and language models of both kinds."""
    words, ending, marks = _word_tokenizer(True), _word_tokenizer(False), _byte_tokenizer()
    _save(home / "bert", AutoModelForSequenceClassification, _bert(words, 32, **LABELS), words)
    _save(home / "narrow", AutoModelForSequenceClassification, _bert(words, 16, num_hidden_layers=2, **LABELS), words)
    _save(home / "masked", AutoModelForMaskedLM, _bert(words, 32), words)
    _save(home / "gpt2-classifier", AutoModelForSequenceClassification, _gpt2(ending, **LABELS), ending)
    _save(home / "gpt2", AutoModelForCausalLM, _gpt2(marks), marks)


def _bert(tokenizer: PreTrainedTokenizerFast, hidden: int, **more: Any) -> BertConfig:
    # large initial weights tell layers apart
    size = {"hidden_size": hidden, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 2 * hidden}
    return BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.1, **size | more)


def _gpt2(tokenizer: PreTrainedTokenizerFast, **more: Any) -> GPT2Config:
    size = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}
    end = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return GPT2Config(vocab_size=len(tokenizer), initializer_range=0.1, **size, **end, **more)


def _save(path: Path, kind: Any, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    kind.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)


def _word_tokenizer(encoder: bool) -> PreTrainedTokenizerFast:
    """Return a tokenizer of some words, and letters for all others; for a decoder with an end-of-text token alone."""
    core = Tokenizer(WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    if not encoder:
        return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[SEP]", model_max_length=64)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, PIECES.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    named = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    kept = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="[SEP]", model_max_length=64, model_input_names=kept, **named
    )


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, and one for the end of a text."""
    pieces = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")


def _rows(draw: random.Random, count: int, kind: Any) -> list[dict[str, Any]]:
    """Return rows of distinct texts whose label is in the words."""
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        words = draw.sample([*GOOD, *BAD, *NEUTRAL], draw.randint(3, 8))
        mood = sum(w in GOOD for w in words) - sum(w in BAD for w in words)
        rows[" ".join(words)] = {"text": " ".join(words)} | kind(mood, draw)
    return list(rows.values())


def _mood(mood: int, draw: random.Random) -> dict[str, Any]:
    return {"place": draw.choice(("here", "there")), "label": "positive" if mood > 0 else "negative"}


def _score(mood: int, draw: random.Random) -> dict[str, Any]:
    return {"score": mood / 2 + 0.25}


def _sentences(draw: random.Random) -> str:
    return " ".join(f"the {draw.choice(('cat', 'dog'))} sat on the mat" for _ in range(draw.randint(1, 5)))


def _pages(draw: random.Random) -> list[dict[str, str]]:
    """Return pages for rules to keep, to drop as copies, as a foreign language or for repeated words, and to change."""
    texts = [_page(draw, i) for i in range(16)]
    texts[3] = "Das ist ein deutscher Text, der nicht bleiben soll. " * 12
    texts[5], texts[6] = texts[1], texts[2].replace("The ", "A ", 1)
    texts[7] = "\n".join(["the word and the word of the word"] * 40)
    return [{"text": text, "url": f"http://site{i % 2}.example/{i}"} for i, text in enumerate(texts)]


def _page(draw: random.Random, number: int) -> str:
    lines = [" ".join(_long_sentence(draw) for _ in range(4)) for _ in range(6)]
    last = f"<p>Write to me{number}@mail.example or not at all, as you like it.</p>"
    return "\n".join(["Home | News | About", *lines, last])


def _long_sentence(draw: random.Random) -> str:
    def thing() -> str:
        return f"{draw.choice(('a', 'the', 'some'))} {draw.choice(KINDS.split())} {draw.choice(NOUNS.split())}"

    middle = "".join(f"{thing()} {draw.choice(LINKS)} " for _ in range(draw.randint(2, 4)))
    return (
        f"The {draw.choice(KINDS.split())} {draw.choice(NOUNS.split())} {draw.choice(VERBS.split())} {middle}{thing()}."
    )


def _write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_lines(file: Path, rows: Sequence[Mapping[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
