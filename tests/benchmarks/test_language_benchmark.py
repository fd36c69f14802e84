"""The benchmark of language models at toy size; with TRL if .venv-peers exists."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
sys.path.append(str(BENCHMARKS))

import language  # noqa: E402
from language_measure import alone, pair, training  # noqa: E402
from language_sides import SIDES, Case  # noqa: E402

TOY = Case(**asdict(language.QUICK))
SEVERAL_CHUNKS = Case(vocabulary=50_257, width=8, block=64, rows=2, layers=2, student_layers=1, steps=2)


def test_plain_and_ours_are_the_same_loss_over_several_chunks():
    found = pair(SEVERAL_CHUNKS, 2)
    said = found["agreement"]
    assert said["our loss"] == pytest.approx(said["plain loss"], rel=1e-6)
    assert 0 < said["largest relative difference of a gradient"] < 1e-5
    assert len(found["plain"]) == len(found["ours"]) == 2


def test_our_loop_and_the_bare_one_learn_the_same():
    found = training(TOY, 2)
    assert found["losses"]["ours"] == pytest.approx(found["losses"]["bare"], rel=1e-6)
    assert len(found["ours"]) == len(found["bare"]) == 2


@pytest.mark.parametrize("name", SIDES)
def test_a_side_is_measured_without_its_first_step(name):
    found = alone(TOY, name, 2)
    assert len(found["seconds"]) == 2
    assert found["resting MiB"] > 0
    assert found["peak MiB"] >= 0


def shown(what: str, shape: language.Shape, number: int) -> dict:
    """Records of known numbers: each side's peak and CPU-seconds."""
    if what == "pair":
        return {"agreement": {}, "plain": [2.0, 4.0, 6.0], "ours": [1.0, 2.0, 3.0]}
    peaks = {"plain": 1000.0, "ours": 300.0, "ours, KL alone": 280.0, "no loss": 200.0, "TRL GKD": 1400.0}
    seconds = {"plain": 4.0, "ours, KL alone": 2.0, "TRL GKD": 5.0}.get(what, 1.0)
    return {"resting MiB": 400.0, "peak MiB": peaks[what], "seconds": [seconds] * number}


def test_ratios(monkeypatch):
    monkeypatch.setattr(language, "_present", lambda side: True)
    found = language.distillation(TOY, 2, 3, language.SIDES, shown)
    middle = {name: row["median"] for name, row in found.items() if isinstance(row, dict) and "median" in row}
    assert middle == {
        "speed of ours over plain, paired steps": 2.0,
        "peak of ours over plain": 0.3,
        "speed of ours over plain, turns": 4.0,
        "MiB that the losses add to the models, plain": 800.0,
        "MiB that the losses add to the models, ours": 100.0,
        "peak of ours over TRL GKD, KL alone": 0.2,
        "speed of ours over TRL GKD, KL alone": 2.5,
    }
    assert found["sides"]["TRL GKD"]["tokens per CPU-second"]["median"] == pytest.approx(TOY.tokens / 5)


def test_a_side_that_is_not_there_is_left_out(monkeypatch):
    monkeypatch.setattr(language, "_present", lambda side: side != "TRL GKD")
    found = language.distillation(TOY, 1, 0, language.SIDES, shown)
    assert "TRL GKD" not in found["sides"]
    assert not any("TRL" in name or "paired" in name for name in found)


def test_training_counts_the_tokens_of_an_epoch():
    found = language.training(TOY, 1, lambda *_: {"ours": [2.0, 3.0], "bare": [1.0, 1.5], "losses": {}})
    assert found["speed of ours over bare"]["median"] == 0.5
    assert found["tokens per CPU-second"]["bare"]["q3"] > TOY.tokens * TOY.steps / 1.5


def test_quick_run_writes_no_results(monkeypatch, capsys):
    kinds = {"pair": pair, "training": training}

    def measure(what: str, shape: language.Shape, number: int) -> dict:
        case = Case(**asdict(shape))
        # in a process that has run other tests a step this small needs no new memory, and a ratio would be 0/0
        return kinds[what](case, number) if what in kinds else alone(case, what, number) | {"peak MiB": 1.0}

    written: list[Path] = []
    monkeypatch.setattr(language, "_in_process", lambda core: measure)
    monkeypatch.setattr(language, "_present", lambda side: side in SIDES)
    monkeypatch.setattr(language, "write_json", lambda file, record: written.append(file))
    monkeypatch.setattr(sys, "argv", ["language.py", "--quick", "--rounds", "1", "--pairs", "1"])
    language.main()
    printed = capsys.readouterr().out
    results = json.loads(printed[printed.index("{\n") :])
    assert results["distillation"][0]["sides"].keys() == SIDES.keys()
    assert results["training"][0]["speed of ours over bare"]["median"] > 0
    assert written == []


def test_a_measurement_that_fails_stops_the_benchmark(tmp_path, monkeypatch):
    (tmp_path / "language_measure.py").write_text("raise SystemExit('out of memory')")
    monkeypatch.setattr(language, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="pair failed:\nout of memory"):
        language._in_process(-1)("pair", TOY, 1)


def test_a_measurement_is_read_off_the_last_line(tmp_path, monkeypatch):
    (tmp_path / "language_measure.py").write_text("import sys\nprint('some words')\nprint('[3]')\n")
    monkeypatch.setattr(language, "HERE", tmp_path)
    assert language._in_process(-1)("pair", TOY, 1) == [3]


_WITH_TRL = """
import sys, torch
from language_measure import alone
from language_sides import Case
from trl.experimental.gkd import GKDTrainer
from demiglace.losses.divergences import forward_kl
own, other = torch.randn(2, 2, 5, 11, generator=torch.Generator().manual_seed(0)).unbind(0)
theirs = GKDTrainer.generalized_jsd_loss(own, other, labels=torch.ones(2, 5), beta=0.0)
torch.testing.assert_close(theirs, forward_kl(own.flatten(0, 1), other.flatten(0, 1), 1.0).mean())
print(len(alone(Case(503, 32, 16, 2, layers=4, student_layers=2, steps=2), "TRL GKD", 2)["seconds"]))
"""


@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="no .venv-peers; `make bench-language` makes it")
def test_trl_trains_on_the_same_loss():
    words = [str(PEERS_PYTHON), "-c", _WITH_TRL]
    done = subprocess.run(
        words, cwd=BENCHMARKS, env=language._environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "2"
