"""Decisions against those of datatrove with the same word splitting; benchmarks/cleaning/oracle.py uses all texts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import zstandard

from demiglace.cleaning.registry import RULES
from demiglace.cleaning.rules.c4 import count_sentences
from demiglace.cleaning.rules.pii import EMAIL, IP, mask

WORD = re.compile(r"\w+|[^\w\s]")


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    filters = pytest.importorskip("datatrove.pipeline.filters", reason="datatrove is not installed")
    for name in ("fineweb_quality_filter", "gopher_quality_filter", "gopher_repetition_filter"):
        getattr(filters, name).split_into_words = lambda text, language: WORD.findall(text)
    filters.c4_filters.split_into_sentences = lambda text, language: [""] * count_sentences(text)
    return {
        "gopher-quality": filters.GopherQualityFilter(),
        "gopher-repetition": filters.GopherRepetitionFilter(),
        "fineweb-quality": filters.FineWebQualityFilter(),
        "c4": filters.C4QualityFilter(),
    }


@pytest.fixture(scope="module")
def documents(data_dir: Path) -> list[str]:
    found = []
    for name in ("noisy_web", "c4_sample", "docs_raw"):
        with (data_dir / name / "train.jsonl.zst").open("rb") as packed:
            lines = zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines()
        found += [json.loads(line)["text"] for line in lines[::25]]
    return found


@pytest.mark.parametrize("name", ["gopher-quality", "gopher-repetition", "fineweb-quality", "c4"])
def test_decisions_are_datatroves(name: str, oracle: dict[str, Any], documents: list[str]) -> None:
    from datatrove.data import Document

    result = RULES[name]()(documents)  # type: ignore[operator]
    kept = 0
    for text, new, keep in zip(documents, result.texts, result.keep, strict=True):
        document = Document(text=text, id="")
        assert (oracle[name].filter(document) is True) == bool(keep), text[:200]
        if keep:
            assert document.text == new
            kept += 1
    assert 0 < kept < len(documents)


def test_addresses_are_masked_as_by_datatrove(documents: list[str]) -> None:
    formatters = pytest.importorskip("datatrove.pipeline.formatters", reason="datatrove is not installed")
    theirs = formatters.PIIFormatter(email_replacement=EMAIL, ip_replacement=IP)
    planted = ["Ask a.b+c@mail.example.co.uk.", "x@y z@w.org", "8.8.8.8, 10.0.0.1 and 1.1.1.1:80", "..q@r.st @ u"]
    found = [mask(text) for text in documents + planted]
    # not so on purpose: 1.8.8.8.8 is no address to us
    chains = re.compile(r"(?:\d+\.){4}\d+")
    for text, (masked, *_) in zip(documents + planted, found, strict=True):
        assert masked == theirs.format(text) or chains.search(text), text[:200]
    assert sum(emails for _, emails, _ in found) > 5
    assert sum(addresses for *_, addresses in found) >= 2
