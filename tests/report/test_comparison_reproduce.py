"""How to make a comparison again: the commands on its page."""

from pathlib import Path

from comparison_kit import one_task
from report_runs import _CONFIGS

from demiglace.config.options import options_of
from demiglace.report.commands import PortablePaths
from demiglace.report.comparison.reproduce import compare_command, step_commands
from demiglace.results.load import read_comparison
from demiglace.runs.files import write_json


def test_the_command_has_the_options_that_were_given(tmp_path: Path) -> None:
    given = {"search": "optuna", "no_baselines": True, "data_dir": "/my data"}
    home = one_task(tmp_path, seeds=1, given=given)
    wanted = f"demiglace compare GRID.yaml -o {home.name} --search optuna --no-baselines --data-dir 'PATH/TO/my data'"
    assert compare_command(read_comparison(home, "t")) == wanted


def test_each_step_has_a_line_after_those_that_it_needs(tmp_path: Path) -> None:
    home = one_task(tmp_path, seeds=2, right={"none": 0.7, "pkd": 0.8}, given={"data_dir": "/data"})
    (home / "sst2/half/pkd/search").mkdir()
    write_json(home / "sst2/half/pkd/search/best.json", {"options": {"lr": 0.001}, "trials": 8, "trial": 3})
    options = {kind: options_of(config) for kind, config in _CONFIGS.items()}
    lines = step_commands(read_comparison(home, "t"), options)
    assert lines[0] == f"# {home.name}/sst2/half/pkd/search: the best of 8 trials: lr 0.001"
    made = [line.split(" -o ")[1].removeprefix(f"{home.name}/sst2/") for line in lines[1:]]
    runs = [f"half/{method}/seed-{seed}" for method in ("none", "pkd") for seed in (0, 1)]
    after = {run: ("", ".evaluation", ".export") if run.endswith("0") else ("", ".evaluation") for run in runs}
    assert made[:4] == ["teacher", "teacher.evaluation", "teacher.export", "half/start"]
    assert made[4:] == [f"{run}{ending}" for run in runs for ending in after[run]]
    assert [line.split()[1] for line in lines[1:6]] == ["finetune", "evaluate", "export", "truncate", "distill"]
    assert "--data-dir PATH/TO/data" in lines[1] and "--data-dir" not in lines[4]


def test_no_command_has_a_path_of_this_machine(tmp_path: Path) -> None:
    home = one_task(tmp_path, seeds=2, given={"data_dir": "/somewhere/else"})
    options = {kind: options_of(config) for kind, config in _CONFIGS.items()}
    found = read_comparison(home, "t")
    text = "\n".join([compare_command(found), *step_commands(found, options)])
    assert str(tmp_path) not in text and "/somewhere" not in text
    assert "--teacher c/sst2/teacher" in text and "-o c/sst2/half/none/seed-0" in text


def test_paths_typed_elsewhere_are_matched_by_their_end(tmp_path: Path) -> None:
    (tmp_path / "runs" / "c" / "sst2" / "teacher").mkdir(parents=True)
    portable = PortablePaths.around([tmp_path / "runs" / "c"])
    assert portable(str(tmp_path / "runs" / "c" / "new")) == "c/new"
    assert portable("work/runs/c/sst2/teacher") == "c/sst2/teacher"
    assert portable("/old/machine/c/sst2/teacher") == "c/sst2/teacher"
    assert portable("/old/data/train.csv") == "PATH/TO/train.csv"
    assert [portable(text) for text in ("org/base", "banking77", "0.1", "")] == ["org/base", "banking77", "0.1", ""]
    assert portable.everywhere({"a": ["/x/y", 1, None]}) == {"a": ["PATH/TO/y", 1, None]}
