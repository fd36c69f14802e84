"""The page about a comparison: what it says, in which order, and what it must not say."""

import json
import re
from pathlib import Path

import pytest
from comparison_kit import change, one_task, write_comparison
from report_runs import write_demo
from test_report_page import HOSTILE, _Page, headings

import demiglace
from demiglace.errors import RunError
from demiglace.report.comparison.charts import pareto
from demiglace.report.comparison.detail_tables import primary_table
from demiglace.report.comparison.recommendation import answer
from demiglace.report.comparison.seed_plots import group_figures, seed_figures
from demiglace.report.comparison.tables import main_table, relative_link
from demiglace.results.contrasts import Contrast
from demiglace.results.load import is_comparison, read_comparison

SECTIONS = [
    "Methods and tasks", "Every seed", "Beyond accuracy", "Quality against cost", "Out of domain", "Parts of sets",
    "What changes against the teacher", "Training", "Layer mapping", "Failed and missing runs", "Runs", "Reproduce it",
]  # fmt: skip
FAILED = {"mrpc/half/rail-kd-l/seed-1": ("failed", "OutOfMemoryError: 12 GiB")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("compare") / "c", seeds=4, missing=FAILED, complete=False)


@pytest.fixture(scope="module")
def page(home: Path) -> str:
    return demiglace.report(runs=[str(home)], output=home.parent / "page.html").read_text(encoding="utf-8")


def test_the_sections_are_in_order_and_the_answer_is_first(page: str) -> None:
    text = _Page(page).text
    assert headings(page) == SECTIONS
    assert text.index("Ship rail-kd-l (") < text.index("Methods and tasks")
    assert "better than training without a teacher (" in text and "on average in exploratory tests." in text
    assert "1 run failed: means are over the finished seeds" in text


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    found = [v or "" for _, a in _Page(page).tags for n, v in a.items() if n in ("src", "href", "srcset", "data")]
    assert found and all(v.startswith(("#", "./c/")) for v in found)
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page


def test_every_number_leads_to_its_runs(page: str, home: Path) -> None:
    tags = _Page(page).tags
    names = {a["id"] for _, a in tags if "id" in a}
    assert {a["href"][1:] for tag, a in tags if tag == "a" and a["href"].startswith("#")} <= names
    ways = [a["href"] for tag, a in tags if tag == "a" and a["href"].startswith("./")]
    runs = 2 + 2 * 3 * 4 - 1  # the teachers and the students, of which one is missing
    assert len(ways) == 2 * runs and sum(w.endswith(".evaluation/") for w in ways) == runs
    assert all((home.parent / w / "manifest.json").exists() for w in ways)


def test_the_table_says_what_differs_in_words_too(home: Path) -> None:
    table = main_table(read_comparison(home, "t"))
    rows = {row[0].text: row for row in table.rows}
    titles = [c.title for c in table.columns]
    sst2, average = titles.index("sst2 accuracy"), titles.index("Average")
    assert (rows["rail-kd-l"][sst2].note, rows["rail-kd-l"][sst2].quiet) == ("↑ better, exploratory", False)
    assert (
        re.fullmatch(r"not significant, MDE \d+\.\d", rows["vanilla-kd"][sst2].note) and rows["vanilla-kd"][sst2].quiet
    )
    assert rows["none"][0].note == rows["vanilla-kd"][0].note == "baseline"
    assert rows["rail-kd-l"][titles.index("mrpc accuracy")].note.endswith(", 3 of 4 seeds")
    assert rows["rail-kd-l"][average].best and not rows["none"][average].best
    assert table.marks[-1] == "teacher"


def test_a_comparison_of_an_older_version_says_no_more_than_it_knows(tmp_path: Path) -> None:
    home = write_comparison(tmp_path / "c")
    change(home, "averages", lambda a: a.pop("against"))
    change(home, "cells", lambda c: [c.pop("artefacts"), c.pop("epoch_chosen_on_reported_rows")])
    summary = json.loads((home / "summary.json").read_text())
    for name in ("power", "unit", "primary", "protocol", "declared"):
        del summary[name]
    for test in (t for c in summary["cells"] for s in c["sets"].values() for t in s["against"].values()):
        for name in ("se", "df", "family", "mde", "mde_alpha"):
            del test[name]
    for teacher in summary["teachers"].values():
        del teacher["artefacts"]
    summary |= {"resamples": 10_000}
    (home / "summary.json").write_text(json.dumps(summary))
    results = json.loads((home / "results.json").read_text())
    del results["config"]
    (home / "results.json").write_text(json.dumps(results))
    tables = tmp_path / "tables"
    html = demiglace.report(runs=[str(home)], output=tmp_path / "p.html", tables=tables).read_text("utf-8")
    text = _Page(html).text
    assert "The tests are those of an earlier version of demiglace" in text and "exploratory" not in text
    assert "by the test of an earlier version of demiglace" in (tables / "tables.md").read_text("utf-8")
    assert "latency of the export, ms" in text and "int8" not in text
    assert "rail-kd-l: {}" in text  # from the manifest


def test_primary_contrasts_are_the_first_table(tmp_path: Path) -> None:
    declared = [Contrast("rail-kd-l", "vanilla-kd", None, False, 3.0), Contrast("rail-kd-l", "none", None, True, None)]
    protocol = {
        "file": "plan.md",
        "sha256": "ab" * 32,
        "declared_at": "2026-11-30T08:00",
        "changed_after_first_run": False,
    }
    home = write_comparison(tmp_path / "c", primary=declared, protocol=protocol, unit="replicate")
    text = _Page(demiglace.report(runs=[str(home)], output=tmp_path / "p.html").read_text("utf-8")).text
    assert text.index("Primary contrasts") < text.index("All methods")
    assert "declared before the first run (2026-11-30 in the protocol plan.md (SHA-256 abababababab…))" in text
    assert "corrected by Holm’s method over the 3 tests of this table" in text and "p < 0.05 / 3" in text
    assert "Every replicate" in text and "Training, one replicate" in text and " seed" not in text.split("Reproduce")[0]
    table = primary_table(read_comparison(home, "t"))
    assert [row[1].text for row in table.rows] == ["sst2", "mrpc", "average"]
    assert table.rows[0][0].text == "rail-kd-l − vanilla-kd" and "within ±3.0 points" in table.rows[0][7].text


def test_a_comparison_without_a_finished_run_makes_a_page(tmp_path: Path) -> None:
    gone = {f"sst2/half/none/seed-{s}": ("failed", "boom") for s in range(2)}
    home = one_task(tmp_path, right={"none": 0.7}, seeds=2, missing=gone)
    html = demiglace.report(runs=[str(home)], output=tmp_path / "p.html").read_text("utf-8")
    assert headings(html) == ["Failed and missing runs", "Reproduce it"]
    assert "No student has a score on every task yet." in html and "boom" in html


def test_several_students_are_compared_each_with_its_own_baseline(tmp_path: Path) -> None:
    home = one_task(tmp_path, students=("half", "third"), right={"none": 0.7, "pkd": 0.8}, seeds=3)
    found = read_comparison(home, "t")
    figures = seed_figures(found)
    assert [f.title for f in figures] == ["sst2, half", "sst2, third"]
    assert all(f.reference is not None and len(f.rows) == 2 for f in figures)
    assert all(len(row.dots) == 3 for f in figures for row in f.rows)
    assert answer(found).headline.startswith("Ship ")
    assert [c.title for c in main_table(found).columns][:2] == ["Method", "Student"]


def test_parts_of_sets_have_figures(home: Path) -> None:
    titles = [f.title for f in group_figures(read_comparison(home, "t"))]
    assert titles[:3] == ["hans: lexical_overlap", "hans: subsequence", "hans: constituent"]


def test_the_front_holds_what_nothing_beats() -> None:
    places = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (1.0, 0.6), (4.0, 0.9), (2.5, 0.7)]
    assert pareto(places) == [(1.0, 0.6), (2.5, 0.7), (3.0, 0.9)]
    assert pareto([(1.0, 0.5), (2.0, 0.3), (3.0, 0.4)], sign=-1) == [(1.0, 0.5), (2.0, 0.3)]


def test_ways_are_relative_and_no_address_of_another_kind() -> None:
    assert relative_link(Path("/a/runs/x y"), Path("/a/out")) == "./../runs/x%20y/"
    assert relative_link(Path("javascript:alert(1)"), Path()).startswith("./javascript%3A")


def test_hostile_texts_are_shown_and_run_nothing(tmp_path: Path) -> None:
    text = HOSTILE + "x" * 10_000
    home = one_task(tmp_path, seeds=2, text=text, given={"data_dir": HOSTILE})
    found = json.loads((home / "summary.json").read_text())
    found["missing"] = [{"run": HOSTILE, "status": "failed", "error": HOSTILE * 100}]
    for cell in found["cells"]:
        cell["method"], cell["student"] = f"{HOSTILE}{cell['method']}", HOSTILE
    for average in found["averages"]:
        average["method"], average["student"] = f"{HOSTILE}{average['method']}", HOSTILE
    (home / "summary.json").write_text(json.dumps(found))
    html = demiglace.report(runs=[str(home)], output=tmp_path / "p.html", title=HOSTILE).read_text("utf-8")
    assert [tag for tag, _ in _Page(html).tags].count("script") == 1
    assert "\u202e" not in html and "49" not in re.findall(r"<title>(.*?)</title>", html)[0]
    assert "<script>alert" not in html and "x" * 10_000 in html


def test_what_is_no_comparison_is_told(tmp_path: Path, home: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    assert is_comparison(home) and not is_comparison(demo)
    with pytest.raises(RunError, match="give it alone"):
        demiglace.report(runs=[str(home), str(demo)], output=tmp_path / "p.html")
    broken = one_task(tmp_path, seeds=1)
    found = json.loads((broken / "summary.json").read_text())
    found["cells"][0]["evaluations"] = ["é" * 300]  # longer than a name on a disk can be
    (broken / "summary.json").write_text(json.dumps(found))
    with pytest.raises(RunError, match="is not what this version writes"):
        demiglace.report(runs=[str(broken)], output=tmp_path / "p.html")
    (broken / "summary.json").write_text('{"cells": [{}]}')
    with pytest.raises(RunError, match="is not what this version writes"):
        demiglace.report(runs=[str(broken)], output=tmp_path / "p.html")
    (broken / "summary.json").unlink()
    with pytest.raises(RunError, match=r"has no summary\.json yet"):
        demiglace.report(runs=[str(broken)], output=tmp_path / "p.html")


def test_reproduction_names_grid_commands_and_versions(tmp_path: Path, page: str) -> None:
    home = one_task(tmp_path, seeds=1)
    html = demiglace.report(runs=[str(home)], output=tmp_path / "p.html").read_text("utf-8")
    text = _Page(html).text
    assert f"demiglace compare GRID.yaml -o {home.name}" in text and "rail-kd-l: {}" in text
    assert (
        f"-o {home.name}/sst2/half/none/seed-0" in text
        and str(tmp_path) not in text
        and "demiglace" in text.split("Versions")[1]
    )
    assert "rail-kd-l: {}" in _Page(page).text  # though a run failed and there is no manifest


def test_the_page_names_the_family_of_its_corrections_and_the_artefact_that_was_timed(page: str) -> None:
    text = _Page(page).text
    assert text.count("Tests are paired t-tests of the mean difference over seeds.") == 5
    assert text.count("A corrected p is given for primary tests alone") == 4
    assert "latency of the fp32 export, ms (p50, batch 1)" in text


def test_what_is_of_one_seed_says_so(page: str) -> None:
    text = _Page(page).text
    assert "with its highest confidence, first seed" in text and "from its teacher, first seed:" in text
    assert "First seed of each method." in text and "first seed of each method" in text


def test_two_hundred_runs_fit_in_five_megabytes(tmp_path: Path) -> None:
    right = {"none": 0.7, "vanilla-kd": 0.71} | {f"method-{i}": 0.72 + i / 100 for i in range(18)}
    home = write_comparison(tmp_path / "c", right=right, seeds=5, steps=800, rows=4)
    html = demiglace.report(runs=[str(home)], output=tmp_path / "p.html").read_text("utf-8")
    assert "202 finished runs, teachers first" in html
    assert len(html.encode()) < 5_000_000
