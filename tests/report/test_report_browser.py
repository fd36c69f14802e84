"""The page in a real browser: layout, sorting, theme, contrast. Skipped where there is no Chromium."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from report_runs import write_demo
from test_report_page import HOSTILE, hostile_runs

import demiglace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium here, so the report is not looked at in a browser", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests of the report need playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("report")
    runs = {"demo": write_demo(root / "demo"), "hostile": hostile_runs(root / "hostile")}
    titles = {"demo": "A demo", "hostile": HOSTILE}
    return {
        name: demiglace.report(runs=[str(run)], output=root / f"{name}.html", title=titles[name]).as_uri()
        for name, run in runs.items()
    }


def opened(browser: Any, uri: str, width: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
    page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url != uri and said.append(request.url))
    page.goto(uri)
    return page, said


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", ["demo", "hostile"])
def test_nothing_is_wider_than_the_screen_and_nothing_complains(
    browser: Any, pages: dict[str, str], name: str, width: int
) -> None:
    page, said = opened(browser, pages[name], width)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") < 16_000
    assert said == []


def test_a_click_or_a_key_on_a_heading_sorts(browser: Any, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["demo"])
    table = page.locator("table.sortable").first
    names = lambda: [n.split(" ")[0] for n in table.locator("tbody th").all_inner_texts()]  # noqa: E731
    head = table.locator("thead th", has_text="Accuracy")
    head.locator("button").click()
    assert names() == ["baseline", "distilled", "teacher"] and head.get_attribute("aria-sort") == "ascending"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert names() == ["teacher", "distilled", "baseline"] and head.get_attribute("aria-sort") == "descending"
    latency = table.locator("thead th", has_text="Latency p50").locator("button")
    latency.click()
    assert names() == ["distilled", "teacher", "baseline"]  # what was not measured comes last
    latency.click()
    assert names() == ["teacher", "distilled", "baseline"]
    assert table.locator("[aria-sort]").count() == 1


def test_the_theme_follows_the_system_and_the_button_is_remembered(browser: Any, pages: dict[str, str]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light, _ = opened(browser, pages["demo"], scheme="light")
    dark, _ = opened(browser, pages["demo"], scheme="dark")
    assert light.evaluate(paper) != dark.evaluate(paper)
    light.click("#theme")
    assert light.evaluate(paper) == dark.evaluate(paper)
    light.reload()
    assert light.evaluate(paper) == dark.evaluate(paper)
    assert light.inner_text("#theme") == "Light theme"


CONTRASTS = """() => {
  const rgb = (c) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b)) + .05);
  const texts = [...document.querySelectorAll("main *, header *, footer *")].filter((e) =>
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility());
  return texts.map((e) => {
    const style = getComputedStyle(e);
    return [e.textContent.trim().slice(0, 30), ratio(rgb(e.closest("svg") ? style.fill : style.color), behind(e))];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(browser: Any, pages: dict[str, str], scheme: str) -> None:
    page, _ = opened(browser, pages["demo"], scheme=scheme)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert [f for f in found if f[1] < 4.5] == []


def test_on_paper_the_page_is_light_and_open(browser: Any, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["demo"], width=690, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.eval_on_selector_all("details", "all => all.every(d => d.open)")


def test_without_scripts_the_page_still_reads(browser: Any, pages: dict[str, str]) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(pages["demo"])
    assert page.locator("#theme").is_hidden() and page.locator("thead button").count() == 0
    assert "keeps 98.9" in page.inner_text("main")
