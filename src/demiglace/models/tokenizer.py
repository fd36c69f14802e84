"""Load tokenizers, and check that they match a model or each other."""

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
from demiglace.models.files import has_tokenizer, load_config, load_error, resolve_model
from demiglace.models.library import LOAD_ERRORS
from demiglace.models.paths import hub_address

_PROBE = "The café isn't OPEN: 3.14 €!"  # case, accent, contraction, number, rare sign
# These number positions from the first token of a row, even padding, and embed segment ids as words; others do not.
_PLAIN_DECODERS = ("gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "ctrl")
_SPECIAL = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id")


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, set up to pad, to separate pairs of texts, and to return only the model's inputs.

    If it puts nothing between the texts of a pair, as that of GPT-2, its separator or end-of-text token is put there,
    also after saving it. Rows of models that number positions through padding (GPT-2) are padded on the right.

    Raises `ModelError` if there is no tokenizer, if it cannot be read, or if it has no token to pad with.
    """
    path = resolve_model(model)
    if Path(path).is_dir() and not has_tokenizer(Path(path)):
        raise ModelError(f"{path} contains no tokenizer; copy the tokenizer files of the model there.")
    config = load_config(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(**hub_address(path), trust_remote_code=False)
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
    # GPT-2 and Llama were trained without padding. The attention mask hides padding, so any id works,
    # and the end-of-text token needs no new row in the embeddings.
    if tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer of {path} has neither a padding nor an end-of-text token; add a pad_token to its config."
        )
    tokenizer.pad_token = tokenizer.eos_token


def _separate_pairs(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set up the tokenizer so that [BOS] A B becomes [BOS] A separator B; single texts do not change."""
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
    """Return whether a classifier of this config uses token_type_ids for pairs of texts (DistilBERT does not)."""
    if config.model_type in _PLAIN_DECODERS:
        return False
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return True
    model_class: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    kinds = getattr(config, "type_vocab_size", 2)  # some configs with segments, such as XLNet's, lack it
    return "token_type_ids" in inspect.signature(model_class.forward).parameters and kinds > 1


def load_text_tokenizer(directory: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, or of a directory without a model, for text that is not padded.

    Raises `ModelError` if there is none or if it cannot be read.
    """
    if Path(directory).is_dir() and has_tokenizer(Path(directory)):
        path = directory
    else:
        path = resolve_model(directory)
        if Path(path).is_dir() and not has_tokenizer(Path(path)):
            raise ModelError(
                f"{path} contains no tokenizer; train one with `demiglace tokenizer train`, or copy its files there."
            )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**hub_address(path), trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error
    return tokenizer


def check_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` if a tokenizer has token ids beyond a model's embeddings."""
    table: Any = model.get_input_embeddings()
    rows = len(table.weight)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= rows:
        raise ModelError(
            f"the tokenizer does not match the model: it has ids up to {largest}, and the model embeds {rows} tokens "
            f"(0 to {rows - 1}). Use the tokenizer that the model was trained with."
        )


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` as `check_ids` does, and if tokenizer and model pad with different ids."""
    check_ids(model, tokenizer)
    expected = model.config.pad_token_id
    if expected is not None and tokenizer.pad_token_id != expected:
        raise ModelError(
            f"the tokenizer does not match the model: it pads with id {tokenizer.pad_token_id} "
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
    """Raise `ModelError`, with their differences, unless two tokenizers turn the same text into the same ids.

    role: of the other one's model, for the message. but_mask: allow a mask token in the other one if the teacher's has
    none. padded: whether rows are padded, so that the padding tokens must be equal.
    """
    mask = other.mask_token if but_mask and teacher.mask_token is None else None
    difference = _difference(teacher, other, role, mask, padded)
    if difference:
        remedy = "a student truncated from the teacher, or a pair that shares a tokenizer"
        raise ModelError(
            f"teacher and {role} have different vocabularies: {difference}. The {role} must have the teacher's "
            f"token ids; use {remedy if role == 'student' else f'a {role} that shares its tokenizer'}."
        )


def _difference(
    teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, role: str, allowed_mask: Any, padded: bool
) -> str:
    teacher_vocab, other_vocab = teacher.get_vocab(), other.get_vocab()
    if allowed_mask not in teacher_vocab:
        other_vocab.pop(allowed_mask, None)
    tokens = teacher_vocab.keys() | other_vocab.keys()
    differing = sorted((t for t in tokens if teacher_vocab.get(t) != other_vocab.get(t)), key=str)
    if differing:
        examples = "; ".join(
            f"{t!r} is {_id(teacher_vocab, t)} in the teacher's, {_id(other_vocab, t)} in the {role}'s"
            for t in differing[:3]
        )
        sizes = f"{len(teacher_vocab):,} tokens in the teacher's and {len(other_vocab):,} in the {role}'s"
        return f"{sizes}, {len(differing):,} of them differ ({examples})"
    ignored = [*(["mask_token_id"] if allowed_mask else []), *([] if padded else ["pad_token_id"])]
    for name in _SPECIAL:
        if getattr(teacher, name) != getattr(other, name) and name not in ignored:
            return f"{name} is {getattr(teacher, name)} for the teacher, {getattr(other, name)} for the {role}"
    if teacher(_PROBE)["input_ids"] == other(_PROBE)["input_ids"]:
        return ""
    return f"{_PROBE!r} becomes {teacher.tokenize(_PROBE)} for the teacher, {other.tokenize(_PROBE)} for the {role}"


def _id(vocabulary: dict[str, int], token: str) -> str:
    return f"id {vocabulary[token]}" if token in vocabulary else "absent"
