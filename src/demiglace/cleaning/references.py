"""Reference texts for decontamination: evaluation sets of tasks, and files."""

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
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.sources import read_task
from demiglace.data.text.addresses import is_address
from demiglace.data.text.readers import SkippedDocument, read_documents
from demiglace.data.text.sources import find_sources
from demiglace.errors import ConfigError, DataError, unknown


def read_references(
    rules: Sequence[AnyRule], reading: ReadConfig, location: DataLocation
) -> dict[str, tuple[str, ...]]:
    """Read the reference texts of the decontamination rules.

    Returns:
        name -> texts; of a task, all sets but the training set.

    Raises:
        ConfigError: a name is neither a task nor a file.
        DataError: a name gives no text.
    """
    names = reference_names(rules)
    for name in names:
        _check_name(name)
    texts = {name: tuple(_of_task(name, location) if name in TASKS else _of_files(name, reading)) for name in names}
    for rule in rules:
        if isinstance(rule, Decontamination):
            _log_usable(rule, texts)
    return texts


def reference_names(rules: Sequence[AnyRule]) -> list[str]:
    """Return the tasks, files and addresses that the decontamination rules name."""
    decontaminations = (rule for rule in rules if isinstance(rule, Decontamination))
    return list(dict.fromkeys(name for rule in decontaminations for name in rule.against))


def fingerprint_texts(texts: Sequence[str]) -> str:
    """Return the SHA-256 of texts as 16 hex digits, independent of where the texts are read from."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _check_name(name: str) -> None:
    if name not in TASKS and not is_address(name) and not Path(name).exists():
        raise ConfigError(f"against {name}: " + unknown("task", name, TASKS) + "; there is no such file either.")


def _of_files(name: str, reading: ReadConfig) -> Iterator[str]:
    skipped, empty = Counter[str](), True
    for file in find_sources([name]):
        for each in read_documents(file, reading):
            if isinstance(each, SkippedDocument):
                skipped[each.reason] += 1
            else:
                empty = False
                yield each.text
    why = ", ".join(f"{reason}: {count:,}" for reason, count in skipped.items())
    if empty:
        raise DataError(f"against {name}: no text was found ({why}); check --text-key, --unit and --max-document-mb.")
    if skipped:
        say(f"against {name}: {skipped.total():,} texts were skipped ({why}).")


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
        raise DataError(f"against {name}: no text was found, since the task has only training rows. Leave it out.")


def _log_usable(rule: Decontamination, texts_by_name: Mapping[str, Sequence[str]]) -> None:
    """Log how many reference texts are long enough for an n-gram, and warn if none is."""
    texts = [text for name in rule.against for text in texts_by_name[name]]
    long = int((np.diff(Texts(texts).shingle_words[1]) >= rule.words).sum())
    say(f"{rule.name}: {long:,} of {len(texts):,} reference texts have at least {rule.words} words.")
    if not long:
        names = ", ".join(rule.against)
        say(f"Warning: nothing will be dropped because of {names}; set fewer `words` in a file of rules.")
