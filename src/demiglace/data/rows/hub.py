"""Data sets of the Hugging Face hub by name: ``hf://OWNER/NAME[@REVISION][/CONFIG][:SPLIT]``.

The revision follows the name, as in the hub's own addresses; it is a branch, a tag, a commit or refs/pr/N.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from demiglace.data.rows.objects import class_names
from demiglace.data.rows.sampling import EVERY_ROW, RowSample
from demiglace.data.rows.table import USUAL_NAMES, Table
from demiglace.errors import DataError

PREFIX = "hf://"
SYNTAX = f"{PREFIX}OWNER/NAME[@REVISION][/CONFIG][:SPLIT]"
_SPEC = re.compile(
    rf"{PREFIX}(?:datasets/)?(?P<path>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[\w.%-]+))?"
    r"(?:/(?P<config>[\w. -]+))?(?::(?P<split>.+))?"
)


@dataclass(frozen=True)
class HubRows:
    """Rows of a data set on the hub."""

    path: str  # OWNER/NAME
    revision: str | None = None  # None: the default branch
    config: str | None = None  # None: the only or the default one
    split: str | None = None  # also with a slice, as `datasets` takes it: train[:10%]

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        config = f"/{self.config}" if self.config else ""
        return f"{PREFIX}{self.path}{revision}{config}" + (f":{self.split}" if self.split else "")


def is_hub(spec: object) -> bool:
    """Return whether rows are named by an address of the hub."""
    return str(spec).startswith(PREFIX)


def parse_hub(spec: str) -> HubRows:
    """Return the parts of an address. Raises `DataError` for one of another form."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise DataError(f"{spec} was given; expected {SYNTAX}, such as hf://stanfordnlp/imdb:train.")
    found = match.groupdict()
    return HubRows(**found | {"revision": (found["revision"] or "").replace("%2F", "/") or None})


def origin_of(data: str, train: Path | str) -> tuple[str, tuple[str, str | None] | None, str | None]:
    """Return the name of a data set, and what is None for files: its path and configuration on the hub, its commit.

    data: what the user named; train: the file or the address of its training rows.
    """
    if not is_hub(train):
        return Path(data).name, None, None
    rows = parse_hub(str(train))
    return rows.path.partition("/")[2], (rows.path, rows.config), rows.revision


def hub_splits(spec: str) -> dict[str, str]:
    """Return the addresses of train, validation and test of a data set, each with its commit; of one split if named.

    Raises `DataError` for a data set that cannot be read.
    """
    rows = pinned(parse_hub(spec))
    if rows.split:
        return {"train": str(rows)}
    import datasets

    with _reading(rows):
        names = datasets.get_dataset_split_names(rows.path, rows.config, revision=rows.revision)
    found = {split: next((name for name in usual if name in names), None) for split, usual in USUAL_NAMES.items()}
    if found["train"] is None:
        raise DataError(f"{rows} has the splits {', '.join(names)} and no train; name one: {rows}:{names[0]}.")
    return {split: str(replace(rows, split=name)) for split, name in found.items() if name}


def hub_set(spec: str) -> str:
    """Return the address of the rows to evaluate on: the split that is named, else test or validation."""
    if parse_hub(spec).split:
        return str(pinned(parse_hub(spec)))
    splits = hub_splits(spec)
    chosen = splits.get("test") or splits.get("validation")
    if chosen is None:
        raise DataError(f"{spec} has neither a test nor a validation split; name the split: {spec}:train.")
    return chosen


def pinned(rows: HubRows) -> HubRows:
    """Return the rows with the commit that their revision is now; as they are where the hub is offline."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE or (rows.revision and re.fullmatch(r"[0-9a-f]{40}", rows.revision)):
        return rows
    with _reading(rows):
        return replace(rows, revision=HfApi().dataset_info(rows.path, revision=rows.revision).sha)


def read_hub(spec: str, sample: RowSample = EVERY_ROW) -> Table:
    """Return the rows of one split, or a sample; class ids of its features as names.

    Raises `DataError` where it cannot be read.
    """
    import datasets

    rows = parse_hub(spec)
    with _reading(rows):
        found = datasets.load_dataset(rows.path, rows.config, split=rows.split, revision=rows.revision)
    drawn, total = sample.indices(len(found))
    if total is not None:
        found = found.select(drawn)
    columns = {name: [class_names(feature, v) for v in found[name]] for name, feature in found.features.items()}
    return Table(spec, columns, (drawn + 1).tolist(), total=total)


@contextmanager
def _reading(rows: HubRows) -> Iterator[None]:
    """Turn the errors of `datasets` and `huggingface_hub` into `DataError`, without a token."""
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:  # also those of the HTTP client, which is another one in each version of the library
        reason = " ".join(str(error).split())[:300]
        offline = " HF_HUB_OFFLINE forbids downloads." if constants.HF_HUB_OFFLINE else ""
        login = "" if os.environ.get("HF_TOKEN") else " A private or gated one needs `hf auth login`."
        raise DataError(f"{rows} could not be read from the hub: {reason}{offline}{login}") from error
