"""Which room imports which, what `--help` must not load, and what must not be in the repository."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "demiglace"
BASE = {"errors", "manifest", "config", "console"}

# room -> what of ours it may import, beside itself
MAY_IMPORT = {
    "__init__": {"stages"},
    "__main__": {"cli", "interpreters"},
    "flags": {"config", "errors"},
    "config": {"convert", "errors", "interpreters"},
    "convert": set(),
    "interpreters": set(),
    "labels": {"errors"},
    "cluster": {"errors", "interpreters"},
    "console": set(),
    "errors": set(),
    "manifest": {"errors"},
    "data": BASE | {"labels"},
    "models": BASE | {"labels"},
    "losses": set(),
    "signals": BASE | {"models", "data"},
    "methods": {"losses", "models", "signals", "config", "convert", "errors"},
    "training": BASE | {"methods", "signals", "data", "models"},
    "evaluation": {"data", "models", "losses", "errors", "console", "config", "labels"},
    "export": BASE | {"models", "evaluation", "data", "interpreters"},
    "report": BASE,
    "cleaning": BASE | {"data", "cluster"},
    "compare": BASE | {"stages", "cluster", "evaluation", "export", "methods", "data", "models", "training"},
}
MAY_IMPORT["stages"] = {*MAY_IMPORT, "stages"}
MAY_IMPORT["cli"] = {*MAY_IMPORT, "cli"}
LIGHT = ("cli", "flags", "config", "convert", "errors", "stages.config", "data.config", "training.config")
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
        ("models", "from demiglace import stages, errors", {"stages"}),
        ("stages", "from demiglace.cli import main", {"cli"}),
        ("stages", "import demiglace.report.runs.page", set()),
        ("manifest", "from demiglace import __version__", set()),
        ("report", "if True:\n    from demiglace.evaluation import metrics as m", {"evaluation"}),
    ],
)
def test_the_check_of_directions_itself(room, source, wrong):
    assert forbidden(room, source) == wrong


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
