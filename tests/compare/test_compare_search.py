"""The search: the same trials for all methods, on rows that are not reported on, resumed after an interrupt."""

import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from command_kit import in_child, strike
from compare_kit import QUICK, compare, grid_of, line_of, made, results

from demiglace.runs.directory import open_run, read_manifest
from demiglace.runs.files import read_json

pytest.importorskip("optuna")

from demiglace.compare import search

RANGES = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "method_options.temperature": [1, 5]}


@pytest.fixture
def searched(content):
    return content | {"search": {"trials": 3, "ranges": RANGES}, "seeds": [0]}


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """An undisturbed search."""
    home = tmp_path_factory.mktemp("search") / "runs"
    assert (
        compare(grid_of(place) | {"search": {"trials": 3, "ranges": RANGES}, "seeds": [0]}, home, search="optuna") == 0
    )
    return home


def trials_of(home, method):
    return sorted((home / "mood/half" / method / "search").glob("trial-*"))


def test_every_method_gets_its_trials_and_the_grid_its_best_options(searched, whole):
    home = whole
    for record in results(home):
        method = record["method"]
        best = read_json(home / "mood/half" / method / "search/best.json")
        found = [read_manifest(t) for t in trials_of(home, method)]
        assert len(found) == 3
        assert best["value"] == max(m["metrics"]["validation"]["accuracy"] for m in found)
        assert all(m["rows"].keys() == {"train", "validation"} and m["config"]["holdout_from_train"] for m in found)
        assert [t.name for t in trials_of(home, method) if (t / "model").exists()] == [f"trial-{best['trial']}"]
        config = read_manifest(home / record["run"])["config"]
        assert config["learning_rate"] == best["options"]["learning_rate"] and not config["holdout_from_train"]
        assert config["method_options"] == ({"temperature": best["options"]["method_options.temperature"]}
                                            if method == "vanilla-kd" else {})  # fmt: skip
    before = made(home)
    assert compare(searched, home, search="optuna") == 0
    assert made(home) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("name", "at", "after"), [("distill", 2, False), ("distill", 2, True), ("_finish", 1, False)])
def test_a_killed_search_is_the_same_search(name, at, after, searched, whole, tmp_path):
    cut = tmp_path / "cut"
    kill = lambda: strike(search, name, at, after=after)  # noqa: E731
    assert in_child(line_of(searched, cut, search="optuna"), kill) == -signal.SIGKILL
    assert compare(searched, cut, search="optuna") == 0
    for method in ("none", "vanilla-kd"):
        one, other = (read_json(home / "mood/half" / method / "search/best.json") for home in (whole, cut))
        assert one == other
        assert len(trials_of(cut, method)) == 3


def test_a_search_says_how_sure_its_choice_is(searched, whole):
    for method in ("none", "vanilla-kd"):
        home = whole / "mood/half" / method / "search"
        best = read_json(home / "best.json")
        second = best["runner_up"]
        one, other = (read_manifest(home / f"trial-{n}") for n in (best["trial"], second["trial"]))
        scores = [m["metrics"]["validation"]["accuracy"] for m in (one, other)]
        assert second["difference"] == scores[0] - scores[1] >= 0
        assert second["rows"] == one["rows"]["validation"]
        # of paired rows: the deviation of the rows' differences, over the root of their number
        hits = [np.equal(*np.load(home / f"predictions-trial-{t['trial']}.npy")) for t in (best, second)]
        assert [h.mean() for h in hits] == scores
        deviation = np.std(np.subtract(*hits, dtype=float)) / second["rows"] ** 0.5
        assert second["standard_error"] == pytest.approx(deviation, rel=0.1)
        shown = (whole / f"logs/mood/half/{method}/search.log").read_text()
        assert "above the runner-up" in shown and f"{second['standard_error']:.4f}" in shown


def test_trials_of_an_earlier_version_are_not_mixed_with_these(searched, tmp_path, capsys):
    home = tmp_path / "runs"
    open_run(home, "compare", {}, {}, shared=True)
    (home / "mood/half/none/search").mkdir(parents=True)
    study = search._open(search.require_optuna(), SimpleNamespace(key="mood/half/none/search"), home)
    study.add_trial(search.require_optuna().trial.create_trial(value=0.5))
    assert compare(searched, home, search="optuna") == 2
    assert "was begun by an earlier version" in capsys.readouterr().err


def test_each_search_has_a_database_of_its_own(whole):
    """Processes on several machines begin searches at once, and the disk that they share may lock no SQLite file."""
    searches = [whole / "mood/half" / method / "search" for method in ("none", "vanilla-kd")]
    assert sorted(whole.rglob("search.db")) == sorted(home / "search.db" for home in searches)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"search": {"trials": 3, "ranges": RANGES | {"learning_rate": [1e-3, 2e-3]}}},
            "none/search holds another search",
        ),
        ({"search": {"trials": 2, "ranges": RANGES}}, "trials: 3 there, 2 now"),
        ({"defaults": QUICK | {"weight_decay": 0.1}}, "weight_decay: 0.01 there, 0.1 now"),
        (
            {"search": {"trials": 4, "ranges": RANGES}},
            "used the best options of 3 trials, and mood/half/none/search now has 4",
        ),
    ],
)
def test_another_search_is_refused_before_anything_runs(sections, message, searched, whole, capsys):
    before = made(whole)
    methods = {**searched["methods"], "pkd": {}}
    assert compare(searched | {"methods": methods} | sections, whole, search="optuna") == 2
    shown = capsys.readouterr().err
    assert message in shown and "another --output" in shown
    assert made(whole) == before and not (whole / "mood/half/pkd").exists()


def test_trials_can_grow_once_no_run_has_the_best_of_fewer(content, tmp_path):
    home, grid = tmp_path / "runs", content | {"methods": {"none": {}}, "baselines": False, "seeds": [0]}
    few, more = (grid | {"search": {"trials": n, "ranges": {"learning_rate": RANGES["learning_rate"]}}} for n in (1, 2))
    assert compare(few, home, search="optuna") == 0
    assert compare(more, home, search="optuna") == 2
    for run in (home / "mood/half/none").glob("seed-0*"):
        shutil.rmtree(run)
    first = made(home)
    assert compare(more, home, search="optuna") == 0
    assert len(trials_of(home, "none")) == 2 and first.items() <= made(home).items()
    assert compare(few, home, search="optuna") == 2


def test_trials_that_fail_count_and_none_left_is_an_error(searched, tmp_path, capsys):
    bad = searched | {"defaults": searched["defaults"] | {"metric": "f2"}}
    assert compare(bad, tmp_path / "runs", search="optuna") == 2
    shown = capsys.readouterr().err
    assert "all 3 trials of mood/half/none/search failed" in shown and "unknown metric" in shown


def test_a_trial_that_fits_no_memory_counts_and_the_search_goes_on(searched, tmp_path, monkeypatch):
    real, made = search.distill, []

    def distill(**options):
        made.append(options["output"])
        if options["output"].endswith("none/search/trial-1"):
            raise RuntimeError("not enough memory")
        return real(**options)

    monkeypatch.setattr(search, "distill", distill)
    assert compare(searched, tmp_path / "runs", search="optuna") == 0
    assert len(made) == 6 and len(set(made)) == 6
    assert read_json(tmp_path / "runs/mood/half/none/search/best.json")["trial"] != 1


def test_a_search_needs_its_section(content, tmp_path, capsys):
    assert compare(content, tmp_path / "runs", search="optuna") == 2
    assert "has no section `search`" in capsys.readouterr().err


def test_an_option_that_a_method_gives_itself_is_said_to_be_searched_for(searched, tmp_path, capsys):
    methods = {**searched["methods"], "vanilla-kd": {"method_options": {"temperature": 2}}}
    assert compare(searched | {"methods": methods}, tmp_path / "runs", search="optuna", dry_run=True) == 0
    assert "vanilla-kd: its value of method_options.temperature is ignored; the search chooses one" in " ".join(
        capsys.readouterr().err.split()
    )
