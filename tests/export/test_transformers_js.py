"""Every exported ONNX file in transformers.js: in Node, and on the example's page in Chromium; labels as in Python."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import PreTrainedModel

pytest.importorskip("onnxruntime")

from demiglace.export.base import exporter_for
from demiglace.export.onnx import FILES, OnnxRunner
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.report.model_card import model_card
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION
from factories import save_tiny

SCRIPTS = Path(__file__).parent / "js"
PACKAGES = SCRIPTS / "node_modules"
PAGE = Path(__file__).parents[2] / "examples/browser/index.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = ("bad", "good", "none")
DTYPES = {"fp32": "fp32", "fp16": "fp16", "q8": "int8", "q4": "int4"}  # of transformers.js -> precision
WORDS = ("good film", "bad card", "lost money!", "red, blue and green", "yes", "no 7", "It is GREAT")
TEXTS = [f"{start}{words}" for start in ("", "the ", "this is not a ") for words in WORDS]
CLOSE = {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.02, "int4": 0.02}  # other kernels round activations otherwise

Predictions = list[tuple[str, float]]  # label and its probability

if not (PACKAGES / "@huggingface" / "transformers").is_dir():
    pytest.skip("no JavaScript packages here; `make js` installs them", allow_module_level=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("js")
    save_tiny(home / "model", num_layers=1, label_names=NAMES)
    model, tokenizer = load_classifier(home / "model", None, attention="eager"), load_tokenizer(home / "model")
    learn(model, tokenizer(TEXTS, padding=True, return_tensors="pt"))
    directory, exporter, full = home / "onnx", exporter_for("onnx", "false"), None
    model.config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for precision in FILES:
        written = exporter.write(model, tokenizer, CLASSIFICATION, directory, precision, full)
        full = full or written
    return directory


def learn(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> None:
    """Train until each group of words has a label with a margin that no rounding of a kernel bridges."""
    labels, optimizer = torch.arange(len(TEXTS)) % len(WORDS) % len(NAMES), torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch).logits, labels).backward()
        optimizer.step()


@pytest.fixture(scope="module")
def expected(exported: Path) -> dict[str, Predictions]:
    """The predictions of each file in Python, one text at a time."""
    tokenizer, found = load_tokenizer(exported), {}
    for precision, file in FILES.items():
        runner = OnnxRunner(str(exported / file))
        logits = [runner.logits(tokenizer([text], return_tensors="np"))[0] for text in TEXTS]
        found[precision] = [(NAMES[row.argmax()], float(row.max())) for row in softmax(np.array(logits), axis=-1)]
        assert [label for label, _ in found[precision]] == [NAMES[i % len(WORDS) % 3] for i in range(len(TEXTS))]
    return found


def assert_same(found: Predictions, expected: Predictions, tolerance: float) -> None:
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=tolerance)


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
def test_node_gives_the_same_labels(exported: Path, expected: dict[str, Predictions]) -> None:
    words = ["node", str(SCRIPTS / "classify.mjs"), str(exported), *DTYPES]
    done = subprocess.run(words, input=json.dumps(TEXTS), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for dtype, precision in DTYPES.items():
        assert_same([(a["label"], a["score"]) for a in found[dtype]], expected[precision], CLOSE[precision])


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
def test_the_code_of_a_regressors_card_prints_its_number(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", num_layers=1, num_labels=1)
    model, tokenizer = load_classifier(tmp_path / "model", None, attention="eager"), load_tokenizer(tmp_path / "model")
    directory = tmp_path / "onnx"
    model.config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    written = exporter_for("onnx").write(model, tokenizer, REGRESSION, directory)
    entry = {"name": "ONNX fp32", "format": "onnx", "precision": "fp32", "role": "export", "file": written.path}
    card = model_card(tmp_path, {"artefacts": [entry], "problem": "regression", "model_type": "bert"})
    (directory / "card.mjs").write_text(card.partition("```js\n")[2].partition("```")[0])
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    done = subprocess.run(["node", "card.mjs"], cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    number = re.fullmatch(r"Float32Array\(1\) \[ (\S+) \]", done.stdout.strip())
    assert number is not None, done.stdout
    expected = written.open().logits(tokenizer(["a text"], return_tensors="np"))
    assert float(number[1]) == pytest.approx(float(expected[0, 0]), abs=1e-4)


@pytest.fixture(scope="module")
def page(exported: Path) -> Iterator[Any]:
    """A browser's page that finds the example, the export and the CDN's packages, and nothing else."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    api = pytest.importorskip("playwright.sync_api", reason="the test of the page needs playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.route("**/*", lambda route: fulfill(route, exported))
        yield page
        browser.close()


def fulfill(route: Any, exported: Path) -> None:
    file = file_of(route.request.url, exported)
    if file is None or not file.is_file():
        route.fulfill(status=404)
    else:
        kinds = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
        headers = {"access-control-allow-origin": "*", "content-type": kinds.get(file.suffix, "application/json")}
        route.fulfill(body=file.read_bytes(), headers=headers)


def file_of(url: str, exported: Path) -> Path | None:
    """Return what an address means: a file of the page's server, or of a package in the version that is installed."""
    host, path = urlsplit(url).hostname, unquote(urlsplit(url).path)
    if host == "localhost":
        return PAGE if path == "/index.html" else exported.parent / path.lstrip("/")
    asked = re.fullmatch(r"/npm/((?:@[\w-]+/)?[\w-]+)@([\w.-]+)(/.+)?", path)
    if host != "cdn.jsdelivr.net" or asked is None:
        return None
    name, version, file = asked.groups()
    package = json.loads((PACKAGES / name / "package.json").read_text("utf-8"))
    return PACKAGES / name / (file or package["jsdelivr"]).lstrip("/") if package["version"] == version else None


def classify_on(page: Any, dtype: str) -> Predictions:
    page.goto(f"http://localhost/index.html?model=onnx&dtype={dtype}")
    page.wait_for_function("!state.textContent.startsWith('Loading')", timeout=240_000)
    assert page.inner_text("#state") == f"onnx, {dtype}: ready."
    page.fill("#texts", "\n".join(TEXTS))
    page.click("#classify")
    page.wait_for_function(f"document.querySelectorAll('tbody tr').length == {len(TEXTS)}", timeout=120_000)
    rows = [row.split("\t") for row in page.inner_text("tbody").splitlines()]
    assert [text for text, *_ in rows] == TEXTS
    return [(label, float(share.removesuffix(" %")) / 100) for _, label, share, _ in rows]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_page_gives_the_same_labels(page: Any, expected: dict[str, Predictions], dtype: str) -> None:
    precision = DTYPES[dtype]
    assert_same(classify_on(page, dtype), expected[precision], CLOSE[precision] + 1e-3)  # it shows tenths of a per cent


def test_the_page_names_what_it_cannot_load(page: Any) -> None:
    page.goto("http://localhost/index.html?model=elsewhere")
    page.wait_for_function("!state.textContent.startsWith('Loading')", timeout=60_000)
    assert page.inner_text("#state").startswith("elsewhere in q8 could not be loaded: ")
    assert page.is_disabled("#classify")
