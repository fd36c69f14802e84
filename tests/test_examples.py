"""The examples, run on a tiny model; that they call the commands as they are is checked in test_docs.py."""

import csv
import json
import runpy
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from demiglace.compare.grid import parse_grid
from demiglace.compare.job_graph import build_job_graph
from demiglace.export.onnx import export_onnx
from factories import save_tiny, tiny_model, tiny_tokenizer

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run_example(monkeypatch):
    def run(name: str, *words: str) -> dict:
        monkeypatch.setattr(sys, "argv", [name, *words])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def test_compare_methods_runs(tmp_path, run_example, capsys):
    model = save_tiny(tmp_path / "tiny", num_layers=4)
    rows = [f"{color} card {i},{color}" for i in range(20) for color in ("red", "blue")]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    words = f"--data {tmp_path}/rows.csv --model {model} --output {tmp_path}/runs --layers 2 --seeds 2 --epochs 1"
    run_example("compare_methods.py", *words.split(), "--methods", "none", "rail-kd-l")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["teacher", "none", "rail-kd-l"]
    assert (tmp_path / "runs" / "rail-kd-l-1" / "manifest.json").is_file()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns a model of so many classes, its tokenizer and the directory of its ONNX file."""

    @cache
    def export(classes):
        home = tmp_path_factory.mktemp("exported")
        model, tokenizer = tiny_model("bert", num_layers=1, num_labels=classes), tiny_tokenizer(home, segments=True)
        export_onnx(model, tokenizer, home / "onnx/model.onnx")
        model.config.save_pretrained(home)
        return model, tokenizer, home

    return export


@pytest.mark.parametrize("classes", [2, 3])  # config.json holds no names of two default labels
def test_classify_onnx_prints_the_labels_of_the_model(classes, exported, run_example, capsys):
    model, tokenizer, home = exported(classes)
    texts = ["the card is lost", "a good film and not a bad one"]
    run_example("classify_onnx.py", str(home), *texts)
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.detach()
    expected = [f"{p:6.1%}  LABEL_{i}  {t}" for p, i, t in zip(*logits.softmax(-1).max(-1), texts, strict=True)]
    assert capsys.readouterr().out.splitlines() == expected


@pytest.fixture(scope="module")
def server(exported):
    """The address of a server of a tiny fp32 model, the model and its tokenizer."""
    model, tokenizer, home = exported(3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(EXAMPLES / "server.py"), str(home), str(port)])
    try:
        yield f"http://127.0.0.1:{port}", model, tokenizer, process
    finally:
        process.kill()
        process.wait()


def answer(address: str, body: bytes | None = None):
    with urlopen(Request(address, data=body), timeout=60) as response:
        return json.load(response)


def test_server_answers_requests_at_the_same_time(server):
    address, model, tokenizer, process = server
    while True:  # until it listens
        assert process.poll() is None
        try:
            assert answer(address) == "ok"
            break
        except URLError:
            time.sleep(0.2)
    texts = [[f"the {a} {b} is lost" for b in ("red", "blue", "not so green")] for a in ("card", "film", "money", "9")]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda group: answer(address, json.dumps(group).encode()), texts))
    for group, found in zip(texts, answers, strict=True):
        probabilities = model(**tokenizer(group, padding=True, return_tensors="pt")).logits.detach().softmax(-1)
        assert [label for label, _ in found] == [f"LABEL_{i}" for i in probabilities.argmax(-1)]
        assert [p for _, p in found] == pytest.approx(probabilities.max(-1).values.tolist(), abs=1e-5)
    for wrong in (b"no JSON", b'{"texts": []}', b'"a text"', b"[1]"):
        with pytest.raises(HTTPError) as error:
            answer(address, wrong)
        assert error.value.code == 400 and "list of texts" in json.load(error.value)
    assert answer(address) == "ok"


def test_server_has_40_lines():
    assert len((EXAMPLES / "server.py").read_text("utf-8").splitlines()) <= 40


def test_report_demo_writes_a_grid_of_two_tasks_that_can_be_learnt(tmp_path):
    example = runpy.run_path(str(EXAMPLES / "report_demo.py"))
    content = example["grid"](tmp_path)
    assert [len(content[k]) for k in ("tasks", "methods", "seeds")] == [2, 3, 3]
    assert len(build_job_graph(parse_grid(content), tmp_path / "runs").runs) == 18
    for files in content["tasks"].values():
        with Path(files["data"]).open(encoding="utf-8", newline="") as opened:
            labels = [row["label"] for row in csv.DictReader(opened)]
        assert len(labels) == 800 and all(labels.count(label) > 250 for label in set(labels))
