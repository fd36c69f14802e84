"""Tiny random models of every tested architecture, and a tokenizer that fits them; all built offline."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from demiglace.models.loading import save_model

ARCHITECTURES = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "gpt2", "llama")
DECODERS = ("gpt2", "llama")
_WITH_SEGMENTS = ("bert", "electra", "deberta-v2")
MAX_LENGTH = 256  # longest row that a tiny model takes
_SAVED = tempfile.TemporaryDirectory(prefix="tiny-models-")
_MODULES = "sentence_transformers.models"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORDS = [
    "the",
    "a",
    "and",
    "is",
    "it",
    "not",
    "this",
    "good",
    "bad",
    "great",
    "awful",
    "film",
    "card",
    "money",
    "lost",
    "red",
    "blue",
    "green",
    "yes",
    "no",
]
VOCABULARY = (
    *_SPECIAL,
    *".,!?'",
    *_LETTERS,
    *(f"##{c}" for c in _LETTERS),
    *(w for w in _WORDS if len(w) > 1),
)


def tiny_tokenizer(
    path: Path | None = None, *, pad_token: str | None = "[PAD]", segments: bool = False
) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of about 100 tokens: some words, and letters for all others.

    It is saved where `path` is given; `segments` lets it return token_type_ids.
    """
    core = Tokenizer(WordPiece({t: i for i, t in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", VOCABULARY.index("[CLS]")), ("[SEP]", VOCABULARY.index("[SEP]"))],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad_token,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        eos_token="[SEP]",
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"],
    )
    if path is not None:
        tokenizer.save_pretrained(path)
    return tokenizer


def decoder_tokenizer(path: Path | None = None, *, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """The tiny vocabulary as decoders have it: an end-of-text token, and none to pad, mask, begin or separate with."""
    core = Tokenizer(WordPiece({t: i for i, t in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        eos_token="[SEP]",
        model_max_length=MAX_LENGTH,
        padding_side=padding_side,
    )
    if path is not None:
        tokenizer.save_pretrained(path)
    return tokenizer


def tiny_config(arch: str, num_layers: int = 4, hidden: int = 32) -> PreTrainedConfig:
    """A tiny config: 4 heads, the tiny tokenizer's vocabulary, weights large enough to tell layers apart."""
    vocab = len(VOCABULARY)
    base = {"vocab_size": vocab, "pad_token_id": 0, "initializer_range": 0.1}
    encoder = base | {
        "hidden_size": hidden,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": MAX_LENGTH,
    }
    bert_ids = {"bos_token_id": 2, "eos_token_id": 3}
    match arch:
        case "bert":
            return BertConfig(**encoder)
        case "roberta":
            # positions start after the pad id, so one more row is needed
            longer = {"max_position_embeddings": MAX_LENGTH + 1, "type_vocab_size": 2}
            return RobertaConfig(**encoder | bert_ids | longer)
        case "distilbert":
            return DistilBertConfig(
                **base,
                dim=hidden,
                n_layers=num_layers,
                n_heads=4,
                hidden_dim=2 * hidden,
                max_position_embeddings=MAX_LENGTH,
            )
        case "electra":
            return ElectraConfig(**encoder, embedding_size=hidden // 2)
        case "deberta-v2":
            return DebertaV2Config(
                **encoder,
                relative_attention=True,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                share_att_key=True,
                norm_rel_ebd="layer_norm",
                position_buckets=16,
            )
        case "gpt2":
            return GPT2Config(**base | bert_ids, n_embd=hidden, n_layer=num_layers, n_head=4, n_positions=MAX_LENGTH)
        case "llama":
            return LlamaConfig(**encoder | bert_ids, num_key_value_heads=2)
    raise AssertionError(f"no tiny model of {arch!r}; there are {ARCHITECTURES}")


def tiny_model(arch: str, num_layers: int = 4, hidden: int = 32, num_labels: int = 3, seed: int = 0) -> PreTrainedModel:
    """A tiny random classifier in eval mode, equal for equal arguments; the labels are LABEL_0, LABEL_1, …"""
    config = tiny_config(arch, num_layers, hidden)
    config.num_labels = num_labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config).eval()


def save_decoder(
    path: Path, arch: str = "gpt2", num_layers: int = 4, num_labels: int = 2, padding_side: str = "right", seed: int = 0
) -> Path:
    """Save a tiny decoder with `decoder_tokenizer`, a classifier or, with no labels, a language model; its path."""
    config = tiny_config(arch, num_layers)
    config.pad_token_id, config.bos_token_id, config.num_labels = None, None, num_labels or 2
    factory = AutoModelForSequenceClassification if num_labels else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_model(factory.from_config(config), path)
    decoder_tokenizer(path, padding_side=padding_side)
    return path


def plant_sink(model: PreTrainedModel, position: int = 0, norm: float = 1000.0) -> PreTrainedModel:
    """Give a tiny GPT-2's token at this position a hidden state of this norm in all layers, as attention sinks have."""
    with torch.no_grad():
        model.transformer.wpe.weight[position] = 0.0
        model.transformer.wpe.weight[position, 0] = norm
    return model


def save_tiny(
    path: Path,
    arch: str = "bert",
    num_layers: int = 4,
    hidden: int = 32,
    num_labels: int = 3,
    seed: int = 0,
    label_names: Sequence[str] | None = None,
) -> Path:
    """Save a tiny classifier with its tokenizer as a Hugging Face model directory; return its path."""
    names = label_names or [f"LABEL_{i}" for i in range(num_labels)]
    saved = _saved_tiny(arch, num_layers, hidden, seed, tuple(names))
    shutil.copytree(saved, path, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return path


@cache  # a copy takes a twentieth of the time
def _saved_tiny(arch: str, num_layers: int, hidden: int, seed: int, names: tuple[str, ...]) -> Path:
    path = Path(tempfile.mkdtemp(dir=_SAVED.name)) / "model"
    model = tiny_model(arch, num_layers, hidden, len(names), seed)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    save_model(model, path)
    tiny_tokenizer(path, segments=arch in _WITH_SEGMENTS)
    return path


MEAN_POOLING = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def save_sentence_encoder(
    path: Path,
    arch: str = "bert",
    num_layers: int = 4,
    hidden: int = 32,
    seed: int = 0,
    pooling: Mapping[str, Any] = MEAN_POOLING,
    dense: int | None = None,
    normalize: bool = True,
) -> Path:
    """Save a tiny encoder as sentence-transformers does, with pooling, a dense layer and normalization; its path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_model(AutoModel.from_config(tiny_config(arch, num_layers, hidden)), path)
        layer = None if dense is None else torch.nn.Linear(hidden, dense)
    tiny_tokenizer(path, segments=arch in _WITH_SEGMENTS)
    configs: dict[str, Mapping[str, Any]] = {"Transformer": {}, "Pooling": pooling}
    if dense is not None:
        activation = "torch.nn.modules.activation.Tanh"
        configs["Dense"] = {"in_features": hidden, "out_features": dense, "activation_function": activation}
    configs |= {"Normalize": {}} if normalize else {}
    modules = []
    for number, (kind, config) in enumerate(configs.items()):
        folder = f"{number}_{kind}" if number else ""
        modules.append({"idx": number, "name": str(number), "path": folder, "type": f"{_MODULES}.{kind}"})
        (path / folder).mkdir(exist_ok=True)
        if number:
            (path / folder / "config.json").write_text(json.dumps(dict(config)))
        if kind == "Dense":
            weights = {f"linear.{name}": weight.detach() for name, weight in layer.named_parameters()}
            save_file(weights, path / folder / "model.safetensors")
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {}, "default_prompt_name": None}))
    return path
