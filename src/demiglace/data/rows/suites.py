"""Out-of-domain suites: the sets on which the models of a task are measured beside its own rows, and a user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demiglace.config.options import build, option, read_yaml
from demiglace.data.rows.named_task_table import TASKS
from demiglace.errors import ConfigError, unknown

# task -> sets for its models; `A|B`: B replaces A if A is not available
SUITES: dict[str, tuple[str, ...]] = {
    "mnli": (
        "hans|hans_regenerated",
        "snli",
        "cad_snli_original",
        "cad_snli_revised",
        "adv_mnli",
        "adv_mnli_mismatched",
    ),
    "qqp": ("paws_qqp", "twitter_url_ppdb", "adv_qqp"),
    "sst2": (
        "imdb",
        "rotten_tomatoes_mr",
        "cad_imdb_original",
        "cad_imdb_revised",
        "yelp_review_full",
        "amazon_review_full",
        "adv_sst2",
    ),
    "qnli": ("adv_qnli",),
    "rte": ("adv_rte",),
}


@dataclass(frozen=True)
class SuiteSet:
    """One set of a suite, as `evaluation_sets.load_set` takes it."""

    data: str = option("a named task, TASK:SPLIT, or a file")
    label_map: dict[str, str | list[str] | None] = option("the set's label names to the model's", {})
    text_columns: tuple[str, ...] | None = option("the one or two text columns of a file", None)
    label_column: str | None = option("the label column of a file", None)
    group_column: str | None = option("the column of a file that names the part of the set that a row is of", None)


def named_suite(task: str, data_dir: Path | None) -> dict[str, SuiteSet]:
    """The sets for models of a task, by name; none for a task without a suite.

    data_dir: the folder of data sets, if there is one; a substitute set is used if the folder has nothing else.
    """
    names = [_choose(entry.split("|"), data_dir) for entry in SUITES.get(task, ())]
    return {name: SuiteSet(name) for name in names}


def read_suite(file: Path | str) -> dict[str, SuiteSet]:
    """A user's suite: a YAML mapping of names to {data, label_map, text_columns, label_column, group_column}.

    Raises `ConfigError` for a file that cannot be read, and for names and values that do not exist.
    """
    sets = {str(name): _entry(file, str(name), value) for name, value in read_yaml(file).items()}
    if not sets:
        raise ConfigError(f"{file} names no set; expected NAME: {{data: FILE_OR_TASK}}.")
    return sets


def source_of(task: str) -> str:
    """Return the task whose suite has this name. Raises `ConfigError` if there is none."""
    if task not in SUITES:
        raise ConfigError(unknown("suite", task, [*SUITES, "ood", "FILE.yaml"]))
    return task


def _choose(names: Sequence[str], data_dir: Path | None) -> str:
    """The first of these sets that is in the data folder; without such a folder, the first, which is on the hub."""
    if data_dir is None:
        return names[0]
    return next((name for name in names if _in_folder(name, data_dir)), names[0])


def _in_folder(name: str, data_dir: Path) -> bool:
    return any(list(data_dir.glob(f"{file}.*")) for file, _ in TASKS[name].splits.values())


def _entry(file: Path | str, name: str, value: Any) -> SuiteSet:
    content: Mapping[str, Any] = {"data": value} if isinstance(value, str) else value
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: {name} was given {value!r}; expected a file, a task, or a mapping of options.")
    try:
        return build(SuiteSet, content)
    except ConfigError as error:
        raise ConfigError(f"{file}: {name}: {error}") from error
