"""What the documents say is so: links lead somewhere, commands and configs are accepted, code runs."""

import ast
import inspect
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from demiglace.cli import COMMANDS, config_class_of, expand_plan, main
from demiglace.compare.grid import parse_grid
from demiglace.compare.job_graph import build_job_graph
from demiglace.compare.validate import validate_jobs
from demiglace.config.aliases import canonical
from demiglace.config.arguments import parse
from demiglace.config.options import build, options_of, read_yaml
from demiglace.errors import ConfigError
from demiglace.methods.describe import card, index
from demiglace.methods.registry import METHODS, build_method, find_method, is_file
from factories import save_tiny
from methods import test_battery

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GRIDS = sorted((ROOT / "recipes" / "compare").glob("*.yaml"))
METHOD_FILES = sorted((ROOT / "recipes" / "methods").glob("*.yaml"))
RECIPES = sorted({*(ROOT / "recipes").rglob("*.yaml")} - {*GRIDS} - {*METHOD_FILES})
CARDS = sorted((ROOT / "docs" / "methods").glob("*.md"))
LAUNCHERS = r"torchrun [^\n]*-m |accelerate launch [^\n]*--module "
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def named(files: list[Path]) -> list:
    return [pytest.param(f, id=str(f.relative_to(ROOT))) for f in files]


def blocks(text: str, language: str) -> list[str]:
    """The contents of fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def command_lines(shell: str) -> list[list[str]]:
    """The words after `demiglace` of every command, or comment that is one; continued lines joined."""
    joined = shell.replace("\\\n", " ")
    found = re.findall(
        r"^(?:# )?(?:\w+=\S+ )*(?:torchrun [^\n]*-m |accelerate launch [^\n]*--module )?demiglace (.*)$",
        joined,
        re.MULTILINE,
    )
    return [shlex.split(line, comments=True) for line in found]


def shell_of(text: str) -> str:
    """What a document tells to type: its blocks of shell, and the indented lines outside of other blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks(text, "sh"), *re.findall(r"^    (.*)$", prose, re.MULTILINE)])


def check_command(words: list[str]) -> object:
    words = expand_plan(words)
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
    for words in command_lines(shell_of(file.read_text("utf-8"))):
        method = getattr(check_command(words), "method", "none")
        assert method in {"auto", *METHODS, *guide_names()} or is_file(method), words


@pytest.mark.parametrize("file", named(DOCS))
def test_every_line_of_shell_is_known(file):
    text = file.read_text("utf-8").replace("\\\n", " ")
    lines = [line.partition(" #")[0].strip() for block in blocks(text, "sh") for line in block.splitlines()]
    programs = rf"(?:{LAUNCHERS})?demiglace |pip install |python (examples|benchmarks)/\w+\.py|make [a-z-]+"
    programs += r"|curl localhost:\d+|cp examples/\S+ \S+ && python -m http\.server "
    known = rf"(\w+=\S+ )*({programs})"
    assert [line for line in lines if line and not line.startswith("#") and not re.match(known, line)] == []


def test_every_document_of_use_has_commands():
    counts = {str(f.relative_to(ROOT)): len(command_lines(shell_of(f.read_text("utf-8")))) for f in DOCS}
    assert counts["README.md"] >= 4
    assert counts["docs/tutorial.md"] >= 12


def test_the_check_of_commands_itself():
    text = "demiglace is prose\n\n    demiglace tasks # all\n\n```sh\ndemiglace report \\\n  a b\n```\n"
    assert command_lines(shell_of(text)) == [["report", "a", "b"], ["tasks"]]
    assert command_lines(shell_of("```yaml\n    demiglace x\n```\n")) == []
    assert command_lines("A=1 accelerate launch --num_processes 2 --module demiglace tasks sst2") == [["tasks", "sst2"]]
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
            validate_jobs(build_job_graph(parse_grid(yaml.safe_load(block)), Path("runs"), searching="search" in block))
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
    validate_jobs(build_job_graph(parse_grid(content), Path("runs"), searching="search" in content))


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


# Python blocks, run as they are in a directory with tiny data and models


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which the models and files that the documents name are tiny ones."""
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "sentence-transformers/all-MiniLM-L6-v2", num_layers=6)
    save_tiny(tmp_path / "runs/teacher", num_layers=6, num_labels=2)
    save_tiny(tmp_path / "runs/decoder/model", "gpt2", num_layers=2)
    rows = [f"{color} card {i},{color}" for i in range(15) for color in ("red", "blue")]
    for file, part in {"train": rows[:20], "labelled": rows[:20], "test": rows[20:]}.items():
        (tmp_path / f"{file}.csv").write_text("\n".join(["text,label", *part]) + "\n")
    (tmp_path / "unlabelled.csv").write_text("text\na card\nno card\n")
    return tmp_path


def python_blocks() -> list:
    """Every block of Python in the documents, except the files of the guide to methods, which are imported below."""
    files = [f for f in DOCS if f not in CARDS]
    found = [(f, i, b) for f in files for i, b in enumerate(blocks(f.read_text("utf-8"), "python"))]
    return [pytest.param(b, id=f"{f.relative_to(ROOT)}-{i}") for f, i, b in found if not b.startswith('"""')]


@pytest.mark.parametrize("source", python_blocks())
def test_python_in_documents_runs(source, home, guide_package, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["block"])
    if 'output="runs/teacher"' in source:  # it trains the teacher that other blocks read
        shutil.rmtree("runs/teacher")
    exec(compile(source, "block", "exec"), {"__name__": "__main__"})


def test_there_are_blocks_of_python():
    assert len(python_blocks()) >= 4


def test_the_commands_of_the_readme_run(home, capsys):
    shutil.rmtree("runs/teacher")
    commands = command_lines("\n".join(blocks((ROOT / "README.md").read_text("utf-8"), "sh")))
    assert [words[0] for words in commands] == ["finetune", "distill", "export", "report"]
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
    assert Path("report.html").is_file() and Path("runs/onnx/onnx/model_quantized.onnx").is_file()


# how to add a method

GUIDE = ROOT / "docs" / "add-a-method.md"


def guide_files() -> dict[str, str]:
    """The files of the guide by name: each block of Python that begins with a docstring, named just above it."""
    text = GUIDE.read_text("utf-8")
    return dict(re.findall(r'`(\w+\.py)`:\n\n```python\n(""".*?)^```$', text, re.M | re.S))


def guide_names() -> list[str]:
    """The names of the guide's methods, from the entry points that it declares."""
    (toml,) = blocks(GUIDE.read_text("utf-8"), "toml")
    return list(tomllib.loads(toml)["project"]["entry-points"]["demiglace.methods"])


@pytest.fixture(scope="module")
def guide_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The guide's files, installed as its pyproject.toml says: modules and entry points on the path of imports."""
    folder = tmp_path_factory.mktemp("my-methods")
    (toml,) = blocks(GUIDE.read_text("utf-8"), "toml")
    project = tomllib.loads(toml)
    files = guide_files()
    assert {Path(name).stem for name in files} == set(project["tool"]["setuptools"]["py-modules"])
    for name, code in files.items():
        (folder / name).write_text(code, "utf-8")
    info = folder / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    points = project["project"]["entry-points"]["demiglace.methods"]
    lines = ["[demiglace.methods]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.mark.parametrize("name", guide_names())
def test_the_guides_methods_pass_the_battery(name, guide_package, tmp_path, monkeypatch):
    tests = {n: f for n, f in vars(test_battery).items() if n.startswith("test_")}
    battery = {n: f for n, f in tests.items() if "options" in inspect.signature(f).parameters}
    assert len(battery) == 8
    for test, function in battery.items():
        folder = tmp_path / test
        folder.mkdir()
        extra = {"regression": False, "tmp_path": folder, "monkeypatch": monkeypatch}
        wanted = inspect.signature(function).parameters
        function(name, {}, **{k: v for k, v in extra.items() if k in wanted})


@pytest.mark.parametrize("name", guide_names())
def test_the_guides_methods_are_listed_shown_and_have_a_card(name, guide_package, capsys):
    assert main(["methods"]) == main(["methods", name]) == main(["methods", "show", name]) == 0
    out = capsys.readouterr().out
    assert name in out and "defined in Python" in out
    row = find_method(name)
    assert f"# `{name}`" in card(row) and "StopIteration" not in card(row)
    assert len(build_method(name, {}).terms) == 3


def test_the_guide_names_places_that_exist():
    text = GUIDE.read_text("utf-8")
    for file in re.findall(r"`((?:src|tests)/[\w/]+\.py)`", text):
        assert (ROOT / file).is_file(), file
    tables = re.findall(r"((?:`[A-Z_]+`(?:, )?)+) in `([\w/]+\.py)`", text)
    assert len(tables) >= 5
    for names, file in tables:
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^{name}\b", (ROOT / file).read_text("utf-8"), re.MULTILINE), (name, file)


# troubleshooting


def messages() -> str:
    """All texts in the source, with … for what is filled in, one a line."""
    found = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_troubleshooting_quotes_messages_as_they_are():
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = [q for line in re.findall(r"^\*\*(`.*?)\*\*", text, re.MULTILINE) for q in re.findall(r"`([^`]+)`", line)]
    assert len(quoted) >= 20
    known = messages()
    parts = [part.strip() for q in quoted for part in q.split("…")]
    assert [part for part in parts if part not in known] == []


# prose

AVOID = (
    *(
        "told",
        "tells?",
        "asked",
        "asks?",
        "says?",
        "said",
        "heard",
        "taught",
        "teach(?:es)?",
        "anew",
        "whole",
        "stands?",
    ),
    *("settles?", "the books", "lots?", "places", "kin", "at hand", "behind", "of it", "what there is", "goes on"),
    *(
        "gone on with",
        "no other than",
        "as far as",
        "for itself",
        "by itself(?: alone)?",
        "ours",
        "theirs",
        "mend(?:ed)?",
    ),
    "controls?",
)
ALLOWED = r"whole numbers?|control characters?"


def prose(text: str) -> str:
    """A document without code, quotations, targets of links and comments."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->", " ", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ {4,}\S.*$", " ", text, flags=re.MULTILINE)
    return re.sub(rf'`[^`\n]+`|“[^”]*”|"[^"\n]*"|\]\([^)]*\)|{ALLOWED}', " ", text)


PROTOCOL = ROOT / "docs" / "results" / "protocol.md"  # a declared protocol: comparisons record its hash, so it is kept


@pytest.mark.parametrize("file", named([f for f in DOCS if f != PROTOCOL]))
def test_words_to_avoid(file):
    text = file.read_text("utf-8")
    if file.parent.name == "results":  # its tables are generated
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    assert re.findall(rf"\b(?:{'|'.join(AVOID)})\b", prose(text), re.IGNORECASE) == []


def test_the_count_of_words_itself():
    text = 'The table says so. `it says`\n\n    it says\n\n```\nsays\n```\n"he says" [says](says.md)'
    assert re.findall(rf"\b(?:{'|'.join(AVOID)})\b", prose(text)) == ["says", "says"]


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def race(name: str, about: str) -> float:
    """What a race found about `rail-kd-l` with writing checkpoints included."""
    (found,) = [t for t in results(name)["targets"] if about in t["target"] and "left out" not in t["target"]]
    assert found["target"].startswith("rail-kd-l")
    return found["median"]


def test_the_figures_of_the_readme_are_in_the_results():
    rows = {
        line.split("|")[1].strip(): line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if "|" in line
    }

    def numbers(start: str) -> list[float]:
        (line,) = [line for name, line in rows.items() if name.startswith(start)]
        return [float(n) for n in re.findall(r"([\d.]+) [×%]", line)]

    fastest, leanest = "fastest peer (", "leanest peer"
    for start, about, width in (("Faster", fastest, 256), ("the same", fastest, 768), ("Less memory", leanest, 256)):
        measured = [race(f"peers_{task}_12x{width}", about) for task in ("sst2", "mrpc")]
        assert numbers(start) == [round(m, 2) for m in measured]
    speed = results("speed_limit")["results"]["ratios of speed"]
    assert numbers("Little overhead") == [round(speed["a/b"]["median"], 2)]
    assert numbers("Cached teacher") == [round(speed["c/d"]["median"], 2)]
    padding = results("padding")["results"]["bucketed"]["speed over padding to 128"]["median"]
    assert numbers("Batches of similar length") == [round(padding, 1)]
    few = results("few_labels")["results"]
    accuracy = [round(100 * found["test"]["accuracy"], 1) for found in few.values()]
    assert sorted(numbers("Unlabelled text")) == sorted(accuracy)


def test_the_output_of_the_readmes_example_is_in_the_results():
    (output,) = blocks((ROOT / "README.md").read_text("utf-8"), "text")
    found = [f"{run['test']['accuracy']:.4f}" for run in results("few_labels")["results"].values()]
    assert [line.split()[-1] for line in output.splitlines()] == found


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
