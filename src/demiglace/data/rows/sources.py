"""Sources of rows: the user's files, a folder of data sets, the package, or the Hugging Face hub."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import notice
from demiglace.data.rows.hub import SYNTAX, hub_set, hub_splits, is_hub, parse_hub, read_hub
from demiglace.data.rows.named_task_table import TASKS, NamedTask
from demiglace.data.rows.readers import ENDINGS, check_is_file, read_table, stem_of
from demiglace.data.rows.sampling import EVERY_ROW, RowSample
from demiglace.data.rows.table import USUAL_NAMES, Table
from demiglace.errors import DataError, unknown
from demiglace.runs.files import fingerprint

_PACKAGE = Path(__file__).parent.parent  # has banking77
_SAMPLE = 50_000  # rows that are read, at least, where --max-rows uses few of a file
_TIMES = 10  # rows that are read for each one of --max-rows, at least


def sources_of(config: DataConfig) -> dict[str, Path | str]:
    """Return where the rows of each split are: a file, or an address of the hub with its commit.

    Raises `DataError` as `files_of` and `hub.hub_splits` do.
    """
    found: dict[str, Path | str] = {**(hub_splits(config.data) if is_hub(config.data) else {}), **files_of(config)}
    given = {"validation": config.validation, "test": config.test}
    return found | {name: hub_set(spec) for name, spec in given.items() if spec and is_hub(spec)}


def text_sources_of(config: DataConfig) -> dict[str, list[Path | str]]:
    """Return where the texts of each split are: to train on, those of `--data` and of `--unlabelled`.

    Raises `DataError` as `sources_of` does.
    """
    named = sources_of(config)
    training = [named.pop("train")] if "train" in named else []
    return {"train": [*training, *unlabelled_sources(config)]} | {n: [source] for n, source in named.items()}


def unlabelled_sources(config: DataConfig) -> list[Path | str]:
    """Return where the rows of `--unlabelled` are: files, or addresses of the hub with their commit.

    Of a data set on the hub without a split, they are the training rows. Raises `DataError` as `hub.hub_splits` does.
    """
    return [hub_splits(spec)["train"] if is_hub(spec) else Path(spec) for spec in config.unlabelled or ()]


def check_source(spec: str) -> None:
    """Raise `DataError` for a file that does not exist, and for an address of the hub of a wrong form."""
    if is_hub(spec):
        parse_hub(spec)
    else:
        check_is_file(spec)


def fingerprint_sources(sources: Sequence[Path | str]) -> str:
    """Return a fingerprint of files and of addresses of the hub, which have the commit of their rows."""
    hub = sorted(str(source) for source in sources if is_hub(source))
    files = [source for source in sources if not is_hub(source)]
    return " ".join([*([fingerprint(files)] if files else []), *hub])


def read_source(source: Path | str, sample: RowSample = EVERY_ROW) -> Table:
    """Read rows from a file or an address of the hub. Raises `DataError` as `read_table` and `read_hub` do."""
    return read_hub(str(source), sample) if is_hub(source) else read_table(source, sample)


def read_training_rows(source: Path | str, config: DataConfig) -> Table:
    """Read the rows to train on, of one source.

    Where `--max-rows` uses few of them, and there are very many, a sample is read and the rest is not checked: the
    rows to use, and those to validate on, are drawn from it. Raises `DataError` as `read_source` does.
    """
    if config.max_rows is None:
        return read_source(source)
    table = read_source(source, RowSample(max(_SAMPLE, _TIMES * config.max_rows), config.data_seed or 0))
    if table.total is not None:
        notice(
            "sampled file",
            f"{source}: of its {table.total:,} rows, {len(table):,} drawn at random are read and checked; the "
            f"{config.max_rows:,} of --max-rows, and the rows to validate on, are taken from these.",
            rows=table.total,
            read=len(table),
        )
    return table


def files_of(config: DataConfig) -> dict[str, Path]:
    """Return the user's files by split, those of the hub left out; without `--data`, those of the other options.

    Raises `DataError` if `--data` is no task, no address of the hub and no file or folder of rows.
    """
    path = Path(config.data)
    found: dict[str, Path]
    if not config.data or is_hub(config.data):
        found = {}
    elif path.is_dir():
        found = files_in(path)
        if "train" not in found:
            raise DataError(
                f"{path} holds no train file; its name must be train with an ending of {', '.join(ENDINGS)}."
            )
    elif path.is_file():
        found = {"train": path}
    else:
        raise DataError(missing(config.data))
    given = {"validation": config.validation, "test": config.test}
    return found | {name: Path(file) for name, file in given.items() if file is not None and not is_hub(file)}


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are named after a split. Raises `DataError` if two are of one split."""
    found: dict[str, Path] = {}
    for split, stems in USUAL_NAMES.items():
        files = sorted(f for f in folder.iterdir() if f.is_file() and stem_of(f) in stems)
        if len(files) > 1:
            names = ", ".join(f.name for f in files)
            raise DataError(f"{folder} holds several files of {split} rows ({names}); name the files themselves.")
        if files:
            found[split] = files[0]
    return found


def missing(name: str) -> str:
    """Return the message for a name that is neither a task nor an existing path."""
    if "/" in name or stem_of(Path(name)):
        return (
            f"there is no file or folder {name}; check the path, or name a task of `demiglace tasks`, or a data set of "
            f"the Hugging Face hub as {SYNTAX}."
        )
    return unknown("task, and no file,", name, TASKS)


def read_task(name: str, task: NamedTask, split: str, location: DataLocation) -> Table:
    """Read a split of a named task from the package, the data folder or the hub. Raises `DataError` if none has it."""
    stem, hub_split = task.splits[split]
    folder = data_folder(location)
    for root in (_PACKAGE, folder):
        file = root and _file(root, stem)
        if file:
            return read_table(file)
    if task.hub is None:
        raise DataError(
            f"task {name!r} is not on the hub, and {folder or 'a data folder'} has no {stem}.*; "
            "point --data-dir or DEMIGLACE_DATA to a folder that has it."
        )
    return _from_hub(name, task.hub, hub_split, folder)


def data_folder(location: DataLocation) -> Path | None:
    """Return the folder of --data-dir or DEMIGLACE_DATA, or None. Raises `DataError` for a missing --data-dir."""
    if location.data_dir is not None and not location.data_dir.is_dir():
        raise DataError(f"--data-dir {location.data_dir} is no folder; give one that holds TASK/SPLIT files.")
    named = os.environ.get("DEMIGLACE_DATA")
    return location.data_dir or (Path(named) if named and Path(named).is_dir() else None)


def _file(root: Path, stem: str) -> Path | None:
    files = (root / (stem + ending) for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _from_hub(name: str, hub: tuple[str, str | None], split: str, folder: Path | None) -> Table:
    import datasets

    path, config = hub
    try:
        rows: dict[str, Any] = datasets.load_dataset(path, config, split=split)[:]
    except (OSError, ValueError, RuntimeError) as error:
        where = f"{folder} does not have it and the" if folder else "the"
        raise DataError(
            f"task {name!r} could not be read: {where} hub gave none ({str(error).splitlines()[0]}). "
            "Connect to the network, or point --data-dir or DEMIGLACE_DATA to a folder that has it."
        ) from error
    count = len(next(iter(rows.values()), []))
    return Table(f"hub:{path}{'/' + config if config else ''}:{split}", rows, range(1, count + 1))
