"""Options: declared once, read from Python, YAML and flags, refused with a reason, and printed to be read back."""

import inspect
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import demiglace
from demiglace.cli import COMMANDS, config_class_of
from demiglace.config.arguments import parse
from demiglace.config.data import DataConfig
from demiglace.config.options import Option, build, command, flatten, group, option, options_of, print_yaml, read_yaml
from demiglace.errors import ConfigError
from demiglace.tasks.registry import row_tasks


@dataclass(frozen=True)
class Inner:
    """A group."""

    lr: float = option("learning rate", 1e-4, above=0)
    dropout: float | None = option("dropout", 0.0, at_least=0, below=1)
    track: tuple[str, ...] | None = option("trackers", None, decides=False)


@dataclass(frozen=True)
class Outer:
    """A command with an option of each kind."""

    model: str = option("model", positional=True)
    output: Path = option("run directory", short="-o", decides=False)
    epochs: int = option("epochs", 3, at_least=1)
    keep: tuple[int, ...] | None = option("layers", None, at_least=0)
    mode: Literal["none", "int8"] = option("how", "none")
    label: str | None = option("label column", None)
    fast: bool = option("be fast", False)
    extra: dict[str, Any] = option("anything", {})
    labels: dict[str, str | list[str] | None] = option("label names", {})
    inner: Inner = group(Inner)


GIVEN = {"model": "m", "output": "out"}


def made(**values: Any) -> Outer:
    return build(Outer, GIVEN | values)


def written(config: Any, capsys) -> str:
    print_yaml(config)
    return capsys.readouterr().out


# --- building and types ---


def test_defaults_groups_and_conversions():
    config = made(lr="1e-3", keep=[0, "2"], dropout=None)
    assert config == Outer("m", Path("out"), keep=(0, 2), inner=Inner(lr=0.001, dropout=None))
    assert options_of(Outer)[0].name == "model"
    assert made(extra={"tau": "1e-3", "name": "epoch", "on": True}).extra == {"tau": 1e-3, "name": "epoch", "on": True}
    assert made(labels={0: 1, "no": ("a", 2), "x": None}).labels == {"0": "1", "no": ["a", "2"], "x": None}
    assert made(model=Path("a/b"), label="3").model == "a/b"
    assert made(label="3").label == "3"


def test_a_single_value_is_a_list_of_one():
    assert made(track="tensorboard", keep=1).inner.track == ("tensorboard",)


def test_defaults_that_can_change_are_not_shared():
    made().extra["x"] = 1
    assert made().extra == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": "many"}, "--epochs was given 'many'; expected a whole number, at least 1 (epochs)."),
        ({"epochs": 2.5}, "--epochs was given 2.5; expected a whole number"),
        ({"epochs": True}, "--epochs was given True; expected a whole number"),
        ({"epochs": None}, "--epochs was given None; expected a whole number"),
        ({"epochs": 0}, "--epochs was given 0; expected a whole number, at least 1"),
        ({"lr": -1e-4}, "--lr was given -0.0001; expected a number, above 0"),
        ({"lr": float("nan")}, "--lr was given nan; expected a number, above 0"),
        ({"lr": float("inf")}, "--lr was given inf; expected a number"),
        ({"dropout": 1.0}, "--dropout was given 1.0; expected a number, at least 0 and below 1"),
        ({"keep": [0, -1]}, "--keep was given [0, -1]; expected a list of whole numbers, at least 0"),
        ({"keep": ["x"]}, "--keep was given ['x']; expected a list of whole numbers"),
        ({"mode": "int4"}, "--mode was given 'int4'; expected one of none, int8"),
        ({"mode": None}, "--mode was given None; expected one of none, int8"),
        ({"label": 3.5}, "--label was given 3.5; expected a text (label column)."),
        ({"labels": {"yes": False}}, "--labels was given {'yes': False}; expected a mapping"),
        ({"extra": {False: 1}}, "--extra was given {False: 1}; expected a mapping"),
        ({"extra": [1]}, "--extra was given [1]; expected a mapping of names to values"),
        ({"fast": "maybe"}, "--fast was given 'maybe'; expected true or false"),
        ({"epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_wrong_values_name_the_flag_what_was_given_and_what_was_expected(values, message):
    with pytest.raises(ConfigError) as caught:
        made(**values)
    assert message in str(caught.value)


def test_all_missing_options_are_named_at_once():
    with pytest.raises(ConfigError, match=r"^MODEL, --output must be given\.$"):
        build(Outer, {"epochs": 1})
    with pytest.raises(ConfigError, match="RUNS must be given"):
        build(config_class_of("report"), {"runs": []})


def test_flatten_and_what_decides():
    assert flatten(made(keep=[1]))["keep"] == [1]
    deciding = flatten(made(), result_options_only=True)
    assert "lr" in deciding
    assert deciding.keys().isdisjoint({"output", "track"})


# --- YAML ---


def test_yaml_keys_are_texts_as_they_stand(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("max-rows: 3\nbatch_size: 1e-3  # a comment\n")
    assert read_yaml(file) == {"max-rows": 3, "batch_size": "1e-3"}
    file.write_text("# nothing but defaults\n")
    assert read_yaml(file) == {}


ALIASES = "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a0: &a0 [x]\n" + ALIASES, "its aliases repeat more than 200,000 values"),
        ("a: &a [*a]", "an alias repeats the value that it is in"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper than 40 levels"),
        ("a: " + "[" * 100_000, "nested deeper than 40 levels"),
        ("a: 1\n" * 100_001, "a config has at most 500,000"),
    ],
)
def test_yaml_that_describes_more_than_a_config_is_refused(tmp_path, content, why):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=why):
        read_yaml(tmp_path / "c.yaml")


def test_an_alias_repeats_its_value(tmp_path):
    (tmp_path / "c.yaml").write_text("one: &one {a: [1, 2]}\ntwo: *one\n")
    assert read_yaml(tmp_path / "c.yaml") == {"one": {"a": [1, 2]}, "two": {"a": [1, 2]}}


def test_a_path_that_cannot_exist_is_refused():
    with pytest.raises(ConfigError, match="could not be read"):
        read_yaml("a\0b.yaml")


@pytest.mark.parametrize("content", [b"- a\n- b", b"a: [", b"\xff\xfea", b"!!python/object/apply:os.getcwd []"])
def test_yaml_that_is_no_config_is_refused(tmp_path, content):
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_yaml(file)
    with pytest.raises(ConfigError, match="could not be read"):
        read_yaml(tmp_path / "absent.yaml")


def text(letters: str = "ab3 .-_:#'\"[]{}é,") -> st.SearchStrategy[str]:
    return st.text(letters, min_size=1, max_size=8)


def numbers_of(o: Option, kind: type) -> st.SearchStrategy[Any]:
    low = o.at_least if o.at_least is not None else o.above
    if kind is int:
        return st.integers(min_value=None if low is None else int(low), max_value=10**6)
    return st.floats(
        min_value=low,
        max_value=o.below if o.below is not None else o.at_most,
        exclude_min=o.above is not None,
        exclude_max=o.below is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def values_of(o: Option, kind: Any) -> st.SearchStrategy[Any]:
    if o.optional and kind == o.type:
        return st.one_of(*(st.none() if k is type(None) else values_of(o, k) for k in get_args(kind)))
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        items = st.lists(values_of(o, get_args(kind)[0]), min_size=1, max_size=3)
        return items.map(tuple)
    if get_origin(kind) is dict:
        labels = st.one_of(text(), st.none(), st.lists(text(), max_size=2))
        inner = st.one_of(st.integers(), st.booleans(), st.floats(0, 1)) if get_args(kind)[1] is Any else labels
        return st.dictionaries(text(), inner, max_size=2)
    if kind in (int, float):
        return numbers_of(o, kind)
    return st.booleans() if kind is bool else text("ab3.-_é").map(kind)


def option_values(options: Sequence[Option]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({o.name: values_of(o, o.type) for o in options})


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_printed_config_is_read_back_as_the_same(name, data, tmp_path, capsys):
    config_class = config_class_of(name)
    options = options_of(config_class)
    config = build(config_class, data.draw(option_values(options)))
    capsys.readouterr()
    file = tmp_path / "printed.yaml"
    file.write_text(written(config, capsys), encoding="utf-8")
    assert build(config_class, parse(["--config", str(file)], options)) == config


# --- every command ---


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_unique_and_explained(name):
    options = options_of(config_class_of(name))
    flags = [o.flag for o in options] + [o.short for o in options if o.short]
    assert len(set(flags)) == len(flags)
    assert all(o.help for o in options)
    assert all(o.required or o.default is None or o.accepts(o.default) for o in options)


def test_an_option_twice_is_our_own_mistake():
    @dataclass(frozen=True)
    class Twice:
        lr: float = option("one", 0.1)
        inner: Inner = group(Inner)

    with pytest.raises(AssertionError, match="twice"):
        options_of(Twice)


# --- the call from Python ---


@command(Outer)
def stage(config: Outer) -> Path:
    """Return what it was given."""
    return config.output / str(config.epochs)


def test_a_stage_takes_options_or_a_config():
    assert stage(model="m", output="out", epochs=2) == Path("out/2")
    assert stage(Outer("m", Path("out"))) == Path("out/3")
    assert stage("m", output="out") == stage(model="m", output=Path("out")) == Path("out/3")
    assert stage.__doc__ == "Return what it was given."


def test_a_stage_shows_its_options():
    signature = inspect.signature(stage)
    assert list(signature.parameters)[:2] == ["model", "output"]
    assert signature.parameters["epochs"].default == 3
    assert signature.parameters["output"].default is inspect.Parameter.empty
    assert signature.parameters["lr"].annotation is float
    assert signature.return_annotation is Path


def test_a_stage_refuses_what_is_no_config_of_its_own():
    for call in (lambda: stage(3), lambda: stage(Inner()), lambda: stage(made(), epochs=2)):
        with pytest.raises(ConfigError, match=r"stage\(\) takes its options as keyword arguments, or one Outer"):
            call()
    with pytest.raises(ConfigError, match="model was given twice"):
        stage("m", model="m", output="out")
    with pytest.raises(ConfigError, match=r"--label was given an object of the type types\.SimpleNamespace; expected"):
        stage("m", output="out", label=types.SimpleNamespace(rows=range(9)))
    with pytest.raises(ConfigError, match="--epochs was given 0"):
        stage(replace(made(), epochs=0))
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        stage(model="m", output="out", epoch=2)


def test_the_package_offers_every_command():
    assert {name.replace("-", "_") for name in COMMANDS} <= set(dir(demiglace))
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        demiglace.distil  # noqa: B018


def test_a_room_does_not_hide_the_function_of_its_name():
    """`demiglace.report` stays what `__getattr__` gives, after the room `demiglace.report` was imported."""
    code = """
import sys, types, demiglace, demiglace.report, demiglace.export, demiglace.methods
stages = types.ModuleType("demiglace.commands.report")
stages.report = lambda: "the stage"
sys.modules["demiglace.commands.report"] = stages
assert demiglace.report() == "the stage"
from demiglace import report
assert report() == "the stage"
import demiglace.data
assert isinstance(demiglace.data, types.ModuleType)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_help_of_problem_lists_every_kind_of_rows() -> None:
    (problem,) = [o for o in options_of(DataConfig) if o.name == "problem"]  # written out: kinds import NumPy
    assert [name for name in row_tasks() if not re.search(rf"(?<![\w-]){name}(?![\w-])", problem.help)] == []
