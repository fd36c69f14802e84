"""Methods from outside of demiglace: Method objects given from Python, and entry points of installed packages."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

import demiglace
from demiglace.cli import main
from demiglace.compare.grid import parse_grid
from demiglace.compare.grid_cells import has_option
from demiglace.config.command_options import DistillConfig
from demiglace.config.options import option
from demiglace.errors import ConfigError, RunError
from demiglace.methods import names
from demiglace.methods.base import Method, Term, WeightedTerm
from demiglace.methods.describe import card, show_method
from demiglace.methods.from_yaml import compose, describe_method
from demiglace.methods.registry import (
    METHODS,
    MethodInfo,
    MethodObject,
    build_method,
    find_method,
    fingerprint_method,
    method_names,
    method_value,
)
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.vanilla_kd import VanillaKD
from demiglace.runs.directory import read_manifest
from factories import save_tiny

QUICK = {"epochs": 1, "batch_size": 8, "lr": 2e-3, "checkpoint_seconds": 0, "layers": 1}


@dataclass(frozen=True)
class Louder(TaskLoss):
    """The supervised loss with an option that demiglace does not know."""

    factor: Any = 1.0


@dataclass(frozen=True)
class LouderKD:
    """Louder labels.

    More about it.
    """

    weight: float = option("weight of the supervised loss", 0.5, at_least=0)

    def method(self) -> Method:
        """Return two terms."""
        return Method((WeightedTerm(self.weight, Louder()), WeightedTerm(0.5, LogitDistillation(2.0))))


@dataclass(frozen=True)
class Plain:
    """Options that are not declared by `option`."""

    weight: float = 1.0

    def method(self) -> Method:
        """Return a term."""
        return Method((WeightedTerm(self.weight, TaskLoss()),))


INFO = MethodInfo("other", LouderKD, "louder", "Doe 2026", "https://example.org/paper")
BROKEN = "no_such_module_here:X"

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Declare entry points NAME=OBJECT of the methods' group."""

    def declare(*points: tuple[str, str]) -> None:
        made = [EntryPoint(name, value, names.ENTRY_POINTS) for name, value in points]

        def entry_points(*, group: str) -> list[EntryPoint]:
            return [point for point in made if point.group == group]

        monkeypatch.setattr(names, "entry_points", entry_points)

    return declare


def method(weight: float = 0.5, factor: Any = 1.0) -> Method:
    return Method((WeightedTerm(weight, Louder(factor)), WeightedTerm(0.5, LogitDistillation(2.0))))


# entry points


def test_an_entry_point_names_a_class_of_options(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(("louder", f"{__name__}:LouderKD"))
    assert method_names() == [*METHODS, "louder"]
    row = find_method("louder")
    assert (row.name, row.options, row.title) == ("louder", LouderKD, "Louder labels")
    assert build_method("louder", {"weight": "0.25"}).terms[0].weight == 0.25
    with pytest.raises(ConfigError, match="method louder: unknown option 'wight'; did you mean 'weight'"):
        build_method("louder", {"wight": 1})
    assert main(["methods"]) == main(["methods", "louder"]) == 0
    assert "Louder labels" in capsys.readouterr().out


def test_an_entry_point_names_a_row(install: Install) -> None:
    install(("louder", f"{__name__}:INFO"))
    assert find_method("louder") == replace(INFO, name="louder")
    assert "Doe 2026" in card(find_method("louder"))


def test_the_names_of_methods_load_no_package(install: Install) -> None:
    install(("louder", BROKEN))
    assert method_names()[-1] == "louder"
    assert build_method("pkd", {}) == METHODS["pkd"].options().method()


def test_an_entry_point_cannot_replace_a_built_in_method(install: Install) -> None:
    install(("pkd", f"{__name__}:LouderKD"))
    assert find_method("pkd") is METHODS["pkd"]
    assert method_names() == [*METHODS]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (BROKEN, "ModuleNotFoundError"),
        (f"{__name__}:QUICK", "neither a MethodInfo nor a frozen dataclass"),
        (f"{__name__}:Louder", "neither a MethodInfo nor a frozen dataclass"),
        (f"{__name__}:Plain", "declare weight of Plain by option"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(
    value: str, words: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(("louder", value))
    with pytest.raises(ConfigError, match=rf"method louder of the package .* cannot be used: .*{words}"):
        find_method("louder")
    assert main(["methods"]) == 0
    assert "rail-kd-l" in capsys.readouterr().out


def test_two_packages_of_one_name_are_refused(install: Install) -> None:
    install(("louder", f"{__name__}:LouderKD"), ("louder", f"{__name__}:INFO"))
    with pytest.raises(ConfigError, match="given by several packages"):
        find_method("louder")


def test_a_typo_suggests_an_installed_method(install: Install) -> None:
    install(("louder", f"{__name__}:LouderKD"))
    with pytest.raises(ConfigError, match="did you mean 'louder'"):
        build_method("loudr", {})


def test_a_grid_takes_an_installed_method(install: Install) -> None:
    install(("louder", f"{__name__}:LouderKD"))
    content = {
        "teacher": {"model": "x"}, "tasks": {"rte": {}}, "students": {"half": {"layers": 1}}, "seeds": [0],
        "methods": {"none": {}, "vanilla-kd": {}, "louder": {}}, "axes": {"method_options.weight": [0.1, 0.2]},
    }  # fmt: skip
    grid = parse_grid(content)
    assert [has_option(grid, label, "method_options.weight") for label in grid.methods] == [False, False, True]
    with pytest.raises(ConfigError, match="unknown method 'other'"):
        parse_grid(content | {"axes": {}, "methods": {"none": {}, "vanilla-kd": {}, "other": {}}})


def test_terms_of_a_package_are_shown_and_not_read_back(install: Install) -> None:
    install(("louder", f"{__name__}:LouderKD"))
    shown = show_method("louder", 2, 4, 1, 0)
    assert shown.splitlines()[0].endswith(f"since these are defined in Python: {__name__}.Louder")
    assert f"term: {__name__}.Louder" in shown
    with pytest.raises(ConfigError, match="defined in Python cannot be given in YAML"):
        compose(describe_method(method()))


# Method objects


def test_a_method_object_is_a_text_of_its_terms() -> None:
    value = method_value(method())
    assert isinstance(value, str) and value.endswith("(task, kd)")
    assert build_method(value, {}) == method()
    assert value == method_value(method()) == method_value(LouderKD())
    assert len({value, method_value(method(0.4)), method_value(method(factor=2.0))}) == 3
    assert method_value("pkd") == "pkd" and method_value(Path("mine.yaml")) == Path("mine.yaml")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (VanillaKD, "VanillaKD is a class: call it"),
        (3, "given a int; expected a name"),
        (None, "given a NoneType; expected a name"),
        (TaskLoss(), "given a TaskLoss; expected a name"),
        (Method(()), "at least one term"),
        (Method((TaskLoss(),)), "WeightedTerm"),
        (Method((WeightedTerm(1.0, VanillaKD()),)), "VanillaKD; expected a WeightedTerm"),
        (Method((WeightedTerm(-1.0, TaskLoss()),)), "weight was given -1.0"),
        (Method((WeightedTerm(float("nan"), TaskLoss()),)), "weight was given nan"),
        (Method((WeightedTerm(1.0, TaskLoss(), phase=1),)), "phase 1 was given; there are 1"),
        (Method((WeightedTerm(1.0, TaskLoss()),), phases=(0.0,)), "shares of the epochs above 0"),
        (Method((WeightedTerm(1.0, TaskLoss(), input="perturbed"),)), "no augmentation makes it"),
        (method(factor=torch.ones(1)), "Louder.factor is a Tensor, which cannot be written down"),
    ],
)
def test_other_objects_are_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        method_value(value)


def test_a_term_that_is_no_dataclass_is_refused() -> None:
    class Bare(Term):
        name = "bare"
        requests = TaskLoss.requests
        build = TaskLoss.build

    with pytest.raises(ConfigError, match=r"Bare is no dataclass.*add @dataclass"):
        method_value(Method((WeightedTerm(1.0, Bare()),)))


def test_the_source_of_a_term_is_part_of_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_terms.py").write_text(
        "from dataclasses import dataclass\nfrom demiglace.methods.terms.logits import TaskLoss\n\n\n"
        "@dataclass(frozen=True)\nclass Outside(TaskLoss):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from outside_terms import Outside

    made = Method((WeightedTerm(1.0, Outside()),))
    before = fingerprint_method(method_value(made), {})
    assert before == fingerprint_method(method_value(made), {})
    with (tmp_path / "outside_terms.py").open("a") as file:
        file.write("# edited\n")
    assert fingerprint_method(method_value(made), {}) != before
    assert fingerprint_method("pkd", {}) is None


# runs


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("given")
    texts = [f"{color} card {i},{color}" for i in range(20) for color in ("red", "blue")]
    (folder / "rows.csv").write_text("\n".join(["text,label", *texts]) + "\n")
    teacher = save_tiny(folder / "teacher", num_layers=2, num_labels=2)
    return {"teacher": str(teacher), "data": str(folder / "rows.csv"), **QUICK}


def test_distill_takes_a_method_object(
    tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = demiglace.distill(method=method(), output=tmp_path / "run", **given)
    manifest = read_manifest(output)
    assert manifest["method"].startswith("Method object ") and manifest["method"].endswith("(task, kd)")
    assert [t["term"] for t in manifest["method_terms"]] == [f"{__name__}.Louder", "kd"]
    assert len(manifest["inputs"]["method"]) == 16
    demiglace.distill(method=LouderKD(), output=output, **given)  # the same method by its options
    demiglace.distill(DistillConfig(**config_of(given, method(), output)))
    assert "".join(capsys.readouterr()).count("is up to date") == 2
    with pytest.raises(RunError, match=r"holds another run.*\n.*method"):
        demiglace.distill(method=method(0.4), output=output, **given)
    with pytest.raises(RunError, match="method"):
        demiglace.distill(method="vanilla-kd", output=output, **given)
    with pytest.raises(ConfigError, match="method_options belong to a named method"):
        demiglace.distill(method=method(), method_options={"weight": 1}, output=tmp_path / "new", **given)
    with pytest.raises(ConfigError, match="was an object of a Python program"):
        demiglace.distill(method=str(manifest["method"]), output=tmp_path / "new", **given)


def config_of(given: dict[str, Any], made: Any, output: Path) -> dict[str, Any]:
    built = demiglace.config.options.build(DistillConfig, {**given, "method": "none", "output": output})
    return {**vars(built), "method": made}


def test_an_interrupted_run_resumes_with_its_method_only(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = demiglace.distill(method=method(), output=tmp_path / "whole", **given)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("demiglace.training.run._finalize_run", stop)
        demiglace.distill(method=method(), output=tmp_path / "cut", **given)
    with pytest.raises(RunError, match="method"):
        demiglace.distill(method=method(0.4), output=tmp_path / "cut", **given)
    resumed = demiglace.distill(method=method(), output=tmp_path / "cut", **given)
    files = [run / "model" / "model.safetensors" for run in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_distill_takes_an_installed_method(tmp_path: Path, given: dict[str, Any], install: Install) -> None:
    install(("louder", f"{__name__}:LouderKD"))
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    command = ["distill", "--method", "louder", "--output", str(tmp_path / "run"), *words]
    assert main(command) == 0
    assert read_manifest(tmp_path / "run")["method"] == "louder"
    assert main([*command, "--method-options.weight", "0.4"]) == 2
    install(("louder", f"{__name__}:OTHER"))
    assert main(command) == 2  # the name is the same, the method is not


@dataclass(frozen=True)
class OtherKD(LouderKD):
    """Other terms behind the same name and options."""

    def method(self) -> Method:
        """Return a third term."""
        return Method((*super().method().terms, WeightedTerm(1.0, TaskLoss())))


OTHER = MethodInfo("louder", OtherKD, "", "")


def test_the_description_is_json(given: dict[str, Any]) -> None:
    described = describe_method(method())
    assert json.loads(json.dumps(described)) == described
    assert isinstance(method_value(method()), MethodObject)


def test_the_list_of_methods_has_installed_ones_and_those_that_cannot_be_used(install):
    install(("louder", f"{__name__}:LouderKD"), ("broken", BROKEN))
    listed = demiglace.methods().metrics
    assert list(listed)[: len(METHODS)] == list(METHODS) and list(listed)[len(METHODS) :] == ["louder", "broken"]
    assert "no_such_module_here" in listed["broken"]["what"]
