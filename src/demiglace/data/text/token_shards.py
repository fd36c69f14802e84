"""A corpus as memory-mapped files of token ids, with an end-of-text token after every document.

Documents are tokenized file by file, in shards. A shard is complete when its receipt (a JSON file) exists, so an
interrupted run resumes after the last complete shard. The receipts count the documents that were left out, by reason.
"""

import hashlib
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from demiglace.config.data import ReadConfig
from demiglace.console import progress
from demiglace.data.text.readers import GUESSED, Document, SkippedDocument, as_utf8, counted, fault_of, read_documents
from demiglace.errors import CacheError, DataError, ModelError, RunError
from demiglace.runs.files import atomic_write, fingerprint, read_json, write_json

SHARD_TOKENS = 1 << 24  # tokens after which a shard ends
_BATCH = 1_000_000  # characters tokenized at once
FORMAT = 2
_RECEIPT = {"last", "tokens", "crc32", "read", "documents", "bytes", "words", "left_out"}


@dataclass(frozen=True)
class Corpus:
    """The concatenated tokens of a list of files."""

    parts: tuple[np.ndarray, ...]  # memory-mapped token ids
    files: tuple[str, ...]  # the file of each part
    documents: int
    bytes: int  # of the texts in UTF-8
    words: int  # separated by white space
    left_out: Mapping[str, int]  # reason -> documents that were left out
    fingerprint: str

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(p) for p in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens start ≤ i < stop, int64."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        pieces = []
        for i in range(int(first), int(last) + 1):
            begin = int(self._ends[i]) - len(self.parts[i])
            pieces.append(self.parts[i][max(0, start - begin) : stop - begin])
        return np.concatenate(pieces).astype(np.int64)

    def positions(self, token: int) -> np.ndarray:
        """Return the positions of a token, int64 in order."""
        begins = self._ends - [len(part) for part in self.parts]
        found = [np.flatnonzero(part == token) + begin for part, begin in zip(self.parts, begins, strict=True)]
        return np.concatenate(found)

    def locate(self, token: int) -> tuple[str, int]:
        """Return the file of a token, and the token's index in the file."""
        part = int(np.searchsorted(self._ends, token, side="right"))
        first = self.files.index(self.files[part])
        return self.files[part], token - (int(self._ends[first - 1]) if first else 0)


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a document: end of text, or the separator of an encoder's tokenizer.

    Raises `ModelError` if the tokenizer has neither.
    """
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        "the tokenizer has no end-of-text token to separate the documents of a corpus; set its eos_token, or train "
        "one with `demiglace tokenizer train`."
    )


def load_corpus(
    directory: Path, sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, reading: ReadConfig
) -> Corpus:
    """Return the corpus of these files; tokenize what is not tokenized yet.

    Args:
        directory: for the token files; several runs may share it.
        sources: files of documents.
        tokenizer: of the model.
        reading: options for reading documents.

    Raises:
        DataError: the files have no document, or one is damaged.
        ModelError: the tokenizer has no end-of-text token.
        CacheError: the token files are damaged or cannot be written.
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
    corpus_dir = directory / name
    try:
        corpus_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{name}.lock"):
            write_json(corpus_dir / "corpus.json", identity)
            _tokenize_all(corpus_dir, sources, tokenizer, reading, end)
    except (OSError, RunError) as error:
        raise CacheError(
            f"the token files in {corpus_dir} could not be written ({error}); give another --token-files."
        ) from error
    return _open(corpus_dir, sources, name)


def _backend(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return everything that determines the tokens of a text without special tokens, padding and truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = json.loads(backend.to_str())
    return json.dumps({k: v for k, v in parts.items() if k not in ("post_processor", "padding", "truncation")})


def _tokenize_all(
    directory: Path, sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, reading: ReadConfig, end: int
) -> None:
    receipts = _receipts(directory)
    pending = [i for i in range(len(sources)) if not (receipts[i] and receipts[i][-1]["last"])]
    if not pending:
        return
    with progress("tokenising", sum(_size(sources[i]) for i in pending), "bytes") as bar:
        for i in pending:
            _tokenize_file(directory, i, receipts[i], sources[i], tokenizer, reading, end)
            bar.advance(_size(sources[i]))


def _size(file: str) -> int:
    return Path(file).stat().st_size


def _receipts(directory: Path) -> defaultdict[int, list[dict[str, Any]]]:
    """Return file number -> receipts of its shards in order, from one listing of the directory.

    Raises `CacheError` if a receipt is missing or damaged.
    """
    receipts = defaultdict[int, list[dict[str, Any]]](list)
    for file in sorted(directory.glob("[0-9]*-[0-9]*.json")):
        source = int(file.stem.partition("-")[0])
        expected, receipt = _stem(directory, source, len(receipts[source])).with_suffix(".json"), {}
        with suppress(RunError):
            receipt = read_json(expected) if file == expected else {}
        if not receipt.keys() >= _RECEIPT:
            raise CacheError(f"the receipt {expected} is missing or damaged; {_remedy(directory)}")
        receipts[source].append(receipt)
    return receipts


def _stem(directory: Path, source: int, shard: int) -> Path:
    return directory / f"{source:05d}-{shard:05d}"


def _remedy(directory: Path) -> str:
    return f"remove {directory} and repeat the command; the corpus is then tokenized again."


def _tokenize_file(
    directory: Path,
    number: int,
    receipts: Sequence[Mapping[str, Any]],
    file: str,
    tokenizer: PreTrainedTokenizerBase,
    reading: ReadConfig,
    end: int,
) -> None:
    """Write the missing shards of one file; receipts: of those that it has."""
    shard, num_read = len(receipts), sum(r["read"] for r in receipts)
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    counts, pieces, tokens = _DocumentCounts(), [np.zeros(0, dtype)], 0
    for documents in _batches(islice(read_documents(file, reading), num_read, None)):
        ids: list[int] = []
        for document_ids in _encode(tokenizer, counts.add(documents)):
            ids += document_ids
            ids.append(end)
        pieces.append(np.array(ids, dtype))
        tokens += len(ids)
        if tokens >= SHARD_TOKENS:
            _write(_stem(directory, number, shard), np.concatenate(pieces), counts, last=False)
            shard, counts, pieces, tokens = shard + 1, _DocumentCounts(), [np.zeros(0, dtype)], 0
    _write(_stem(directory, number, shard), np.concatenate(pieces), counts, last=True)


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    """Count the tokens of these documents, with an end-of-text token after each."""
    return sum(len(ids) + 1 for ids in _encode(tokenizer, texts))


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterable[list[int]]:
    """Return the token ids of each text; the string of a special token in a text does not become that token."""
    if not texts:
        return []
    if getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus:
        # its backend at once: the batch of ids and offsets that transformers builds takes as long as tokenizing
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # as `split_special_tokens`; transformers sets all three in each call
        return (encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False))
    encoded = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False, split_special_tokens=True
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


class _DocumentCounts:
    """Counts of the documents of a shard."""

    def __init__(self) -> None:
        self.read = self.documents = self.bytes = self.words = 0
        self.left_out: Counter[str] = Counter()

    def add(self, documents: Sequence[Document | SkippedDocument]) -> list[str]:
        """Count the documents, and return the texts of the usable ones."""
        texts = []
        for document in documents:
            fault = fault_of(document)
            if fault or isinstance(document, SkippedDocument):
                self.left_out[fault] += 1
                continue
            self.left_out[GUESSED] += document.guessed
            text = as_utf8(document.text)
            texts.append(text.decode("utf-8"))
            self.bytes += len(text)
            self.words += len(document.text.split())
        self.read += len(documents)
        self.documents += len(texts)
        return texts


def _batches(documents: Iterator[Document | SkippedDocument]) -> Iterator[list[Document | SkippedDocument]]:
    batch: list[Document | SkippedDocument] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text) if isinstance(document, Document) else 0
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(stem: Path, tokens: np.ndarray, counts: _DocumentCounts, last: bool) -> None:
    """Write the tokens of a shard, then its receipt, which marks it as complete."""
    with atomic_write(stem.with_suffix(".npy")) as partial, partial.open("wb") as handle:
        np.save(handle, tokens)
    receipt = {"last": last, "tokens": len(tokens), "crc32": zlib.crc32(tokens.data), "read": counts.read}
    receipt |= {"documents": counts.documents, "bytes": counts.bytes, "words": counts.words}
    write_json(stem.with_suffix(".json"), receipt | {"left_out": dict(+counts.left_out)})


def _open(directory: Path, sources: Sequence[str], name: str) -> Corpus:
    parts, files, total, left_out = [], [], Counter[str](), Counter[str]()
    receipts = _receipts(directory)
    for i, source in enumerate(sources):
        for shard, receipt in enumerate(receipts[i]):
            tokens = _verified(_stem(directory, i, shard).with_suffix(".npy"), receipt, directory)
            if len(tokens):
                parts.append(tokens)
                files.append(source)
            total.update({k: receipt[k] for k in ("documents", "bytes", "words")})
            left_out.update(receipt["left_out"])
    if not parts:
        raise DataError(
            f"{', '.join(sources[:3])}: no document to read ({counted(left_out) or 'none was found'}). Check the "
            "files, --text-key, --unit (a .txt file is one document unless it is line or paragraph) and "
            "--max-document-mb."
        )
    counts = {k: total[k] for k in ("documents", "bytes", "words")}
    return Corpus(tuple(parts), tuple(files), **counts, left_out=dict(left_out), fingerprint=name)


def _mapped(file: Path) -> np.ndarray:
    """Return the array in a .npy file, memory-mapped and read-only.

    NumPy's maps keep their files open, so that a corpus of a thousand files would reach the limit of open files; torch
    closes each file once it is mapped.
    """
    with file.open("rb") as handle:
        version = np.lib.format.read_magic(handle)
        if version != (1, 0):
            raise ValueError(f"version {version} of the format")
        (length,), _, dtype = np.lib.format.read_array_header_1_0(handle)
        start = handle.tell()
    size = start + length * dtype.itemsize
    if size != file.stat().st_size:
        raise ValueError("it is cut off")
    content = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).numpy()
    tokens: np.ndarray = content[start:].view(dtype)
    tokens.flags.writeable = False
    return tokens


def _verified(file: Path, receipt: Mapping[str, Any], directory: Path) -> np.ndarray:
    try:
        tokens = _mapped(file) if receipt["tokens"] else np.zeros(0, np.uint16)
    except (OSError, EOFError, ValueError) as error:
        raise CacheError(f"the token file {file} cannot be read ({error}); {_remedy(directory)}") from error
    if len(tokens) != receipt["tokens"] or zlib.crc32(tokens.data) != receipt["crc32"]:
        raise CacheError(f"the token file {file} is corrupt; {_remedy(directory)}")
    return tokens
