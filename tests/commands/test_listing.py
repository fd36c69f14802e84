"""`demiglace tasks` and `demiglace methods`."""

import pytest
import yaml

from demiglace.commands.list import methods, tasks
from demiglace.config.options import options_of
from demiglace.data.rows.named_task_table import TASKS
from demiglace.errors import ConfigError
from demiglace.methods.base import TrainingProgress
from demiglace.methods.from_yaml import compose
from demiglace.methods.registry import METHODS, build_method
from demiglace.methods.terms.layer_mapping import MatchedLayers, RandomSorted


def test_tasks_are_listed_in_full_width() -> None:
    out = str(tasks())
    for name, task in TASKS.items():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert task.title in line
        assert task.paper in line


@pytest.mark.parametrize("name", TASKS)
def test_one_task_in_full(name: str) -> None:
    out = str(tasks(name=name))
    assert TASKS[name].url in out
    assert TASKS[name].note in out
    assert all(label in out for label in TASKS[name].labels)


def test_methods_are_listed_with_their_papers() -> None:
    out = str(methods())
    for name, row in METHODS.items():
        assert name in out
        assert row.paper in out
        assert row.url in out


@pytest.mark.parametrize("name", METHODS)
def test_one_method_with_its_options(name: str) -> None:
    out = str(methods(name=name))
    assert METHODS[name].title in out
    for option in options_of(METHODS[name].options):
        line = next(line for line in out.splitlines() if line.split()[:1] == [option.name])
        assert option.help in line


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown task 'sst22'; did you mean 'sst2'"):
        tasks(name="sst22")
    with pytest.raises(ConfigError, match="unknown method 'rail-kd'; did you mean 'rail-kd-"):
        methods(name="rail-kd")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_shown_as_yaml_that_composes_it(name: str) -> None:
    shown = methods(name=["show", name]).text
    assert compose(yaml.safe_load(shown)) == build_method(name, {})


def test_the_layers_that_meet_are_shown() -> None:
    assert "#   1 ← 2, 2 ← 4\n" in str(methods(["show", "pkd"], student_layers=3, teacher_layers=6))
    out = str(methods(name=["show", "rail-kd-l"], seed=1))
    drawn = RandomSorted().teacher_layers_at(
        MatchedLayers((1, 2, 3, 4, 5), tuple(range(1, 12))), TrainingProgress(1, 1, 1)
    )
    assert f"#   epoch 2: {', '.join(f'{i} ← {t}' for i, t in enumerate(drawn, 1))}\n" in out


@pytest.mark.parametrize("names", [["show"], ["pkd", "alp-kd"], ["show", "pkd", "alp-kd"]])
def test_one_method_is_shown_at_a_time(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="name one method"):
        methods(name=names)
