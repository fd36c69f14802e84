"""Tokenizers: loading them, and whether they fit a model or each other."""

import inspect
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from demiglace.errors import ModelError
from demiglace.models.files import LOAD_ERRORS, has_tokenizer, load_config, load_error, resolve_model

_PROBE = "The café isn't OPEN: 3.14 €!"  # case, accent, contraction, number, rare sign
_SPECIAL = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id")


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, able to pad and returning only what the model takes.

    Raises `ModelError` where there is none, where it cannot be read and where it has no token to pad with.
    """
    path = resolve_model(model)
    if Path(path).is_dir() and not has_tokenizer(Path(path)):
        raise ModelError(f"{path} holds no tokenizer; copy the files of the one it was trained with there.")
    config = load_config(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error
    if tokenizer.pad_token_id is None:
        _pad_with_end(tokenizer, path)
    if not _takes_segments(config):
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
    return tokenizer


def _pad_with_end(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    # GPT-2 and Llama were trained without padding. The mask hides what stands there, so any id will do,
    # and the end of text is one that needs no new row in the embeddings.
    if tokenizer.eos_token is None:
        raise ModelError(f"the tokenizer of {path} has neither a padding nor an end-of-text token; give it one.")
    tokenizer.pad_token = tokenizer.eos_token


def _takes_segments(config: PreTrainedConfig) -> bool:
    """Whether a classifier of this config tells first from second text by token_type_ids (DistilBERT does not)."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return True
    model_class: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    kinds = getattr(config, "type_vocab_size", 2)  # absent from the configs of decoders
    return "token_type_ids" in inspect.signature(model_class.forward).parameters and kinds > 1


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` where a tokenizer cannot belong to a model: ids beyond its embeddings, another padding id."""
    table: Any = model.get_input_embeddings()
    rows = len(table.weight)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= rows:
        raise ModelError(
            f"the tokenizer does not fit the model: it gives ids up to {largest}, and the model embeds {rows} tokens "
            f"(0 to {rows - 1}). Use the tokenizer that the model was trained with."
        )
    expected = model.config.pad_token_id
    if expected is not None and tokenizer.pad_token_id != expected:
        raise ModelError(
            f"the tokenizer does not fit the model: it pads with id {tokenizer.pad_token_id} "
            f"({tokenizer.pad_token!r}), and the model expects {expected}. "
            "Use the tokenizer that the model was trained with."
        )


def check_same_vocabulary(
    teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, role: str = "student"
) -> None:
    """Raise `ModelError`, saying how they differ, where two tokenizers do not turn the same text into the same ids.

    role: what the other one's model is to the teacher, for the message.
    """
    difference = _difference(teacher, other, role)
    if difference:
        ways = "a student cut from the teacher, or a pair that shares its tokenizer"
        raise ModelError(
            f"teacher and {role} have different vocabularies: {difference}. The {role} must read the teacher's "
            f"token ids; take {ways if role == 'student' else f'a {role} that shares its tokenizer'}."
        )


def _difference(teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, role: str) -> str:
    ours, theirs = teacher.get_vocab(), other.get_vocab()
    differing = sorted((t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t)), key=str)
    if differing:
        shown = "; ".join(f"{t!r} is {_id(ours, t)} there, {_id(theirs, t)} here" for t in differing[:3])
        sizes = f"{len(ours):,} tokens against {len(theirs):,}"
        return f"{sizes}, {len(differing):,} of them differ (teacher there, {role} here: {shown})"
    for name in _SPECIAL:
        if getattr(teacher, name) != getattr(other, name):
            return f"{name} is {getattr(teacher, name)} for the teacher, {getattr(other, name)} for the {role}"
    split = teacher.tokenize(_PROBE), other.tokenize(_PROBE)
    same = teacher(_PROBE)["input_ids"] == other(_PROBE)["input_ids"]
    return "" if same else f"{_PROBE!r} becomes {split[0]} for the teacher, {split[1]} for the {role}"


def _id(vocabulary: dict[str, int], token: str) -> str:
    return f"id {vocabulary[token]}" if token in vocabulary else "absent"
