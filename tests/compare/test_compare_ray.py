"""The same grid over a cluster: the same weights, and a failure told in the same way."""

import pytest
from compare_kit import compare, results, weights_of

from demiglace.compare import ray_engine
from demiglace.errors import ConfigError

pytest.importorskip("ray")


def test_a_cluster_gives_the_same_weights_and_tells_of_failures(content, tmp_path, capsys):
    methods = content["methods"] | {"bad": {"method": "vanilla-kd", "metric": "f2"}}
    here, there = tmp_path / "here", tmp_path / "there"
    assert compare(content | {"methods": methods, "seeds": [0]}, here) == 2
    told = capsys.readouterr().err.split("run failed")[1].replace(str(here), "HOME")
    assert compare(content | {"methods": methods, "seeds": [0]}, there, engine="ray") == 2
    assert capsys.readouterr().err.split("run failed")[1].replace(str(there), "HOME") == told
    assert weights_of(here) == weights_of(there)
    assert [r["status"] for r in results(there)] == ["done", "done", "failed"]
    assert (there / "failed/mood/half/bad/seed-0.txt").exists()


def test_a_cluster_that_is_not_there(content, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "_POLL_SECONDS", 0.1)
    with pytest.raises(ConfigError, match="no Ray cluster answers there"):
        ray_engine._connect("auto", 1)
