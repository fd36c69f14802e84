"""Filling a signal cache: the one pass of the teacher over the rows."""

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from demiglace.console import Bar, progress
from demiglace.data.batching import collate, forward_tokens, sorted_batches
from demiglace.data.tokenise import Examples
from demiglace.errors import CacheError, RunError
from demiglace.models.pooling import State
from demiglace.runs.directory import write_json
from demiglace.signals.hidden_state_cache import CacheKey
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, Signals, hidden_request
from demiglace.signals.shard_store import Layout, num_shards, read_cache_json, receipt, rows_of

# the rows of a shard, and where to tell how many of them are done -> what goes into each array
Capture = Callable[[np.ndarray, Bar], dict[str, np.ndarray]]


def fill_cache(
    directory: Path,
    key: CacheKey,
    teacher: PreTrainedModel,
    examples: Examples,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Capture the shards that `directory` does not hold yet; with several processes each takes its share of them.

    Raises `CacheError` where a signal is too large for the number format or cannot be written.
    """
    source = OnlineTeacher(teacher, all_layers(key.poolings, key.layers), key.precision)

    def capture(rows: np.ndarray, bar: Bar) -> dict[str, np.ndarray]:
        return _capture_shard(key, rows, source, examples, teacher.device, bar)

    fill_shards(directory, key, capture, rank, ranks)


def all_layers(poolings: Iterable[State], layers: int) -> SignalRequest:
    """The logits, and the hidden states of all layers under these poolings."""
    request = SignalRequest(logits=True)
    for pooling in poolings:
        request |= hidden_request(pooling, range(layers + 1))
    return request


def fill_shards(directory: Path, key: Layout, capture: Capture, rank: int = 0, ranks: int = 1) -> None:
    """Capture and write this process's share of the shards that are not there; raises `CacheError` as `fill_cache`."""
    todo = [s for s in range(rank, num_shards(key), ranks) if not receipt(directory, s).exists()]
    if not todo:
        return
    with progress("asking the teacher", sum(len(rows_of(key, s)) for s in todo), "rows") as bar:
        for shard in todo:
            begun, rows = time.perf_counter(), rows_of(key, shard)
            with np.errstate(over="ignore"):  # what does not fit is told below
                blocks = capture(rows, bar)
            for stem, block in blocks.items():
                if not np.isfinite(block).all():
                    raise CacheError(
                        f"the teacher's {stem} do not fit {block.dtype} (or are no numbers); try --cache-dtype float32."
                    )
            _write_shard(directory, shard, rows, blocks, time.perf_counter() - begun)


def prepare_cache(directory: Path, key: Layout) -> None:
    """Lay out the files of an empty cache, by one process, before any fills it.

    Raises `CacheError` where the disk has no room or the directory belongs to another capture.
    """
    identity = json.loads(json.dumps(key.identity))
    claim = directory / "cache.json"
    if claim.exists():
        found = read_cache_json(claim)
        differ = [k for k in identity if found.get(k) != identity[k]]
        if differ:
            raise CacheError(
                f"{directory} holds signals of another capture (different: {', '.join(differ)}); "
                "remove it or give another --cache."
            )
        return
    _check_disk(directory, key)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stem, (shape, dtype) in key.arrays.items():
            np.lib.format.open_memmap(directory / f"{stem}.npy", "w+", np.dtype(dtype), shape).flush()
        write_json(claim, identity)
    except (OSError, RunError) as error:
        raise _unwritable(directory, error) from error


def free_disk(directory: Path) -> tuple[int, Path]:
    """Bytes that are free where a directory is or would be made, and the nearest directory that is there."""
    existing = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free, existing


def _check_disk(directory: Path, key: Layout) -> None:
    needed, (free, existing) = key.bytes, free_disk(directory)
    if needed > free * 0.95:
        raise CacheError(
            f"the teacher's signals take {needed / 2**30:.2f} GiB and {existing} has {free / 2**30:.2f} GiB free; "
            f"give --cache a directory on a larger disk, or {key.online} to ask the teacher for every batch."
        )


def _capture_shard(
    key: CacheKey, rows: np.ndarray, source: OnlineTeacher, examples: Examples, device: torch.device, bar: Bar
) -> dict[str, np.ndarray]:
    blocks = {stem: np.empty((len(rows), *shape[1:]), dtype) for stem, (shape, dtype) in key.arrays.items()}
    for places in sorted_batches(examples.lengths[rows], forward_tokens(device)):
        batch = collate(examples, rows[places], device)
        signals = source.fetch(batch)
        assert signals.logits is not None
        blocks["logits"][places] = signals.logits.cpu().numpy()
        put_states(blocks, places, signals, key.poolings, key.layers)
        bar.advance(len(places))
    return blocks


def put_states(
    blocks: dict[str, np.ndarray], places: np.ndarray, signals: Signals, poolings: Iterable[State], layers: int
) -> None:
    """Put a batch's hidden states of all layers to these places of a shard."""
    for pooling in poolings:
        blocks[f"hidden-{pooling}"][places] = signals.hidden(pooling, range(layers + 1)).cpu().numpy()


def _write_shard(directory: Path, shard: int, rows: np.ndarray, blocks: dict[str, np.ndarray], seconds: float) -> None:
    try:
        for stem, block in blocks.items():
            file = directory / f"{stem}.npy"
            # written, not memory-mapped: a full disk is then an error here, and not a signal that kills the process
            with file.open("r+b") as handle:
                handle.seek(np.load(file, mmap_mode="r").offset + int(rows[0]) * block[0].nbytes)
                handle.write(block.tobytes())
                handle.flush()
                os.fsync(handle.fileno())
        checksums = {stem: zlib.crc32(b.data) for stem, b in blocks.items()}
        write_json(receipt(directory, shard), {"crc32": checksums, "seconds": seconds})
    except (OSError, EOFError, ValueError, RunError) as error:  # the middle two: the file is not what was laid out
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: Exception) -> CacheError:
    return CacheError(
        f"the teacher's signals could not be written to {directory}: {error}; make room there, remove it, or give "
        "another --cache. What was captured before is intact."
    )
