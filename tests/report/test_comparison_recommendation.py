"""The answer of a comparison: what to ship, in which words, and measured against which baseline."""

import json
import re
from dataclasses import replace
from pathlib import Path

from comparison_kit import change, one_task, write_comparison

from demiglace.report.comparison.recommendation import answer
from demiglace.results.contrasts import Contrast
from demiglace.results.load import read_comparison
from demiglace.results.ranking import chosen, shipped
from demiglace.results.schema import SeedStats


def test_where_nothing_differs_the_cheapest_is_shipped(tmp_path: Path) -> None:
    found = read_comparison(one_task(tmp_path, right={"none": 0.7, "vanilla-kd": 0.7, "pkd": 0.72}), "t")
    printed = answer(found)
    score = found.score(("half", "none"))
    assert printed.headline == f"No method beats training without a teacher. Ship `none` ({100 * score:.1f})."
    best = next(n for n in printed.notes if n.startswith("The best student with a teacher, pkd, reaches 7"))
    mde = found.against(("half", "pkd"), "none").mde
    assert f": no significant difference (detectable: {100 * mde:.1f} points)" in best
    assert best.endswith("none is also the cheapest to train.")
    assert "No method is significantly better than no teacher on any task." in printed.notes
    high = found.against(("half", "pkd"), "none").interval[1]
    assert high > 0.01 and f"; a gain of up to {100 * high:.1f} points is not excluded." in best
    near = {name: replace(d, interval=(-0.02, 0.009)) for c in found.cells for name, d in c.own.against.items()}
    close = [replace(c, sets={"sst2": replace(c.own, against=near if c.own.against else {})}) for c in found.cells]
    assert not any("excluded" in n for n in answer(replace(found, cells=tuple(close))).notes)


def test_where_no_teacher_is_best_it_says_so(tmp_path: Path) -> None:
    found = read_comparison(one_task(tmp_path, right={"none": 0.8, "vanilla-kd": 0.6}), "t")
    assert answer(found).headline.startswith(
        "Plain distillation does not beat training without a teacher. Ship `none` ("
    )


def test_the_best_of_all_is_no_method_where_another_student_needs_none(tmp_path: Path) -> None:
    home = one_task(tmp_path, students=("half", "third"), right={"none": 0.7, "pkd": 0.8})
    found = read_comparison(home, "t")
    best = ("third", "none")
    cells = [replace(c, sets={"sst2": replace(c.own, score=SeedStats(0.9, 0.0, (0.9,) * 3))}) if c.key == best else c
             for c in found.cells]  # fmt: skip
    assert shipped(replace(found, cells=tuple(cells))) == best


def test_the_test_of_the_average_is_stated(tmp_path: Path) -> None:
    right = {"none": 0.7, "vanilla-kd": 0.7, "pkd": 0.78}
    declared = [Contrast("pkd", "none", None, True, None)]
    printed = answer(read_comparison(write_comparison(tmp_path / "c", seeds=4, right=right, primary=declared), "t"))
    assert re.fullmatch(
        r"Ship `pkd` \(\d\d\.\d\): significantly better than training without a teacher \(\d\d\.\d\) on average\.",
        printed.headline,
    )
    assert any(
        n.startswith("On average over the tasks pkd differs")
        and ", corrected p " in n
        and n.endswith(": significantly better.")
        for n in printed.notes
    )
    assert any(n.startswith("Primary: pkd − none on average over sst2 and mrpc: +") for n in printed.notes)
    other = answer(read_comparison(write_comparison(tmp_path / "d", seeds=4, right=right), "t"))
    assert other.headline.endswith(" on average in exploratory tests.") and "significantly" not in other.headline
    assert any(
        n.startswith("On average over the tasks pkd differs")
        and ", uncorrected p " in n
        and n.endswith(": better (exploratory).")
        for n in other.notes
    )
    assert "No contrast was declared as primary: all differences are exploratory and uncorrected." in other.notes
    assert "exploratory" in " ".join(label for _, label in other.figures)


def test_primary_tests_choose_before_exploratory_ones(tmp_path: Path) -> None:
    right = {"none": 0.7, "vanilla-kd": 0.7, "pkd": 0.8, "alp-kd": 0.9}
    free = read_comparison(one_task(tmp_path / "a", right=right), "t")
    assert chosen(free) == ("half", "alp-kd")
    declared = [Contrast("pkd", "none", None, False, None), Contrast("alp-kd", "pkd", None, False, 2.0)]
    found = read_comparison(one_task(tmp_path / "b", right=right, primary=declared), "t")
    assert chosen(found) == ("half", "pkd")
    printed = answer(found)
    assert printed.headline.startswith("Ship `pkd` (") and "): significantly better than training" in printed.headline
    assert any(n.startswith("Better than no teacher in exploratory tests: alp-kd (sst2)") for n in printed.notes)
    assert any(
        n.startswith("Primary: alp-kd − pkd on sst2: +") and "not shown to be equivalent within ±2.0 points" in n
        for n in printed.notes
    )


def test_what_a_primary_test_could_have_seen_is_stated(tmp_path: Path) -> None:
    declared = [Contrast("pkd", "none", None, False, 20.0), Contrast("pkd", "vanilla-kd", None, False, None)]
    right = {"none": 0.7, "vanilla-kd": 0.7, "pkd": 0.7}
    found = read_comparison(one_task(tmp_path, right=right, primary=declared, seeds=5), "t")
    first = next(n for n in answer(found).notes if n.startswith("Primary: pkd − none on sst2: "))
    mde = found.primary[0].test.mde
    assert f"no significant difference (detectable: {100 * mde:.1f} points); equivalent within ±20.0 points" in first
    many = [found.primary[0]] * 7
    notes = answer(replace(found, primary=tuple(many))).notes
    assert "Of 7 primary contrasts: 7 no significant difference." in notes


def test_a_primary_contrast_without_runs_is_named(tmp_path: Path) -> None:
    gone = {f"sst2/half/pkd/seed-{s}": ("failed", "boom") for s in range(3)}
    declared = [Contrast("pkd", "none", None, False, 1.0)]
    home = one_task(tmp_path, right={"none": 0.7, "vanilla-kd": 0.7, "pkd": 0.7}, missing=gone, primary=declared)
    assert "Primary: pkd − none on sst2: not tested, runs are missing." in notes_of(home)


def test_smaller_students_are_named_and_not_called_tested(tmp_path: Path) -> None:
    home = one_task(tmp_path, students=("half", "six-layers"), right={"none": 0.7, "pkd": 0.8})
    change(
        home,
        "cells",
        lambda c: c["sets"]["sst2"]["metrics"]["accuracy"].update(mean=0.9) if c["student"] != "half" else None,
    )
    notes = answer(read_comparison(home, "t")).notes
    assert any(n.startswith("Smaller: half, pkd reaches ") and "students are not tested" in n for n in notes)


def test_rows_that_choose_the_epoch_and_are_reported_on_are_told(tmp_path: Path) -> None:
    home = write_comparison(tmp_path / "c")
    assert any("chosen on the reported rows on sst2: those scores are a little high" in n for n in notes_of(home))
    change(home, "cells", lambda c: c.update(epoch_chosen_on_reported_rows=False))
    assert not any("a little high" in n for n in notes_of(home))


def notes_of(home: Path) -> tuple[str, ...]:
    return answer(read_comparison(home, "t")).notes


def test_two_seeds_tell_nothing(tmp_path: Path) -> None:
    found = read_comparison(one_task(tmp_path, seeds=2), "t")
    assert "too few seeds to compare it with training without a teacher (" in answer(found).headline
    assert "0 of 1" not in [value for value, _ in answer(found).figures]


def test_without_a_baseline_nothing_is_said_of_the_teacher(tmp_path: Path) -> None:
    found = read_comparison(one_task(tmp_path, right={"pkd": 0.8, "alp-kd": 0.7}), "t")
    assert "there is no baseline without a teacher" in answer(found).headline


def test_a_method_without_all_tasks_is_not_chosen(tmp_path: Path) -> None:
    gone = {f"mrpc/half/rail-kd-l/seed-{s}": ("missing", "") for s in range(2)}
    found = read_comparison(write_comparison(tmp_path / "c", seeds=2, missing=gone), "t")
    assert found.score(("half", "rail-kd-l")) is None and chosen(found) == ("half", "vanilla-kd")


def test_a_baseline_without_all_tasks_is_not_shipped(tmp_path: Path) -> None:
    gone = {f"mrpc/half/none/seed-{s}": ("missing", "") for s in range(3)}
    home = write_comparison(tmp_path / "c", missing=gone, right={"none": 0.7, "pkd": 0.7, "alp-kd": 0.71})
    assert "its baseline without a teacher lacks a task" in answer(read_comparison(home, "t")).headline


def test_what_has_no_finished_run_is_named(tmp_path: Path) -> None:
    gone = {f"mrpc/half/{m}/seed-{s}": ("failed", "no memory") for m in ("none", "pkd") for s in range(3)}
    gone |= {f"sst2/half/pkd/seed-{s}": ("failed", "no memory") for s in range(3)}
    home = write_comparison(tmp_path / "c", missing=gone, right={"none": 0.7, "pkd": 0.7})
    assert "No run of mrpc and pkd is finished: tables and means are without them." in notes_of(home)


def test_the_baseline_is_the_method_of_its_name(tmp_path: Path) -> None:
    home = one_task(tmp_path, right={"none-short": 0.6, "none": 0.7, "pkd": 0.8})
    change(home, "cells", lambda c: c.update(method_name="none", baseline=True) if "none" in c["method"] else None)
    found = read_comparison(home, "t")
    assert found.without_teacher(("half", "pkd")) == ("half", "none")
    assert [found.baseline_of(k) for k in found.keys] == ["", "none", ""]
    change(home, "cells", lambda c: c.update(method=c["method"].replace("none", "plain")))
    assert read_comparison(home, "t").without_teacher(("half", "pkd")) == ("half", "plain-short")


def test_the_baseline_has_the_same_axes(tmp_path: Path) -> None:
    home = one_task(tmp_path, right={"none": 0.7, "pkd": 0.8})
    entries = json.loads((home / "summary.json").read_text())
    entries["cells"] = [c | {"axes": {"lr": lr}} for c in entries["cells"] for lr in (0.1, 0.2)]
    (home / "summary.json").write_text(json.dumps(entries))
    assert read_comparison(home, "t").without_teacher(("half", "pkd, lr 0.2")) == ("half", "none, lr 0.2")


def test_a_method_that_tests_find_better_is_shipped_though_another_has_a_higher_mean(tmp_path: Path) -> None:
    right = {"none": 0.7, "vanilla-kd": 0.71, "pkd": 0.8, "alp-kd": 0.82}
    home = write_comparison(tmp_path / "c", seeds=4, right=right)

    def judge(cell: dict) -> None:
        verdict = "better" if cell["method"] == "pkd" else "no significant difference"
        for found in (cell["sets"][cell["in_domain"]] if "sets" in cell else cell)["against"].values():
            for each in [found] if "verdict" in found else found.values():
                each["verdict"] = verdict

    change(home, "cells", judge)
    change(home, "averages", judge)
    printed = answer(read_comparison(home, "t"))
    assert printed.headline.startswith("Ship `pkd` (") and printed.headline.endswith("on average in exploratory tests.")
    assert any(n.startswith("alp-kd has the higher mean (") and "no test finds it better" in n for n in printed.notes)
    assert any(
        n.startswith("pkd was chosen from 3 students with a teacher by these same scores") for n in printed.notes
    )
    assert not any(n.startswith("Also") for n in printed.notes)


def test_key_figures_begin_with_what_is_shipped(tmp_path: Path) -> None:
    home = one_task(tmp_path, students=("half", "third"), right={"none": 0.8, "vanilla-kd": 0.6})
    printed = answer(read_comparison(home, "t"))
    student = printed.headline.split("`")[1].split(",")[0]
    assert printed.figures[0][1] == f"accuracy of {student} without a teacher"
    assert any(label == f"of the teacher’s size: {student}" for _, label in printed.figures)
    assert any(" of what the teacher reaches (" in n for n in printed.notes)


def test_what_was_not_tested_everywhere_is_not_called_the_same(tmp_path: Path) -> None:
    home = write_comparison(tmp_path / "c", seeds=4, right={"none": 0.7, "vanilla-kd": 0.7, "pkd": 0.72})

    def judge(cell: dict) -> None:
        for found in cell["sets"][cell["in_domain"]]["against"].values():
            found["verdict"] = "too few seeds to tell" if cell["task"] == "sst2" else "no significant difference"

    change(home, "cells", judge)
    assert "Ship `none`" not in answer(read_comparison(home, "t")).headline


def test_a_baseline_is_never_called_a_method(tmp_path: Path) -> None:
    found = read_comparison(one_task(tmp_path / "a", right={"none": 0.6, "vanilla-kd": 0.85, "pkd": 0.62}), "t")
    headline = answer(found).headline
    assert headline.startswith("No method beats plain distillation. Ship the baseline `vanilla-kd` (")
    alone = read_comparison(one_task(tmp_path / "b", right={"none": 0.6, "vanilla-kd": 0.85}), "t")
    assert answer(alone).headline.startswith("Ship the baseline `vanilla-kd` (")
    few = read_comparison(one_task(tmp_path / "c", right={"none": 0.6, "vanilla-kd": 0.85}, seeds=2), "t")
    assert answer(few).headline.startswith("The baseline `vanilla-kd` (")
