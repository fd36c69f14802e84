"""What the documents say is so: links lead somewhere, commands and configs are accepted, code runs."""

import ast
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from demiglace.cli import COMMANDS, config_class_of
from demiglace.compare.grid import parse_grid
from demiglace.compare.job_graph import make_plan
from demiglace.compare.validate import check_plan
from demiglace.config.aliases import canonical
from demiglace.config.arguments import parse
from demiglace.config.options import build, options_of, read_yaml
from demiglace.data.batching import collate
from demiglace.errors import ConfigError
from demiglace.methods.base import TrainingProgress
from demiglace.methods.describe import card, index
from demiglace.methods.registry import METHODS, MethodInfo, build_method
from training_kit import objective_of, random_examples, teacher_and_student

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GRIDS = sorted((ROOT / "recipes" / "compare").glob("*.yaml"))
METHOD_FILES = sorted((ROOT / "recipes" / "methods").glob("*.yaml"))
RECIPES = sorted({*(ROOT / "recipes").rglob("*.yaml")} - {*GRIDS} - {*METHOD_FILES})
CARDS = sorted((ROOT / "docs" / "methods").glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def named(files: list[Path]) -> list:
    return [pytest.param(f, id=str(f.relative_to(ROOT))) for f in files]


def blocks(text: str, language: str) -> list[str]:
    """The contents of fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def command_lines(shell: str) -> list[list[str]]:
    """The words after `demiglace` of every command, or comment that is one; continued lines joined."""
    joined = shell.replace("\\\n", " ")
    found = re.findall(r"^(?:# )?(?:torchrun [^\n]*-m )?demiglace (.*)$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def shell_of(text: str) -> str:
    """What a document tells to type: its blocks of shell, and the indented lines outside of other blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks(text, "sh"), *re.findall(r"^    (.*)$", prose, re.MULTILINE)])


def check_command(words: list[str]) -> object:
    assert words[0] in COMMANDS, words
    kind = config_class_of(words[0])
    return build(kind, parse(words[1:], options_of(kind)))


# links


def slug(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(file: Path, text: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path) if path else file
        headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE) if anchor else []
        if not target.exists() or (anchor and anchor not in map(slug, headings)):
            yield link


@pytest.mark.parametrize("file", named(DOCS))
def test_links_lead_somewhere(file):
    assert list(broken_links(file, file.read_text("utf-8"))) == []


def test_the_check_of_links_itself(tmp_path):
    (tmp_path / "there.md").write_text("## Few labels, much text\n")
    good = "[a](there.md) [b](there.md#few-labels-much-text) [c](https://example.org/x)"
    assert list(broken_links(tmp_path / "doc.md", good)) == []
    bad = "[a](nowhere.md) ![b](images/none.png) [c](there.md#other)"
    assert list(broken_links(tmp_path / "doc.md", bad)) == ["nowhere.md", "images/none.png", "there.md#other"]


# commands and configs


@pytest.mark.parametrize("file", named(DOCS))
def test_commands_in_documents_are_accepted(file, monkeypatch):
    monkeypatch.chdir(ROOT)  # --config names recipes from there
    new = {row.name for row in documented_methods()}
    for words in command_lines(shell_of(file.read_text("utf-8"))):
        method = getattr(check_command(words), "method", "none")
        assert method in METHODS or method in new, words


def test_every_document_of_use_has_commands():
    counts = {str(f.relative_to(ROOT)): len(command_lines(shell_of(f.read_text("utf-8")))) for f in DOCS}
    assert counts["README.md"] >= 4
    assert counts["docs/tutorial.md"] >= 12


def test_the_check_of_commands_itself():
    text = "demiglace is prose\n\n    demiglace tasks # all\n\n```sh\ndemiglace report \\\n  a b\n```\n"
    assert command_lines(shell_of(text)) == [["report", "a", "b"], ["tasks"]]
    assert command_lines(shell_of("```yaml\n    demiglace x\n```\n")) == []
    assert command_lines("torchrun --nproc-per-node 2 -m demiglace methods pkd") == [["methods", "pkd"]]
    with pytest.raises(ConfigError, match="did you mean"):
        check_command(["report", "a", "--titel", "b"])


@pytest.mark.parametrize("file", named(DOCS))
def test_names_in_passing_exist(file):
    text = file.read_text("utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)
    assert set(re.findall(r"`demiglace ([a-z]+)", text)) <= set(COMMANDS)
    for script in re.findall(r"python (examples/\w+\.py|benchmarks/\w+\.py)", text):
        assert (ROOT / script).is_file()


def test_the_readme_lists_all_commands_and_methods():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [c for c in COMMANDS if f"`demiglace {c}`" not in text] == []
    assert [m for m in METHODS if f"`{m}`" not in text] == []


@pytest.mark.parametrize("name", METHODS)
def test_method_cards_are_as_generated(name):
    assert (ROOT / "docs/methods" / f"{name}.md").read_text("utf-8") == card(METHODS[name]), "run `make cards`"


def test_the_index_of_cards_is_as_generated():
    assert (ROOT / "docs/methods/README.md").read_text("utf-8") == index(), "run `make cards`"
    assert {f.stem for f in CARDS} == {*METHODS, "README"}


@pytest.mark.parametrize("file", named(sorted({*DOCS} - {*CARDS})))
def test_yaml_in_documents_is_accepted(file):
    for block in blocks(file.read_text("utf-8"), "yaml"):
        (command, *_), *_ = command_lines(block)
        if command == "compare":
            check_plan(make_plan(parse_grid(yaml.safe_load(block)), Path("runs"), searching="search" in block))
            continue
        config = build(config_class_of(command), yaml.safe_load(block))
        if command == "distill":
            build_method(config.method, config.method_options)


@pytest.mark.parametrize("file", named(RECIPES))
def test_recipes_are_accepted(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, commands = str(file.relative_to(ROOT)), command_lines(file.read_text("utf-8"))
    command = file.stem.rpartition("-")[2]  # paper1-pretrain.yaml is one of pretrain
    assert commands[0] == [command, "--config", name], "its first line is its command"
    for words in commands:
        config = check_command(words)
        if command == "distill":
            build_method(config.method, config.method_options)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [  # as in the authors' scripts
        ("truncate", {"layers": 6, "strategy": "alternate"}),
        ("pretrain", {"epochs": 4, "batch_size": 16 * 4 * 8, "learning_rate": 5e-5, "lr_scheduler": "constant"}),
        ("wikitext103-pretrain", {"epochs": 6, "batch_size": 8 * 16, "learning_rate": 5e-5, "warmup_ratio": 0}),
        (
            "distill",
            {"epochs": 4, "batch_size": 4 * 128 * 8, "learning_rate": 2.5e-4, "warmup_ratio": 0.05, "max_grad_norm": 5},
        ),
        ("evaluate", {"block_size": 1024}),
    ],
)
def test_recipes_of_paper_1_have_the_settings_of_its_scripts(stage, settings):
    recipe = yaml.safe_load((ROOT / "recipes" / f"paper1-{stage}.yaml").read_text("utf-8"))
    assert {name: recipe.get(name) for name in settings} == settings
    assert stage == "pretrain" or "lr_scheduler" not in recipe  # linear, the default


@pytest.mark.parametrize("file", named(METHOD_FILES))
def test_methods_of_ones_own_are_accepted(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    (words,) = command_lines(file.read_text("utf-8"))
    assert check_command(words).method == str(file.relative_to(ROOT))
    build_method(str(file), {})


@pytest.mark.parametrize("file", named(GRIDS))
def test_grids_are_accepted(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = command_lines(file.read_text("utf-8"))
    assert commands[0][:2] == ["compare", str(file.relative_to(ROOT))], "its first line is its command"
    for words in commands:
        check_command(words)
    content = read_yaml(file)
    check_plan(make_plan(parse_grid(content), Path("runs"), searching="search" in content))


@pytest.mark.parametrize("folder", sorted({f.parent.name for f in RECIPES} - {"recipes"}))
def test_recipes_of_a_task_follow_on_each_other(folder):
    found = {f.stem: yaml.safe_load(f.read_text("utf-8")) for f in RECIPES if f.parent.name == folder}
    finetune, distill, export = (found[stage] for stage in ("finetune", "distill", "export"))
    assert distill["teacher"] == export["teacher"] == finetune["output"]
    assert export["model"] == distill["output"]
    assert [distill[k] for k in ("data", "max_length")] == [finetune[k] for k in ("data", "max_length")]


# Python


def wrong_calls(source: str) -> list[str]:
    """Calls of our commands with an argument that they do not have, or without one that they need."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and re.fullmatch(r"demiglace\.\w+", name := ast.unparse(node.func)):
            options = options_of(config_class_of(name.removeprefix("demiglace.")))
            given = [k.arg for k in node.keywords]
            names = {o.name for o in options}
            extra = {g for g in given if g and canonical(g, names) not in names}
            missing = set() if None in given else {o.name for o in options if o.required} - set(given)
            found += [f"{name}: {option}" for option in sorted(extra | missing)]
    return found


@pytest.mark.parametrize("file", named([*EXAMPLES, ROOT / "README.md"]))
def test_python_calls_our_commands_as_they_are(file):
    text = file.read_text("utf-8")
    for source in [text] if file.suffix == ".py" else blocks(text, "python"):
        compile(source, str(file), "exec")
        assert wrong_calls(source) == []


def test_the_check_of_calls_itself():
    assert wrong_calls("demiglace.report(runs=[], titel='x')") == ["demiglace.report: titel"]
    assert wrong_calls("demiglace.truncate(output='x')") == ["demiglace.truncate: model"]
    assert wrong_calls("demiglace.distill(method='pkd', **shared)") == []


# how to add a method


def documented_methods() -> list[MethodInfo]:
    """The methods that the guide adds, made from its own code."""
    guide = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
    files = [b for b in blocks(guide, "python") if b.startswith('"""')]
    return [
        MethodInfo(name, _options(name, source), name, "")
        for name, source in zip(_file_names(guide), files, strict=True)
    ]


def _file_names(guide: str) -> list[str]:
    return [n.replace("_", "-") for n in re.findall(r"`src/demiglace/methods/(\w+)\.py`:", guide)]


def _options(name: str, source: str) -> type:
    """The last class of a method's file: its options."""
    module = types.ModuleType(f"documented_{name}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(source, name, "exec"), module.__dict__)
    last = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)][-1]
    return getattr(module, last)


@pytest.mark.parametrize("row", documented_methods(), ids=lambda row: row.name)
def test_documented_methods_work(row, monkeypatch):
    monkeypatch.setitem(METHODS, row.name, row)
    teacher, student = teacher_and_student()
    objective, source = objective_of(row.name, {}, teacher, student)
    batch = collate(random_examples(8), np.arange(8))
    loss, terms = objective(batch, source.fetch(batch), TrainingProgress(seed=0, epoch=0, step=0), 8.0, 8.0)
    loss.backward()
    assert len(terms) == 3 and (terms > 0).all()
    assert all(p.grad is not None for p in student.classifier.parameters())


def test_the_rows_that_the_guide_adds_are_python():
    guide = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
    table_row, settings_row = [b for b in blocks(guide, "python") if not b.startswith('"""')]
    (row,) = eval(table_row, {"Row": MethodInfo, "AllToOne": object})
    assert row.name in eval("{" + settings_row + "}")
    assert row.name in _file_names(guide)
