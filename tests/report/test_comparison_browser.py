"""The page about a comparison in a real browser. Skipped where there is no Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison_kit import write_comparison
from test_report_browser import CONTRASTS, browser, opened  # noqa: F401  (a fixture)
from test_report_page import HOSTILE

import demiglace

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
FAILED = {"mrpc/half/rail-kd-l/seed-1": ("failed", "OutOfMemoryError: 12 GiB")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("comparisons")
    homes = {
        "plain": write_comparison(root / "plain", seeds=3, missing=FAILED),
        "hostile": write_comparison(
            root / "hostile",
            tasks=("sst2",),
            right={"none": 0.7, "<b>\u202e{{7*7}}" + "y" * 60: 0.8},
            seeds=2,
            text=HOSTILE + "x" * 10_000,
            given={"data_dir": HOSTILE},
        ),
    }
    yield {name: page_of(home, HOSTILE if name == "hostile" else "A comparison") for name, home in homes.items()}


def page_of(home: Path, title: str) -> str:
    return demiglace.report(runs=[str(home)], output=home.with_suffix(".html"), title=title).as_uri()


def unfold(page: Any) -> None:
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_nothing_is_wider_than_the_screen_and_nothing_complains(
    browser: Any,  # noqa: F811
    pages: dict[str, str],
    name: str,
    width: int,
) -> None:
    page, said = opened(browser, pages[name], width)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []


def test_hostile_rows_are_text(browser: Any, pages: dict[str, str]) -> None:  # noqa: F811
    page, said = opened(browser, pages["hostile"])
    unfold(page)
    row = page.locator("blockquote").first
    assert row.inner_text().startswith("<script>alert(1)</script>") and len(row.inner_text()) > 10_000
    assert row.bounding_box()["height"] < 200
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, pages: dict[str, str], scheme: str) -> None:  # noqa: F811
    page = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme, bypass_csp=True).new_page()
    page.goto(pages["plain"])
    unfold(page)
    found = axe.Axe().run(page).response["violations"]
    grave = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert grave == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(
    browser: Any,  # noqa: F811
    pages: dict[str, str],
    scheme: str,
) -> None:
    page, _ = opened(browser, pages["plain"], scheme=scheme)
    unfold(page)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 300
    assert [f for f in found if f[1] < 4.5] == []


def test_a_heading_sorts_by_number_and_keeps_the_notes(browser: Any, pages: dict[str, str]) -> None:  # noqa: F811
    page, _ = opened(browser, pages["plain"])
    table = page.locator(".results table")
    names = lambda: [n.split("\n")[0] for n in table.locator("tbody th").all_inner_texts()]  # noqa: E731
    button = table.locator("thead button", has_text="sst2 accuracy")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert names()[:2] == ["teacher", "rail-kd-l"]
    assert table.locator("[aria-sort=descending]").count() == 1
    assert table.locator("tbody tr").nth(1).locator("td").first.inner_text().endswith("↑ better, exploratory")


def test_the_tests_unfold_and_sort_from_the_keyboard(browser: Any, pages: dict[str, str]) -> None:  # noqa: F811
    page, _ = opened(browser, pages["plain"])
    tests = page.locator("details", has_text="Tests: the tasks’ rows")
    assert tests.locator("table").is_hidden()
    tests.locator("summary").focus()
    page.keyboard.press("Enter")
    tests.locator("thead button", has_text="Difference").focus()
    page.keyboard.press("Enter")
    shown = tests.locator("tbody tr td:nth-of-type(3)").all_inner_texts()
    values = [float(text.replace("−", "-")) for text in shown]
    assert len(values) == 8 and values == sorted(values) and values[0] < 0 < values[-1]


def test_marks_speak_under_the_pointer_and_with_the_arrow_keys(browser: Any, pages: dict[str, str]) -> None:  # noqa: F811
    page, _ = opened(browser, pages["plain"])
    tip = page.locator("#tip")
    assert tip.is_hidden()
    mark = page.locator(".strips .mean").first
    mark.scroll_into_view_if_needed()
    page.evaluate(TWO_FRAMES)  # behind the scrolling, which hides what is shown
    mark.hover()
    assert tip.is_visible() and tip.inner_text().startswith("none: mean ")
    page.locator(".strips .plot").first.focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("none, seed 0: ")
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.locator("figure.chart > svg").first.focus()
    page.keyboard.press("ArrowRight")
    assert "ms" in tip.inner_text()


def test_a_number_opens_the_list_of_its_runs(browser: Any, pages: dict[str, str]) -> None:  # noqa: F811
    page, _ = opened(browser, pages["plain"])
    page.locator(".results td a").first.click()
    assert page.locator("th:target").is_visible()
    assert page.locator("th:target").inner_text() == "sst2/half/rail-kd-l/seed-0"


def test_on_paper_the_page_is_light_and_open(browser: Any, pages: dict[str, str]) -> None:  # noqa: F811
    page, _ = opened(browser, pages["plain"], width=690, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.pdf(format="A4").startswith(b"%PDF")
