"""Which room imports which, what `--help` must not load, and what must not be in the repository."""

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "demiglace"
BASE = {"callbacks", "config", "console", "errors", "escaping", "interpreters", "labels", "notices"}
LEARNING = {"tasks", "data", "models", "losses", "signals", "methods", "runs", "training", "evaluation"}

# room -> what of ours it may import, beside itself; only rooms above it, so that no two rooms need each other
MAY_IMPORT = {
    "errors": set(),
    "escaping": set(),
    "interpreters": set(),
    "notices": set(),
    "console": {"escaping", "notices"},
    "labels": {"errors"},
    "cluster": {"errors", "interpreters"},
    "callbacks": {"errors"},
    "config": {"callbacks", "errors", "interpreters", "notices"},
    "runs": {"config", "console", "errors", "escaping", "notices"},
    "losses": set(),
    "tasks": {"errors", "losses"},
    "data": BASE | {"runs", "tasks"},
    "models": BASE | {"runs", "tasks", "data"},
    "signals": BASE | {"runs", "data", "models"},
    "methods": BASE | {"losses", "tasks", "models", "signals"},
    "evaluation": BASE | {"tasks", "data", "losses", "models"},
    "results": BASE | {"runs", "tasks", "evaluation"},
    "report": BASE | {"runs", "tasks", "evaluation", "results"},
    "training": BASE | LEARNING | {"report"},
    "distillation": BASE | LEARNING,
    "costs": BASE | LEARNING | {"distillation"},
    "export": BASE | {"tasks", "runs", "data", "models", "evaluation"},
    "cleaning": BASE | {"runs", "data", "cluster"},
    "compare": BASE | LEARNING | {"cluster", "commands", "costs", "distillation", "export", "results", "report"},
    "compress": BASE
    | LEARNING
    | {"compare", "commands", "costs", "distillation", "export", "results", "report", "cluster"},
    "preflight": BASE | {"runs", "tasks", "data", "models", "methods"},
    "given_objects": {"console", "data", "errors", "models", "runs"},
    "__init__": {"callbacks", "commands"},
    "__main__": {"cli", "interpreters"},
}
MAY_IMPORT["commands"] = {*MAY_IMPORT}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
LIGHT = (
    *("cli", "errors", "config.aliases", "config.arguments", "config.options", "config.coerce"),
    *("config.command_options", "config.data", "config.training"),
)
HEAVY = ("torch", "transformers", "numpy", "sklearn", "scipy", "onnxruntime", "matplotlib", "rich")


def imported(source: str) -> set[str]:
    """Rooms of ours that a module's source imports, at its top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "demiglace" else {module}
    parts = [name.split(".") for name in found]
    return {p[1] for p in parts if p[0] == "demiglace" and len(p) > 1} - {"__version__"}


def forbidden(room: str, source: str) -> set[str]:
    """Rooms that a module of `room` imports and must not."""
    return imported(source) - {room} - MAY_IMPORT[room]


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(file):
    wrong = forbidden(room_of(file), file.read_text(encoding="utf-8"))
    assert not wrong, f"{file.relative_to(ROOT)} may not import {', '.join(sorted(wrong))}"


def test_every_room_has_its_row():
    assert {room_of(file) for file in MODULES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("losses", "from demiglace.models.shape import ModelShape", {"models"}),
        ("losses", "import torch\nfrom demiglace.losses.hidden import mse", set()),
        ("data", "def f():\n    import demiglace.training.loop", {"training"}),
        ("models", "from demiglace import commands, errors", {"commands"}),
        ("commands", "from demiglace.cli import main", {"cli"}),
        ("commands", "import demiglace.report.runs.page", set()),
        ("runs", "from demiglace import __version__", set()),
        ("report", "if True:\n    from demiglace.training import loop as x", {"training"}),
    ],
)
def test_the_check_of_directions_itself(room, source, wrong):
    assert forbidden(room, source) == wrong


def imported_modules(file: Path) -> set[str]:
    """Modules of ours that a file imports, at its top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("demiglace."):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in BY_NAME else str(node.module) for name in inner}
    return found & BY_NAME.keys()


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A circle of modules that import each other, if there is one."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


BY_NAME = {".".join(("demiglace", *f.relative_to(PACKAGE).with_suffix("").parts)): f for f in MODULES}


def test_no_modules_import_each_other_in_a_circle():
    assert circle({name: imported_modules(file) for name, file in BY_NAME.items()}) == []


def test_the_check_of_circles_itself():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def loaded_by(code: str) -> set[str]:
    """Which of the heavy libraries a fresh Python has loaded after `code`."""
    show = f"import sys; print(*({set(HEAVY)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_help_loads_nothing_heavy():
    modules = ", ".join(f"demiglace.{name}" for name in LIGHT)
    assert loaded_by(f"import demiglace, {modules}") == set()
    assert loaded_by("from demiglace.cli import main; main(['distill', '--help'])") == set()


def test_the_check_of_heavy_imports_itself():
    assert loaded_by("import numpy") == {"numpy"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git cannot list the files: {listed.stderr}")
    return [file for name in listed.stdout.split("\0") if name and (file := ROOT / name).is_file()]


def test_no_tracked_file_is_over_two_megabytes(tracked):
    assert [str(f) for f in tracked if f.stat().st_size > 2_000_000] == []


# paths of one machine, and hosts of package registries; written so that this file does not match itself
PRIVATE = re.compile(r"(?<![\w.~-])/(?:work|root|home)/\w|py[p]i\.org|python[h]osted|registry\.np[m]js")


def private_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if PRIVATE.search(line)]


def test_no_tracked_text_names_a_machine_or_a_registry(tracked):
    found = {}
    for file in tracked:
        try:
            lines = private_lines(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # a picture or an archive
        if lines:
            found[str(file.relative_to(ROOT))] = lines
    assert found == {}


def test_the_check_of_private_lines_itself():
    home = "/" + "home/"
    assert private_lines(f"data: {home}ann/rows.csv\nfine: network/home/index") == [f"data: {home}ann/rows.csv"]
    assert private_lines("--index-url https://py" + "pi.org/simple")
