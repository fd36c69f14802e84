"""The texts that cleaning is measured on, and datatrove's filters with our way to split words and sentences."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zstandard

from demiglace.cleaning.rules.c4 import count_sentences
from demiglace.runs.environment import machine

RESULTS = Path(__file__).parent.parent / "results"
SETS = ("noisy_web", "c4_sample", "docs_raw")
_WORD = re.compile(r"\w+|[^\w\s]")


def data_folder() -> Path:
    folder = Path(os.environ.get("DEMIGLACE_DATA", "../shared/data"))
    if not folder.is_dir():
        sys.exit(f"{folder} is not there; set DEMIGLACE_DATA to the folder with {', '.join(SETS)}.")
    return folder


def rows(name: str) -> Iterator[dict[str, Any]]:
    for file in sorted((data_folder() / name).glob("*.jsonl.zst")):
        with file.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            for line in stream.read().splitlines():
                yield json.loads(line)


def texts(name: str) -> list[str]:
    return [row["text"] for row in rows(name)]


def write(name: str, results: Mapping[str, Any]) -> None:
    """Write results/NAME.json with its date, machine and versions."""
    libraries = {n: version(n) for n in ("datatrove", "daft", "ftfy", "py3langid", "numpy")}
    facts = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "versions": libraries}
    record = {"benchmark": name, **facts, "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def filters() -> dict[str, Any]:
    """datatrove's filters by our rules' names."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        c4_filters,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lambda text, language: _WORD.findall(text)
    c4_filters.split_into_sentences = lambda text, language: [""] * count_sentences(text)
    return {
        "gopher-quality": GopherQualityFilter(),
        "gopher-repetition": GopherRepetitionFilter(),
        "fineweb-quality": FineWebQualityFilter(),
        "c4": C4QualityFilter(),
    }
