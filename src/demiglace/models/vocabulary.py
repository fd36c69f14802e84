"""Choose the tokens of a vocabulary that some texts use, so that a model and its tokenizer can do without the others.

`models.trimmed_tokenizer` and `models.trimmed_model` apply the choice. A text is split as before if all of its tokens
are kept. Token i of the trimmed vocabulary is token `kept[i]` of the full one, in the same order.

    counts = token_counts(tokenizer, texts)
    vocabulary = trim_vocabulary(tokenizer, counts, model.config)  # len(vocabulary) tokens; no model is built
    small_tokenizer = trim_tokenizer(tokenizer, vocabulary)
    print(coverage(tokenizer, small_tokenizer, vocabulary, other_texts).line("other texts"))
    small = trim_model(model, vocabulary)
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from demiglace.config.command_options import VocabularyConfig
from demiglace.errors import ConfigError, ModelError
from demiglace.models.bpe_merges import Merges
from demiglace.runs.files import read_json, write_json

FILE = "vocabulary_map.json"
_TEXTS = 1_000  # tokenized at once
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # tokens of single bytes, of SentencePiece
_ID = re.compile(r"_token_ids?$")  # fields of a config that hold ids of tokens
_LISTS = ("suppress_tokens", "begin_suppress_tokens")  # further ones, of a generation config
_FIRST_IDS = 8  # RoBERTa-like models number positions from the padding token's id, which is one of the first


@dataclass(frozen=True)
class TrimmedVocabulary:
    """The tokens of a vocabulary that are kept."""

    kept: np.ndarray  # int64 [n], ascending: token i of the trimmed vocabulary is token kept[i] of the full one
    full: int  # number of tokens V of the full vocabulary: rows of the embeddings
    used: int  # different tokens that the texts have
    removed_used: int = 0  # of these, not kept, because of `size`

    def __len__(self) -> int:
        return len(self.kept)

    @cached_property
    def new_ids(self) -> np.ndarray:
        """Return the token of the trimmed vocabulary for each token of the full one, int64 [V]; −1 for removed ones."""
        ids = np.full(self.full, -1, dtype=np.int64)
        ids[self.kept] = np.arange(len(self.kept))
        return ids

    @property
    def line(self) -> str:
        """Return a sentence with the numbers of tokens."""
        lost = f", {self.removed_used:,} of the tokens in use are not" if self.removed_used else ""
        others = len(self) - self.used + self.removed_used
        return (
            f"vocabulary: {len(self):,} of {self.full:,} tokens are kept: {self.used - self.removed_used:,} that the "
            f"texts use, {others:,} others (special tokens, single characters, parts of kept tokens){lost}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as they are written to a file."""
        numbers = {"full": self.full, "used": self.used, "removed_used": self.removed_used}
        return numbers | {"kept": self.kept.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrimmedVocabulary":
        """Return the vocabulary that `to_json` has written."""
        return cls(**{**content, "kept": np.array(content["kept"], dtype=np.int64)})

    def save(self, directory: Path) -> None:
        """Write the fields to DIRECTORY/vocabulary_map.json."""
        write_json(directory / FILE, self.to_json())

    @classmethod
    def load(cls, directory: Path) -> "TrimmedVocabulary":
        """Read what `save` wrote. Raises `RunError` for a damaged file."""
        return cls.from_json(read_json(directory / FILE))


def check_options(options: VocabularyConfig, *, corpus_needed: bool) -> None:
    """Raise `ConfigError` for options of trimming without it, and, if needed, for trimming without texts."""
    given = [name for name in ("vocabulary_corpus", "vocabulary_size") if getattr(options, name)]
    if options.vocabulary == "full" and given:
        raise ConfigError(f"--{given[0].replace('_', '-')} is for --vocabulary trim; give both, or leave it out.")
    if options.vocabulary == "trim" and corpus_needed and not options.vocabulary_corpus:
        raise ConfigError("--vocabulary trim keeps the tokens of some texts; give files as --vocabulary-corpus.")


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> np.ndarray:
    """Return how often each token of a vocabulary occurs in the texts, int64 [V], without the added special tokens."""
    counts = np.zeros(_size(tokenizer), dtype=np.int64)
    for some in batches_of(texts):
        encoded = tokenizer(some, add_special_tokens=False, return_attention_mask=False, verbose=False)
        rows: list[list[int]] = encoded["input_ids"]
        counts += np.bincount(np.concatenate([np.asarray(row, np.int64) for row in rows]), minlength=len(counts))
    return counts


def batches_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of a thousand, to be tokenized at once."""
    remaining = iter(texts)
    while some := list(islice(remaining, _TEXTS)):
        yield some


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerBase,
    counts: np.ndarray,
    config: PreTrainedConfig | None = None,
    *,
    size: int | None = None,
) -> TrimmedVocabulary:
    """Choose the tokens that are kept; no model is built, so that this takes milliseconds.

    Kept are all tokens with a count; special and added tokens; single bytes, or single characters of the scripts that
    occur in the tokens with a count, with all digits and signs; of a byte-pair encoding the parts of kept tokens.

    Args:
        tokenizer: a fast one: WordPiece, BPE, Unigram or WordLevel.
        counts: of `token_counts`, [V].
        config: of the model, whose special tokens are kept and whose vocabulary may be larger.
        size: tokens to keep at most; None for no limit. The most frequent ones are then kept, beside the others above.

    Raises:
        ModelError: a tokenizer without tokenizer.json, or of another kind.
        ConfigError: the tokens that are always kept are more than `size`.
    """
    core = tokenizer_json(tokenizer)
    vocabulary = tokenizer.get_vocab()
    full = max(_size(tokenizer), config.vocab_size if config is not None else 0)
    merges = Merges(core["model"]) if core["model"]["type"] == "BPE" else None
    by_id = {i: token for token, i in vocabulary.items()}
    order = [i for i in np.lexsort((np.arange(len(counts)), -counts)).tolist() if counts[i]]
    added = {entry["id"] for entry in core.get("added_tokens", ())}
    kept = special_ids(core, vocabulary, config, full)
    kept |= _single_characters(core, vocabulary, [by_id[i] for i in order if i not in added and i in by_id])

    def parts(i: int) -> set[int]:
        found = merges.parts(by_id[i]) if merges and i in by_id and i not in added else ()
        return {i, *(vocabulary[token] for token in found if token in vocabulary)}

    kept = set().union(*map(parts, kept))
    if size is not None and len(kept) > size:
        raise ConfigError(
            f"--vocabulary-size {size} was given, and {len(kept):,} tokens are always kept (special tokens and single "
            f"characters); give at least {len(kept)}."
        )
    for i in order:
        more = parts(i) - kept
        if size is None or len(kept) + len(more) <= size:
            kept |= more
    used = len(order)
    return TrimmedVocabulary(np.array(sorted(kept), dtype=np.int64), full, used, used - sum(i in kept for i in order))


def tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the content of tokenizer.json. Raises `ModelError` for a tokenizer without, and one of an unknown kind."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is a slow tokenizer, whose vocabulary cannot be trimmed; take a model with a "
            "tokenizer.json, or leave --vocabulary out."
        )
    core: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    if (kind := core["model"].get("type")) not in ("WordPiece", "BPE", "Unigram", "WordLevel"):
        raise ModelError(
            f"the tokenizer is of type {kind}, whose vocabulary cannot be trimmed; leave --vocabulary out."
        )
    return core


def _size(tokenizer: PreTrainedTokenizerBase) -> int:
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def special_ids(
    core: Mapping[str, Any], vocabulary: Mapping[str, int], config: PreTrainedConfig | None, full: int
) -> set[int]:
    """Return the ids with a role in a tokenizer or a config: added, unknown, in templates, of beginning and end, …"""
    model, added = core["model"], [entry["content"] for entry in core.get("added_tokens", ())]
    names = {model.get("unk_token"), *added, *_names(core.get("post_processor"))}
    found = {vocabulary[token] for token in names if token in vocabulary}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        found.add(int(np.argmin(scores)))  # an unknown character's score is derived from the lowest one
        found |= {model["unk_id"]} - {None}
    if config is not None:
        found |= {i for value in id_fields(config).values() for i in as_list(value) if 0 <= i < full}
        pad = config.pad_token_id
        found |= {*range(pad)} if isinstance(pad, int) and 0 <= pad < _FIRST_IDS else set()
    return found


def _names(step: Any) -> Iterator[str]:
    """Yield the names of the tokens that a post-processor of tokenizer.json adds."""
    for processor in (step or {}).get("processors", [step] if step else []):
        yield from processor.get("special_tokens", {})
        yield from (processor[role][0] for role in ("sep", "cls") if isinstance(processor.get(role), list))


def _single_characters(core: Mapping[str, Any], vocabulary: Mapping[str, int], used: Sequence[str]) -> set[int]:
    """Return the tokens of single bytes, or of single characters whose script occurs in tokens in use."""
    model, prefix = core["model"], core["model"].get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    if model["type"] == "WordLevel":
        return set()
    of_bytes = '"ByteLevel"' in json.dumps([core.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")])
    scripts = {script for token in used for character in token if (script := _script(character))}

    def is_kept(token: str) -> bool:
        bare = token.removeprefix(prefix).removesuffix(suffix)
        if len(bare) != 1:
            return bool(_BYTE.fullmatch(token))
        return of_bytes or bare.isascii() or _script(bare) in (None, *scripts)

    return {i for token, i in vocabulary.items() if is_kept(token)}


def _script(character: str) -> str | None:
    """Return the script of a letter or digit, by the first word of its Unicode name; None for signs and 0 to 9."""
    kinds = "LM" + ("N" if character.isdigit() and not character.isascii() else "")
    if unicodedata.category(character)[0] not in kinds:
        return None
    return unicodedata.name(character, "").partition(" ")[0]


def id_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config, or of a generation config, that hold a token's id or a list of ids."""
    names = [name for name in config.to_dict() if _ID.search(name) or name in _LISTS]
    values = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in values.items() if as_list(value)}


def as_list(value: Any) -> list[int]:
    """Return the ids in a field: one, several or none."""
    return [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]
