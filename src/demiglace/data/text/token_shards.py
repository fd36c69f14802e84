"""A corpus as tokens on disk: files of token ids, an end-of-text token behind every document, read where they lie.

Documents are tokenised file by file, in shards; a shard counts once its receipt stands beside it, so what was cut off
goes on with the document after the last shard. No document is left out unless the receipts say why and how many.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from demiglace.config.data import ReadConfig
from demiglace.console import progress
from demiglace.data.text.readers import Document, SkippedDocument, as_utf8, counted, fault_of, read_documents
from demiglace.errors import CacheError, DataError, ModelError, RunError
from demiglace.runs.files import fingerprint, read_json, write_json

SHARD_TOKENS = 1 << 24
_BATCH = 1_000_000  # characters that are tokenised at once
FORMAT = 2
_RECEIPT = {"last", "tokens", "crc32", "read", "documents", "bytes", "words", "left_out"}


@dataclass(frozen=True)
class Corpus:
    """The tokens of a list of files, one after another.

    parts: memory-mapped token ids; files: the file of each part; documents, characters' bytes in UTF-8, and words
    (what white space parts) count what the tokens were made of; left_out: why and how often a document is missing.
    """

    parts: tuple[np.ndarray, ...]
    files: tuple[str, ...]
    documents: int
    bytes: int
    words: int
    left_out: Mapping[str, int]
    fingerprint: str

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(p) for p in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens from `start` to below `stop`, int64."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        pieces = []
        for i in range(int(first), int(last) + 1):
            begin = int(self._ends[i]) - len(self.parts[i])
            pieces.append(self.parts[i][max(0, start - begin) : stop - begin])
        return np.concatenate(pieces).astype(np.int64)

    def place(self, token: int) -> tuple[str, int]:
        """The file that a token is from, and its number among the file's tokens."""
        part = int(np.searchsorted(self._ends, token, side="right"))
        first = self.files.index(self.files[part])
        return self.files[part], token - (int(self._ends[first - 1]) if first else 0)


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a document: end of text, or the separator of an encoder's tokenizer.

    Raises `ModelError` where the tokenizer has neither.
    """
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        "the tokenizer has no end-of-text token, which parts the documents of a corpus; set its eos_token, or train "
        "one with `demiglace tokenizer train`."
    )


def load_corpus(
    directory: Path, sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, reading: ReadConfig
) -> Corpus:
    """The corpus of these files, tokenised where that is still to do, below `directory`, which runs may share.

    Raises `DataError` for files without a document and damaged ones, `ModelError` for a tokenizer without an
    end-of-text token, and `CacheError` for token files that are damaged or cannot be written.
    """
    end = end_of_text(tokenizer)
    identity = {
        "format": FORMAT,
        "tokenizer": hashlib.sha256(_backend(tokenizer).encode()).hexdigest()[:16],
        "end": end,
        "files": [fingerprint([s]) for s in sources],
        "reading": asdict(reading),
    }
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    home = directory / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{name}.lock"):
            write_json(home / "corpus.json", identity)
            _tokenize_all(home, sources, tokenizer, reading, end)
    except (OSError, RunError) as error:
        raise CacheError(
            f"the token files in {home} could not be written ({error}); give another --token-files."
        ) from error
    return _opened(home, sources, name)


def _backend(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that decides what a tokenizer makes of a text that gets no special tokens and is neither padded nor cut."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = json.loads(backend.to_str())
    return json.dumps({k: v for k, v in parts.items() if k not in ("post_processor", "padding", "truncation")})


def _tokenize_all(
    home: Path, sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, reading: ReadConfig, end: int
) -> None:
    todo = [i for i in range(len(sources)) if not _is_done(home, i)]
    if not todo:
        return
    with progress("tokenising", sum(_size(sources[i]) for i in todo), "bytes") as bar:
        for i in todo:
            _tokenize_file(home, i, sources[i], tokenizer, reading, end)
            bar.advance(_size(sources[i]))


def _size(file: str) -> int:
    return Path(file).stat().st_size


def _is_done(home: Path, source: int) -> bool:
    receipts = _receipts(home, source)
    return bool(receipts) and receipts[-1]["last"]


def _receipts(home: Path, source: int) -> list[dict[str, Any]]:
    """Those of a file's shards, in their order. Raises `CacheError` where one before another is gone, or is damaged."""
    receipts = []
    for shard, file in enumerate(sorted(home.glob(f"{source:05d}-*.json"))):
        expected, said = _stem(home, source, shard).with_suffix(".json"), {}
        with suppress(RunError):
            said = read_json(expected) if file == expected else {}
        if not said.keys() >= _RECEIPT:
            raise CacheError(f"the receipt {expected} is gone or damaged; {_remedy(home)}")
        receipts.append(said)
    return receipts


def _stem(home: Path, source: int, shard: int) -> Path:
    return home / f"{source:05d}-{shard:05d}"


def _remedy(home: Path) -> str:
    return f"remove {home} and repeat the command; the corpus is then tokenised again."


def _tokenize_file(
    home: Path, number: int, file: str, tokenizer: PreTrainedTokenizerBase, reading: ReadConfig, end: int
) -> None:
    """Write the shards of one file that are not there yet."""
    there = _receipts(home, number)
    shard, done = len(there), sum(r["read"] for r in there)
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    books, held, tokens = _DocumentCounts(), [np.zeros(0, dtype)], 0
    for found in _batches(islice(read_documents(file, reading), done, None)):
        texts = books.enter(found)
        for ids in _encode(tokenizer, texts):
            held.append(np.array([*ids, end], dtype))
            tokens += len(held[-1])
        if tokens >= SHARD_TOKENS:
            _write(_stem(home, number, shard), np.concatenate(held), books, last=False)
            shard, books, held, tokens = shard + 1, _DocumentCounts(), [np.zeros(0, dtype)], 0
    _write(_stem(home, number, shard), np.concatenate(held), books, last=True)


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    """Tokens of these documents, an end of text behind each."""
    return sum(len(ids) + 1 for ids in _encode(tokenizer, texts))


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterable[list[int]]:
    if not texts:
        return []
    # split_special_tokens: a document that spells an end of text does not make one
    encoded = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False, split_special_tokens=True
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


class _DocumentCounts:
    """What the documents of a shard were."""

    def __init__(self) -> None:
        self.read = self.documents = self.bytes = self.words = 0
        self.left_out: Counter[str] = Counter()

    def enter(self, found: Sequence[Document | SkippedDocument]) -> list[str]:
        """Count them, and return the texts of those that can be used."""
        texts = []
        for each in found:
            fault = fault_of(each)
            if fault or isinstance(each, SkippedDocument):
                self.left_out[fault] += 1
                continue
            text = as_utf8(each.text)
            texts.append(text.decode("utf-8"))
            self.bytes += len(text)
            self.words += len(each.text.split())
        self.read += len(found)
        self.documents += len(texts)
        return texts


def _batches(found: Iterator[Document | SkippedDocument]) -> Iterator[list[Document | SkippedDocument]]:
    batch: list[Document | SkippedDocument] = []
    size = 0
    for each in found:
        batch.append(each)
        size += len(each.text) if isinstance(each, Document) else 0
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(stem: Path, tokens: np.ndarray, books: _DocumentCounts, last: bool) -> None:
    """Tokens, and then the receipt that makes them count."""
    draft, file = stem.with_suffix(".part"), stem.with_suffix(".npy")
    with draft.open("wb") as handle:
        np.save(handle, tokens)
    draft.replace(file)
    receipt = {"last": last, "tokens": len(tokens), "crc32": zlib.crc32(tokens.data), "read": books.read}
    receipt |= {"documents": books.documents, "bytes": books.bytes, "words": books.words}
    write_json(stem.with_suffix(".json"), receipt | {"left_out": dict(books.left_out)})


def _opened(home: Path, sources: Sequence[str], name: str) -> Corpus:
    parts, files, total, left_out = [], [], Counter[str](), Counter[str]()
    for i, source in enumerate(sources):
        for shard, said in enumerate(_receipts(home, i)):
            tokens = _verified(_stem(home, i, shard).with_suffix(".npy"), said, home)
            if len(tokens):
                parts.append(tokens)
                files.append(source)
            total.update({k: said[k] for k in ("documents", "bytes", "words")})
            left_out.update(said["left_out"])
    if not parts:
        raise DataError(
            f"{', '.join(sources[:3])}: no document to read ({counted(left_out) or 'none was found'}). Look at the "
            "files, --text-key, --unit (a .txt file is one document unless you say line or paragraph) and "
            "--max-document-mb."
        )
    counts = {k: total[k] for k in ("documents", "bytes", "words")}
    return Corpus(tuple(parts), tuple(files), **counts, left_out=dict(left_out), fingerprint=name)


def _verified(file: Path, receipt: Mapping[str, Any], home: Path) -> np.ndarray:
    try:
        tokens: np.ndarray = np.load(file, mmap_mode="r") if receipt["tokens"] else np.zeros(0, np.uint16)
    except (OSError, EOFError, ValueError) as error:
        raise CacheError(f"the token file {file} cannot be read ({error}); {_remedy(home)}") from error
    if len(tokens) != receipt["tokens"] or zlib.crc32(tokens.data) != receipt["crc32"]:
        raise CacheError(f"the token file {file} is corrupt; {_remedy(home)}")
    return tokens
