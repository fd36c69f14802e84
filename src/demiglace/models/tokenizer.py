"""Tokenizers: loading them, and whether they fit a model or each other."""

import inspect
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing
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
# They number positions from a row's first place on, be it padding, and read segments as words, which others do not.
_PLAIN_DECODERS = ("gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "ctrl")
_SPECIAL = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id")


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, able to pad and to keep two texts apart, and returning only what the model takes.

    Where it puts nothing between the texts of a pair, as GPT-2's does, its separator or end of text is put there;
    saved, it goes on doing so. Models that number positions through the padding (GPT-2) are padded on the right.

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
    if config.model_type in _PLAIN_DECODERS:
        tokenizer.padding_side = "right"
    _separate_pairs(tokenizer)
    if not _takes_segments(config):
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
    return tokenizer


def _pad_with_end(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    # GPT-2 and Llama were trained without padding. The mask hides what stands there, so any id will do,
    # and the end of text is one that needs no new row in the embeddings.
    if tokenizer.eos_token is None:
        raise ModelError(f"the tokenizer of {path} has neither a padding nor an end-of-text token; give it one.")
    tokenizer.pad_token = tokenizer.eos_token


def _separate_pairs(tokenizer: PreTrainedTokenizerBase) -> None:
    """[BOS] A B becomes [BOS] A separator B; single texts stay as they are."""
    separator = tokenizer.sep_token or tokenizer.eos_token
    adds = [tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True)]
    if not tokenizer.is_fast or separator is None or adds[1] > adds[0]:
        return
    encoded = tokenizer("a", return_special_tokens_mask=True)
    is_text = [not special for special in encoded["special_tokens_mask"]]
    tokens: Any = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    first, last = is_text.index(True), len(tokens) - is_text[::-1].index(True)
    before, after = tokens[:first], tokens[last:]
    special = {*before, *after, separator}
    core: Any = tokenizer
    core.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", separator, "$B", *after],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in sorted(special)],
    )


def _takes_segments(config: PreTrainedConfig) -> bool:
    """Whether a classifier of this config tells first from second text by token_type_ids (DistilBERT does not)."""
    if config.model_type in _PLAIN_DECODERS:
        return False
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return True
    model_class: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    kinds = getattr(config, "type_vocab_size", 2)  # some that take them, such as XLNet, do not say how many
    return "token_type_ids" in inspect.signature(model_class.forward).parameters and kinds > 1


def load_text_tokenizer(directory: str) -> PreTrainedTokenizerBase:
    """A tokenizer of a directory that need not hold a model, or the one of a model, for text that is not padded.

    Raises `ModelError` where there is none and where it cannot be read.
    """
    if Path(directory).is_dir() and has_tokenizer(Path(directory)):
        path = directory
    else:
        path = resolve_model(directory)
        if Path(path).is_dir() and not has_tokenizer(Path(path)):
            raise ModelError(
                f"{path} holds no tokenizer; train one with `demiglace tokenizer train`, or copy its files."
            )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error
    return tokenizer


def check_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` where a tokenizer gives ids beyond a model's embeddings."""
    table: Any = model.get_input_embeddings()
    rows = len(table.weight)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= rows:
        raise ModelError(
            f"the tokenizer does not fit the model: it gives ids up to {largest}, and the model embeds {rows} tokens "
            f"(0 to {rows - 1}). Use the tokenizer that the model was trained with."
        )


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """`check_ids`, and raise `ModelError` where tokenizer and model pad with different ids."""
    check_ids(model, tokenizer)
    expected = model.config.pad_token_id
    if expected is not None and tokenizer.pad_token_id != expected:
        raise ModelError(
            f"the tokenizer does not fit the model: it pads with id {tokenizer.pad_token_id} "
            f"({tokenizer.pad_token!r}), and the model expects {expected}. "
            "Use the tokenizer that the model was trained with."
        )


def check_same_vocabulary(
    teacher: PreTrainedTokenizerBase,
    other: PreTrainedTokenizerBase,
    role: str = "student",
    *,
    but_mask: bool = False,
    padded: bool = True,
) -> None:
    """Raise `ModelError`, saying how they differ, where two tokenizers do not turn the same text into the same ids.

    role: what the other one's model is to the teacher, for the message. but_mask: where the teacher's has no mask
    token, the other may have one all the same. padded: whether rows will be padded, so that the padding token counts.
    """
    mask = other.mask_token if but_mask and teacher.mask_token is None else None
    difference = _difference(teacher, other, role, mask, padded)
    if difference:
        ways = "a student cut from the teacher, or a pair that shares its tokenizer"
        raise ModelError(
            f"teacher and {role} have different vocabularies: {difference}. The {role} must read the teacher's "
            f"token ids; take {ways if role == 'student' else f'a {role} that shares its tokenizer'}."
        )


def _difference(
    teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, role: str, allowed_mask: Any, padded: bool
) -> str:
    ours, theirs = teacher.get_vocab(), other.get_vocab()
    if allowed_mask not in ours:
        theirs.pop(allowed_mask, None)
    differing = sorted((t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t)), key=str)
    if differing:
        shown = "; ".join(f"{t!r} is {_id(ours, t)} there, {_id(theirs, t)} here" for t in differing[:3])
        sizes = f"{len(ours):,} tokens against {len(theirs):,}"
        return f"{sizes}, {len(differing):,} of them differ (teacher there, {role} here: {shown})"
    passed = [*(["mask_token_id"] if allowed_mask else []), *([] if padded else ["pad_token_id"])]
    for name in _SPECIAL:
        if getattr(teacher, name) != getattr(other, name) and name not in passed:
            return f"{name} is {getattr(teacher, name)} for the teacher, {getattr(other, name)} for the {role}"
    split = teacher.tokenize(_PROBE), other.tokenize(_PROBE)
    same = teacher(_PROBE)["input_ids"] == other(_PROBE)["input_ids"]
    return "" if same else f"{_PROBE!r} becomes {split[0]} for the teacher, {split[1]} for the {role}"


def _id(vocabulary: dict[str, int], token: str) -> str:
    return f"id {vocabulary[token]}" if token in vocabulary else "absent"
