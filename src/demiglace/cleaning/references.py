"""What documents must not share text with: evaluation sets of tasks, and files."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from demiglace.cleaning.registry import AnyRule
from demiglace.cleaning.rules.decontamination import Decontamination
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.data import DataLocation, ReadConfig
from demiglace.console import say
from demiglace.data.rows.columns import find_columns
from demiglace.data.rows.sources import read_task
from demiglace.data.rows.tasks import TASKS
from demiglace.data.text.readers import SkippedDocument, read_documents
from demiglace.data.text.sources import find_sources
from demiglace.errors import ConfigError, DataError, unknown


def read_references(
    rules: Sequence[AnyRule], reading: ReadConfig, location: DataLocation
) -> dict[str, tuple[str, ...]]:
    """The texts of each name that the rules are against: of all sets of a task but train, or of files.

    Raises `ConfigError` for a name that is neither a task nor a file, and `DataError` for one that gives no text.
    """
    ours = [rule for rule in rules if isinstance(rule, Decontamination)]
    names = list(dict.fromkeys(name for rule in ours for name in rule.against))
    for name in names:
        _check_name(name)
    found = {name: tuple(_of_task(name, location) if name in TASKS else _of_files(name, reading)) for name in names}
    for rule in ours:
        _say_length(rule, found)
    return found


def fingerprint_texts(texts: Sequence[str]) -> str:
    """SHA-256 over texts (16 hex digits): of files and of tasks' tables alike, wherever these are read from."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _check_name(name: str) -> None:
    if name not in TASKS and "://" not in name and not Path(name).exists():
        raise ConfigError(f"against {name}: " + unknown("task", name, TASKS) + "; nor is there such a file.")


def _of_files(name: str, reading: ReadConfig) -> Iterator[str]:
    refused, empty = Counter[str](), True
    for file in find_sources([name]):
        for each in read_documents(file, reading):
            if isinstance(each, SkippedDocument):
                refused[each.reason] += 1
            else:
                empty = False
                yield each.text
    why = ", ".join(f"{reason}: {count:,}" for reason, count in refused.items())
    if empty:
        raise DataError(f"against {name}: it gives no text ({why}); look at --text-key, --unit and --max-document-mb.")
    if refused:
        say(f"against {name}: {refused.total():,} texts are not used ({why}).")


def _of_task(name: str, location: DataLocation) -> Iterator[str]:
    task, empty = TASKS[name], True
    for split in task.splits:
        if split == "train":
            continue
        table = read_task(name, task, split, location)
        available = list(table.columns)
        given = task.text_columns if set(task.text_columns) <= set(available) else None
        for column in find_columns(available, table.file, given, labelled=False).texts:
            for text in table.columns[column]:
                if text:
                    empty = False
                    yield str(text)
    if empty:
        raise DataError(f"against {name}: it gives no text: the task has no rows but training ones. Leave it out.")


def _say_length(rule: Decontamination, found: Mapping[str, Sequence[str]]) -> None:
    """Say how many texts are long enough for the rule to look for them."""
    texts = [text for name in rule.against for text in found[name]]
    long = int((np.diff(Texts(texts).shingle_words[1]) >= rule.words).sum())
    say(f"{rule.name}: {long:,} of {len(texts):,} reference texts have at least {rule.words} words.")
    if not long:
        names = ", ".join(rule.against)
        say(f"Warning: so nothing is dropped for what it shares with {names}; a file of rules can set fewer `words`.")
