"""Rewrite a tokenizer for a trimmed vocabulary, and measure what that changes in texts."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from demiglace.console import notice, say
from demiglace.errors import ModelError
from demiglace.models.bpe_merges import Merges
from demiglace.models.vocabulary import (
    TrimmedVocabulary,
    batches_of,
    special_ids,
    token_counts,
    tokenizer_json,
    trim_vocabulary,
)

_HELD_OUT = 10  # one of so many texts measures the vocabulary of the others
_MOST_HELD_OUT = 2_000
_PARTS = (
    "normalizer",
    "pre_tokenizer",
    "model",
    "added_tokens",
)  # of tokenizer.json, which decide the tokens of a text


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: TrimmedVocabulary) -> PreTrainedTokenizerBase:
    """Return a tokenizer with only the kept tokens, under their new ids; normalization and the like stay.

    A byte-pair encoding keeps the merges between kept tokens, in their order, and Unigram the scores. So a text of kept
    tokens is split as before. Raises `ModelError` as `tokenizer_json` does, and for ids that cannot be renumbered.
    """
    core = tokenizer_json(tokenizer)
    new_ids = {token: i for token, old in tokenizer.get_vocab().items() if (i := int(vocabulary.new_ids[old])) >= 0}
    backend = Tokenizer.from_str(json.dumps(_trimmed(core, vocabulary, new_ids)))
    old: Any = tokenizer
    trimmed: Any = copy.deepcopy(old, {id(old._tokenizer): backend})  # all but the backend
    if trimmed.get_vocab() != new_ids:
        raise ModelError(
            f"the ids of {type(tokenizer).__name__} have an order that cannot be renumbered; its vocabulary cannot be "
            "trimmed. Leave --vocabulary out."
        )
    return trimmed  # type: ignore[no-any-return]


def _trimmed(core: dict[str, Any], vocabulary: TrimmedVocabulary, new_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the content of tokenizer.json for the kept tokens."""
    model = core["model"]
    if model["type"] == "Unigram":
        kept = [i for i in vocabulary.kept.tolist() if i < len(model["vocab"])]
        unknown = model["unk_id"]
        model |= {
            "vocab": [model["vocab"][i] for i in kept],
            "unk_id": None if unknown is None else kept.index(unknown),
        }
    else:
        model["vocab"] = {token: new_ids[token] for token in model["vocab"] if token in new_ids}
    if model["type"] == "BPE":
        model["merges"] = Merges(model).among(model["vocab"].keys())
    added = [entry for entry in core.get("added_tokens", ()) if entry["content"] in new_ids]
    core["added_tokens"] = [entry | {"id": new_ids[entry["content"]]} for entry in added]
    if padding := core.get("padding"):
        padding["pad_id"] = new_ids[padding["pad_token"]]
    if processor := core.get("post_processor"):
        for each in processor.get("processors", [processor]):
            _renumber(each, new_ids)
    return core


def _renumber(processor: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    """Set the new ids of the tokens that a post-processor adds."""
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [new_ids[name] for name in token["tokens"]]
    for role in ("sep", "cls"):
        if isinstance(processor.get(role), list):
            processor[role][1] = new_ids[processor[role][0]]


@dataclass(frozen=True)
class Coverage:
    """What a trimmed vocabulary changes in some texts."""

    texts: int
    changed: int  # texts that are split into other tokens than with the full vocabulary
    tokens: int  # of all texts, with the full vocabulary
    trimmed_tokens: int  # the same, with the trimmed one
    unknown: int  # unknown tokens among `tokens`
    trimmed_unknown: int  # among `trimmed_tokens`

    @property
    def growth(self) -> float:
        """Return by what share the texts are longer."""
        return self.trimmed_tokens / max(1, self.tokens) - 1

    def line(self, what: str) -> str:
        """Return a sentence; what: of the texts, such as "validation rows"."""
        return (
            f"{self.texts:,} {what}: {self.growth:.1%} longer, {self.changed:,} with other tokens, "
            f"{self.trimmed_unknown:,} unknown tokens ({self.unknown:,} with the full vocabulary)."
        )

    def facts(self) -> dict[str, Any]:
        """Return the counts for a manifest."""
        return asdict(self) | {"growth": round(self.growth, 6)}


def coverage(
    tokenizer: PreTrainedTokenizerBase,
    trimmed: PreTrainedTokenizerBase,
    vocabulary: TrimmedVocabulary,
    texts: Iterable[str],
) -> Coverage:
    """Compare both tokenizers on texts, special tokens included.

    Raises `ModelError` if a text whose tokens are all kept is split otherwise, so that model and tokenizer would not
    match.
    """
    rows = changed = 0
    tokens, unknown = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    for some in batches_of(texts):
        both = [t(some, return_attention_mask=False, verbose=False)["input_ids"] for t in (tokenizer, trimmed)]
        for text, before, after in zip(some, *both, strict=True):
            expected = vocabulary.new_ids[before]
            same = np.array_equal(expected, after)
            if not same and (expected >= 0).all() and tokenizer.unk_token_id not in before:
                raise ModelError(
                    f"the trimmed tokenizer splits {text[:60]!r} otherwise than the full one, though every token is "
                    "kept; this tokenizer cannot be trimmed. Leave --vocabulary out."
                )
            rows, changed = rows + 1, changed + (not same)
            tokens += len(before), len(after)
            unknown += before.count(tokenizer.unk_token_id), after.count(trimmed.unk_token_id)
    return Coverage(rows, changed, *tokens.tolist(), *unknown.tolist())


def choose_vocabulary(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], config: PreTrainedConfig, size: int | None
) -> tuple[TrimmedVocabulary, Coverage | None]:
    """Return the vocabulary of texts, and how well that of nine of ten texts covers the tenth.

    The coverage estimates that of new texts of the kind; None for fewer than ten texts. Raises as `trim_vocabulary`.
    """
    held_out: list[str] = []

    def others() -> Iterator[str]:
        for number, text in enumerate(texts, 1):
            if number % _HELD_OUT or len(held_out) == _MOST_HELD_OUT:
                yield text
            else:
                held_out.append(text)

    counts = token_counts(tokenizer, others())
    found = None
    if held_out:
        partial = trim_vocabulary(tokenizer, counts, config, size=size)
        found = coverage(tokenizer, trim_tokenizer(tokenizer, partial), partial, held_out)
        counts += token_counts(tokenizer, held_out)
    return trim_vocabulary(tokenizer, counts, config, size=size), found


def vocabulary_between(full: PreTrainedTokenizerBase, small: PreTrainedTokenizerBase) -> TrimmedVocabulary | None:
    """Return which tokens of `full` a tokenizer has that `trim_tokenizer` made of it; None for any other tokenizer."""
    ids, new_ids = full.get_vocab(), small.get_vocab()
    if not (full.is_fast and small.is_fast and len(new_ids) < len(ids) and new_ids.keys() <= ids.keys()):
        return None
    kept = np.array([ids[token] for token in sorted(new_ids, key=new_ids.__getitem__)], dtype=np.int64)
    size = max(ids.values()) + 1
    if (np.diff(kept) <= 0).any() or not special_ids(tokenizer_json(full), ids, None, size) <= set(kept.tolist()):
        return None
    vocabulary = TrimmedVocabulary(kept, size, len(kept))
    made = tokenizer_json(trim_tokenizer(full, vocabulary))
    differs = any(made.get(part) != tokenizer_json(small).get(part) for part in _PARTS)
    return None if differs else vocabulary


def report(vocabulary: TrimmedVocabulary, found: Coverage | None, what: str) -> dict[str, Any]:
    """Print how many tokens are kept and what that changes in texts; return both for the manifest.

    what: of the texts. Unknown tokens that the full vocabulary does not have are a warning.
    """
    say(vocabulary.line)
    if found is not None:
        worse = found.trimmed_unknown > found.unknown
        notice(
            "vocabulary",
            f"{'warning: ' if worse else ''}{found.line(what)}",
            tokens=len(vocabulary),
            unknown=found.trimmed_unknown,
        )
    numbers = {"kept": len(vocabulary), "full": vocabulary.full, "used": vocabulary.used}
    numbers |= {"removed_used": vocabulary.removed_used}
    return numbers | ({} if found is None else {"coverage": found.facts()})
