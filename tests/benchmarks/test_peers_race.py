"""The speed comparison with peers: its statistics, and one tiny round; with peers if .venv-peers exists."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
sys.path.append(str(PEERS))

import race  # noqa: E402
import stats  # noqa: E402
from contend import measured  # noqa: E402
from entry import entries  # noqa: E402
from material import Material, Race, padding, prepare  # noqa: E402
from meter import Meter  # noqa: E402
from race import QUICK  # noqa: E402

from demiglace.methods.registry import METHODS  # noqa: E402
from training_kit import random_examples  # noqa: E402


def record(speed: float, later: float = 1.0, memory: float = 100.0) -> dict[str, float]:
    return {
        stats.SPEED: speed,
        stats.UNSAVED: speed,
        stats.LATER: later,
        stats.LATER_UNSAVED: later,
        stats.MEMORY: memory,
    }


KINDS = {"rail-kd-l": "ours", "vanilla-kd": "ours", "slow": "peer", "fast": "peer", "wide": "peer", "alone": "bound"}


def rounds(ours: float, memory: float = 90.0) -> dict[str, list[dict[str, float]]]:
    """Three rounds; in each all contenders are equally slowed down by something else on the machine."""
    speeds = {"rail-kd-l": ours, "vanilla-kd": ours * 1.02, "slow": 1.0, "fast": 2.0, "wide": 0.5, "alone": ours * 1.3}
    found = {name: [record(s * noise, s * noise) for noise in (1.0, 0.5, 0.9)] for name, s in speeds.items()}
    found["rail-kd-l"] = [r | {stats.MEMORY: memory} for r in found["rail-kd-l"]]
    return found


def verdicts(found: list[stats.Target]) -> dict[str, str]:
    return {t.text: t.verdict for t in found}


def test_targets_pair_rounds_and_name_the_fastest_peers():
    found = stats.targets(rounds(ours=7.0), KINDS, ["wide"], bf16=False)
    shown = verdicts(found)
    assert shown["rail-kd-l: rows per CPU-second over those of the fastest peer (fast)"] == "reached"
    assert shown["rail-kd-l: rows per CPU-second over those of the fastest peer that pads to 128 (wide)"] == "reached"
    assert shown["rail-kd-l: rows per CPU-second from the second epoch on, over alone"] == "missed"
    first = found[0].row()
    assert (first["median"], first["q1"], first["q3"]) == (3.5, 3.5, 3.5)  # the noise is the round's, and falls out


@pytest.mark.parametrize(
    ("ours", "memory", "speed", "lean"),
    [
        (5.9, 101.0, "missed", "missed"),
        (
            6.0,
            100.0,
        )
        + ("reached",) * 2,
    ],
)
def test_targets_are_missed_just_below_and_reached_at_their_number(ours, memory, speed, lean):
    found = stats.targets(rounds(ours, memory), KINDS, ["wide"], bf16=False)
    assert found[0].verdict == speed
    assert next(t for t in found if "memory" in t.text).verdict == lean


def test_cost_over_vanilla_is_extra_time():
    found = stats.targets(rounds(ours=7.0), KINDS, [], bf16=False)
    cost = next(t for t in found if "above vanilla-kd" in t.text)
    assert cost.values == pytest.approx([0.02] * 3)
    assert cost.verdict == "reached"


def test_without_peers_only_our_own_targets_are_judged():
    alone = {name: r for name, r in rounds(7.0).items() if KINDS[name] in ("ours", "bound")}
    found = stats.targets(alone, KINDS, [], bf16=False)
    assert found and not any("peer" in t.text for t in found)
    assert stats.targets(alone, KINDS, [], bf16=True) == []


def test_meter_tells_saving_and_later_epochs_apart():
    meter = Meter(cpu=[10.0, 16.0, 20.0, 24.0], wall=[0.0, 7.0, 14.0, 28.0], capture=2.0, saving=3.0)
    found = meter.record(rows=70, epochs=3)
    assert found["rows_per_cpu_second"] == pytest.approx(15.0)
    assert found["rows_per_second"] == pytest.approx(7.5)
    assert found["later_rows_per_cpu_second"] == pytest.approx(17.5)
    assert found["later_rows_per_cpu_second_without_saving"] == pytest.approx(140 / 6)
    with pytest.raises(AssertionError, match="4 marks for 2 epochs"):
        meter.record(rows=70, epochs=2)


def test_padding_counts_tokens():
    examples = random_examples(40)
    share = padding(examples, Race("none", 8, rows=40, padded_rows=8, batch_size=1))
    assert share == {"random": 1.0, "like lengths": 1.0}
    share = padding(examples, Race("none", 8, rows=40, padded_rows=8, batch_size=40))
    expected = 40 * examples.lengths.max() / examples.lengths.sum()
    assert share == pytest.approx({"random": expected, "like lengths": expected})


@pytest.fixture(scope="module")
def quick(tmp_path_factory, data_dir) -> Path:
    """The material of the tiny race."""
    directory = tmp_path_factory.mktemp("quick")
    os.environ.setdefault("DEMIGLACE_DATA", str(data_dir))
    prepare(QUICK, directory)
    (directory / "race.json").write_text(json.dumps(asdict(QUICK)))
    return directory


def test_rows_have_the_lengths_of_the_task(quick):
    lengths = Material(QUICK, quick).examples(QUICK.rows).lengths
    assert len(lengths) == QUICK.rows
    assert 11 < lengths.mean() < 15  # SST-2's training rows: 13.3 tokens
    assert lengths.max() > 2 * lengths.mean()


@pytest.mark.parametrize("name", [e.name for e in entries(bf16=False) if e.module in ("ours", "plain")])
def test_contenders_that_need_no_peer(quick, name):
    found = measured(quick / "race.json", name)
    assert found["rows"] == (QUICK.padded_rows if name.endswith("padded") else QUICK.rows)
    assert all(np.isfinite(value) and value >= 0 for value in found.values())
    assert (found["saving_cpu_seconds"] > 0) == (found["capture_cpu_seconds"] > 0) == (name in METHODS)


def test_race_goes_on_where_it_was_cut_off(tmp_path, data_dir, monkeypatch, capsys):
    words = ["--quick", "--rounds", "1", "--output", str(tmp_path), "--only", "student alone"]
    monkeypatch.setattr(sys, "argv", ["race.py", *words])
    monkeypatch.setattr(race, "_ROOMS", ())  # code that is edited during the test would restart the race
    race.main()
    assert "student alone, like lengths" in capsys.readouterr().out
    (turn,) = tmp_path.glob("sst2_4x64-*/round-0/*.json")
    turn.write_text(json.dumps(json.loads(turn.read_text()) | {"rows_per_cpu_second": 12345.0}))
    race.main()
    assert "12345.00" in capsys.readouterr().out


@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="no .venv-peers; `make bench-peers` makes it")
def test_peers_train(quick):
    code = "import contend, pathlib, sys; print([contend.measured(pathlib.Path(sys.argv[1]), n) for n in sys.argv[2:]])"
    names = [e.name for e in entries(bf16=False) if e.kind == "peer" and e.padding is None]
    words = [str(PEERS_PYTHON), "-c", code, str(quick / "race.json"), *names]
    done = subprocess.run(words, cwd=PEERS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].count("'rows_per_cpu_second'") == len(names) == 5
