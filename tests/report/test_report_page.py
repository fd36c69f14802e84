import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_runs import ROWS, write_demo, write_run, write_training

import demiglace
from demiglace.cli import config_class_of, parse
from demiglace.config.options import build, flatten, options_of
from demiglace.console import notice
from demiglace.errors import RunError
from demiglace.notices import collecting
from demiglace.report.commands import command_line
from demiglace.report.runs.classes import ClassResults, class_table, confusion_table, read_classes
from demiglace.report.runs.load import collect

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}\u202egnp.exe"


class _Page(HTMLParser):
    """Tags, attributes and headings of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


def page_of(tmp_path: Path, *runs: Path, title: str = "A title") -> tuple[str, _Page]:
    file = demiglace.report(runs=list(map(str, runs)), output=tmp_path / "out" / "page.html", title=title)
    html = file.read_text(encoding="utf-8")
    return html, _Page(html)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_the_page_holds_all_sections_in_order(tmp_path: Path) -> None:
    html, page = page_of(tmp_path, write_demo(tmp_path / "demo"))
    assert headings(html) == [
        "Models", "Training and trade-offs", "Layer mapping", "Exported files", "Rows", "Reproduce it",
    ]  # fmt: skip
    assert "keeps 98.9\u00a0% of the teacher’s accuracy" in page.text
    assert page.text.index("keeps 98.9") < page.text.index("Models")
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    html, page = page_of(tmp_path, write_demo(tmp_path / "demo"))
    asking = [value for _, a in page.tags for name, value in a.items() if name in ("src", "href", "srcset", "data")]
    assert asking == ["#answer"]
    assert "url(" not in html and "@import" not in html and "fetch(" not in html
    assert "default-src 'none'" in html
    assert len(html) < 300_000


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, None, rows={})
    html, page = page_of(tmp_path, run)
    assert headings(html) == ["Models", "Reproduce it"]
    assert "No model of this task has a score yet." in page.text


def test_runs_without_a_trained_model_still_make_a_page(tmp_path: Path) -> None:
    html, page = page_of(tmp_path, write_run(tmp_path / "cut", "truncate", {"model": "m", "layers": 3}))
    assert headings(html) == ["Reproduce it"]
    assert "demiglace truncate m --layers 3 -o cut" in page.text


def test_sets_beside_the_task_have_their_table(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    found = {"hans": {"metrics": {"accuracy": 0.61}, "rows": 30000}}
    write_run(demo / "ood", "evaluate", {"model": str(demo / "distilled"), "data": ["hans"]}, sets=found)
    html, page = page_of(tmp_path, demo)
    assert "Other sets" in headings(html) and "61.0" in page.text


def test_notices_of_runs_are_listed_with_portable_paths(tmp_path: Path) -> None:
    root = tmp_path / "my runs"
    with collecting():
        notice("unused weights", f"warning: {root}/base holds 32 weights; they are not used.", weights=32)
        notice("max-length", "rows longer than --max-length 8 are cut, such as those of /old/data/train.csv.", rows=3)
        run = write_training(root / "student", "distill", {"teacher": "m"}, 0.5)
    html, page = page_of(tmp_path, run, write_training(root / "other", "finetune", {"model": "m"}, 0.5))
    assert headings(html)[-2:] == ["Notices", "Reproduce it"]
    assert re.findall(r"<li>(.*)</li>", html[html.index("<h2>Notices") :]) == [
        "<strong>Warning:</strong> my runs/base holds 32 weights; they are not used.",
        "rows longer than --max-length 8 are cut, such as those of PATH/TO/train.csv.",
    ]
    assert "2 notices" in page.text and "0 notices" not in page.text


def hostile_runs(root: Path) -> Path:
    name = "<b>run</b>\u202e"
    metrics = {split: {"accuracy": 0.5, HOSTILE: 0.25} for split in ("validation", "test")}
    with collecting():
        notice("prompt", f"{HOSTILE} has a prompt")
        run = write_training(
            root / name,
            "distill",
            {"teacher": HOSTILE, "data": HOSTILE, "student": "x" * 10_000, "method_options": {HOSTILE: "\0"}},
            0.5,
            task=HOSTILE * 300,
            metrics=metrics,
            rows=ROWS | {HOSTILE: 1, "y" * 10_000: 2},
            drops={HOSTILE: 3},
        )
    line = '{"kind": "step", "step": %d, "loss": 1.0, "terms": {"<i>a</i>": 1.0, "%s": 0.5}}\n'
    (run / "log.jsonl").write_text("".join(line % (i, "z" * 5000) for i in range(9)))
    (run / "manifest.json").write_text((run / "manifest.json").read_text().replace("Linux", "\\ud800 Linux"))
    return run


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    _, page = page_of(tmp_path, hostile_runs(tmp_path / "runs"), title=HOSTILE)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1 and "i" not in tags and "b" not in tags
    before_config = page.text[: page.text.index('"config"')]
    assert "\u202e" not in before_config  # it would turn the words after it round
    assert "alert(1)" in page.text and "{{7*7}}" in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


@pytest.mark.parametrize("name", ["teacher", "student", "distilled", "baseline", "evaluate-baseline", "export"])
def test_a_printed_command_is_the_command_that_ran(tmp_path: Path, name: str) -> None:
    import shlex

    record = next(r for r in collect([write_demo(tmp_path / "the demo")]).records if r.path.name == name)
    options = options_of(config_class_of(record.stage))
    words = shlex.split(command_line(record, options))
    assert words[:2] == ["demiglace", record.stage]
    config = build(config_class_of(record.stage), parse(words[2:], options))
    assert flatten(config, result_options_only=True) == record.config
    assert str(config.output) == str(record.path)


def test_a_command_keeps_mappings_lists_and_none(tmp_path: Path) -> None:
    import shlex

    given = {
        "teacher": "t", "data": "a b.csv", "keep": (0, 2), "dropout": None, "learning_rate": 3e-5, "allow_pickle": True,
        "text_columns": ("first", "second"), "method_options": {"sampling": "step", "size": 64, "final": True},
    }  # fmt: skip
    run = write_training(tmp_path / "run", "distill", given, 0.9)
    (record,) = collect([run]).records
    options = options_of(config_class_of("distill"))
    config = build(config_class_of("distill"), parse(shlex.split(command_line(record, options))[2:], options))
    assert flatten(config, result_options_only=True) == record.config


def test_the_page_replaces_an_older_one_whole_or_not_at_all(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, 0.9)
    (tmp_path / "page.html").write_text("older")
    with pytest.raises(RunError):
        demiglace.report(runs=[str(tmp_path / "nothing")], output=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "older"
    demiglace.report(runs=[str(run)], output=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("output", ["taken", "file/page.html"])
def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path, output: str) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, 0.9)
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        demiglace.report(runs=[str(run)], output=tmp_path / output)


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    assert page_of(tmp_path, demo)[0] == page_of(tmp_path, demo)[0]


def test_the_command_of_clean_names_its_sources(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "clean", {"sources": ["a.txt"], "rules": "web"}, sources=["data/a.txt", "b.txt"])
    for file in ("manifest.json", "run.json"):  # as `clean` writes them: its rules resolved, its sources apart
        content = json.loads((run / file).read_text())
        del content["config"]["sources"]
        content["config"]["rules"] = [{"rule": "repair", "level": 1}]
        (run / file).write_text(json.dumps(content))
    (record,) = collect([run]).records
    line = command_line(record, options_of(config_class_of("clean")))
    assert line == f"demiglace clean data/a.txt b.txt --rules RULES.yaml -o {run}"
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["sources"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    (record,) = collect([run]).records
    assert command_line(record, options_of(config_class_of("clean"))).startswith("demiglace clean SOURCES --rules")
    _, page = page_of(tmp_path, run)
    assert "MISSING_TYPE" not in page.text and "demiglace clean SOURCES" in page.text


def test_no_path_of_this_machine_is_on_the_page(tmp_path: Path) -> None:
    _, page = page_of(tmp_path, write_demo(tmp_path / "demo"))
    assert str(tmp_path) not in page.text
    assert "--teacher demo/teacher" in page.text and "-o demo/distilled" in page.text


def test_classes_have_their_confusions(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    for run in ("distilled", "baseline"):
        manifest = json.loads((demo / run / "manifest.json").read_text())
        (demo / run / "manifest.json").write_text(json.dumps(manifest | {"labels": ["cat", "dog", "<b>owl"]}))
    labels, predictions = np.array([0, 0, 1, 1, 2, -1]), np.array([0, 1, 1, 1, 0, 2])
    np.save(demo / "evaluate-distilled" / "banking77.labels.npy", labels)
    np.save(demo / "evaluate-distilled" / "banking77.predictions.npy", predictions)
    (found,) = [e.classes for e in collect([demo]).evaluations if e.classes is not None]
    texts = [[cell.text for cell in row] for row in confusion_table(found).rows]
    assert texts == [["cat", "1", "1", "0"], ["dog", "0", "2", "0"], ["<b>owl", "1", "0", "0"]]
    rows = [[cell.text for cell in row] for row in class_table(found).rows]
    assert rows == [
        ["cat", "2", "50.0", "50.0", "50.0"],
        ["dog", "2", "66.7", "100.0", "80.0"],
        ["<b>owl", "1", "–", "0.0", "0.0"],
    ]
    html, page = page_of(tmp_path, demo)
    assert "Classes" in headings(html) and "distilled on banking77" in page.text and "<b>owl" not in html
    many = ClassResults.of_classes([f"c{i}" for i in range(30)], np.eye(30, dtype=int) + 3 * np.eye(30, k=2, dtype=int))
    pairs = confusion_table(many)
    assert len(pairs.rows) == 20 and [cell.text for cell in pairs.rows[0]] == ["c0", "c2", "3"]


def test_predictions_of_numbers_have_no_classes(tmp_path: Path) -> None:
    np.save(tmp_path / "stsb.labels.npy", np.array([0.5, 1.0]))
    np.save(tmp_path / "stsb.predictions.npy", np.array([0.4, 1.0]))
    assert read_classes(tmp_path / "stsb", ["a"]) is None and read_classes(tmp_path / "rte", ["a"]) is None
