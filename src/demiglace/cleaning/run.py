"""A cleaning run from its plan to its results."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.cleaning import storage
from demiglace.cleaning.daft_executor import run_tasks
from demiglace.cleaning.registry import from_config
from demiglace.cleaning.rules.decontamination import Decontamination
from demiglace.cleaning.statistics import RuleTally, sampling_hash
from demiglace.cleaning.tasks import (
    Plan,
    books_file,
    finalize,
    finalized_marks_file,
    group_name,
    groups,
    parts_file,
    reference_file,
)
from demiglace.console import progress

_BUCKET = 64_000_000  # bytes of sources, packed or not, for one bucket of keys
_CLUSTERS = 20
_FEW_BUCKETS = 16


def bucket_count(size: int) -> int:
    """Into how many buckets keys are cut, for sources of so many bytes; what is marked does not depend on it."""
    return max(1, min(4096, -(-size // _BUCKET)))


def prepare(plan: Plan, reference: Iterable[str]) -> None:
    """Write down the plan, and the runs of words that documents must not share with `reference`."""
    for draft in storage.partial_files(Path(plan.directory)):
        draft.unlink(missing_ok=True)
    plan.write()
    for rule in from_config(plan.rules):
        if isinstance(rule, Decontamination) and not reference_file(plan.work).exists():
            with storage.atomic_write(reference_file(plan.work)) as draft, draft.open("wb") as stream:
                np.save(stream, rule.with_texts(reference).runs)


def run(plan: Plan, workers: int) -> dict[str, Any]:
    """Do what is left to do of a plan; returns each rule's tally, the clusters, and how many parts there are."""
    together, count = groups(plan), len(plan.segments)
    read = [{"kind": "read", "first": group.start, "end": group.stop} for group in together]
    _do(plan, f"cleaning 1/{count}", read, workers)
    names = [group_name(plan, group.start) for group in together]
    parts = [part for name in names for part in storage.read_books(books_file(plan, 0, name))["parts"]]
    storage.write_list(parts_file(plan), parts)
    for number in range(1, count):
        settle = [{"kind": "settle", "segment": number, "bucket": bucket} for bucket in range(plan.buckets)]
        # a few buckets are done sooner than processes have started
        _do(plan, f"comparing {number}", settle, workers if plan.buckets > _FEW_BUCKETS else 1)
        finalize(plan, number)
        clean = [{"kind": "clean", "segment": number, "part": part} for part in parts]
        _do(plan, f"cleaning {number + 1}/{count}", clean, workers)
    return {"rules": _tallies(plan, names, parts), "clusters": _clusters(plan), "parts": len(parts)}


def clear(plan: Plan) -> None:
    """Remove the files between the steps."""
    shutil.rmtree(plan.work, ignore_errors=True)


def _do(plan: Plan, name: str, tasks: list[dict[str, Any]], workers: int) -> None:
    with progress(name, len(tasks), "parts") as bar:
        for _ in run_tasks(plan.directory, tasks, workers):
            bar.advance(1)


def _tallies(plan: Plan, read: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
    """What each rule did in all parts, in the order of the rules; `read`: the names of what was read together."""
    total: dict[str, RuleTally] = {}
    names = [(0, name) for name in read]
    names += [(segment, part) for segment in range(len(plan.segments)) for part in parts]
    for segment, name in names:
        for rule, tally in storage.read_books(books_file(plan, segment, name))["rules"].items():
            total.setdefault(rule, RuleTally()).add(tally)
    order = ["read", *(row["rule"] for row in plan.rules)]
    return {rule: total[rule].as_json() for rule in order if rule in total}


def _clusters(plan: Plan) -> list[list[int]]:
    """Some clusters of near-duplicates, as document numbers, the first one being the one that stayed."""
    found: list[list[int]] = []
    for number, segment in enumerate(plan.segments):
        if segment.first is None or not storage.marks_there(finalized_marks_file(plan, number)):
            continue
        marked = storage.read_marks(finalized_marks_file(plan, number))
        firsts = sorted(np.unique(marked.key).tolist(), key=lambda d: sampling_hash(d, "clusters"))[:_CLUSTERS]
        found += [[first, *marked.document[marked.key == first].tolist()] for first in firsts]
    return found


def summary(tallies: Mapping[str, Any]) -> dict[str, list[int]]:
    """Documents, characters and words of the first rule's input and of the last one's output."""
    rules = [t for name, t in tallies.items() if name != "read"]
    names = ("documents", "characters", "words")
    return {name: [rules[0][name][0], rules[-1][name][1]] if rules else [0, 0] for name in names}


def shard_files(directory: Path) -> list[Path]:
    """The shards of a run, in order."""
    return sorted((directory / "shards").glob("*.parquet")) + sorted((directory / "shards").glob("*.jsonl.zst"))
