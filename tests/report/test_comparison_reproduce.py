"""How to make a comparison again: the commands on its page."""

from pathlib import Path

from comparison_kit import one_task
from report_runs import _CONFIGS

from demiglace.config.options import options_of
from demiglace.report.comparison.reproduce import compare_command, step_commands
from demiglace.results.load import read_comparison
from demiglace.runs.files import write_json


def test_the_command_has_the_options_that_were_given(tmp_path: Path) -> None:
    given = {"search": "optuna", "no_controls": True, "data_dir": "/my data"}
    home = one_task(tmp_path, seeds=1, given=given)
    wanted = f"demiglace compare GRID.yaml -o {home} --search optuna --no-controls --data-dir '/my data'"
    assert compare_command(read_comparison(home, "t")) == wanted


def test_each_step_has_a_line_after_those_that_it_needs(tmp_path: Path) -> None:
    home = one_task(tmp_path, seeds=2, right={"none": 0.7, "pkd": 0.8}, given={"data_dir": "/data"})
    (home / "sst2/half/pkd/search").mkdir()
    write_json(home / "sst2/half/pkd/search/best.json", {"options": {"lr": 0.001}, "trials": 8, "trial": 3})
    options = {kind: options_of(config) for kind, config in _CONFIGS.items()}
    lines = step_commands(read_comparison(home, "t"), options)
    assert lines[0] == f"# {home}/sst2/half/pkd/search: the best of 8 trials: lr 0.001"
    made = [line.split(" -o ")[1].removeprefix(f"{home}/sst2/") for line in lines[1:]]
    runs = [f"half/{method}/seed-{seed}" for method in ("none", "pkd") for seed in (0, 1)]
    after = {run: ("", ".evaluation", ".export") if run.endswith("0") else ("", ".evaluation") for run in runs}
    assert made[:4] == ["teacher", "teacher.evaluation", "teacher.export", "half/start"]
    assert made[4:] == [f"{run}{ending}" for run in runs for ending in after[run]]
    assert [line.split()[1] for line in lines[1:6]] == ["finetune", "evaluate", "export", "truncate", "distill"]
    assert "--data-dir /data" in lines[1] and "--data-dir" not in lines[4]
