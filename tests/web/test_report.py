"""The report of the evaluation: its JSON, and the page in a real Chromium."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from sememe.web.site import export_site
from tests.web.conftest import admitted, serving
from tests.web.small_report import HOSTILE, small_report, write_small_reports
from tests.web.test_browser import CONTRAST, _goto, _opened
from tests.web.test_browser import browser as browser
from tests.web.test_browser import context as context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_reports(tmp_path_factory.mktemp("evaluation"), "quick", "standard")


@pytest.fixture(scope="module")
def reported(atlas, folder: Path) -> Iterator[str]:
    with serving(atlas, evaluation=folder) as found:
        yield found


@pytest.fixture
def page(context, reported: str) -> Iterator[Page]:
    for page in _opened(context, reported):
        _goto(page, "/report")
        expect(page.locator("h1")).to_have_text("Evaluation beside its controls")
        yield page


def test_the_server_gives_the_reports_as_they_are_the_fullest_first(reported: str) -> None:
    with admitted(reported) as client:
        written = [json.loads(json.dumps(small_report(suite))) for suite in ("standard", "quick")]
        assert client.get("/report.json").json() == {"reports": written}
        assert client.get("/index.json").json()["suites"] == ["standard", "quick"]
        assert client.get("/report").text.startswith("<!doctype html>")


def test_a_report_shows_up_while_the_server_runs(atlas, tmp_path: Path) -> None:
    with serving(atlas, evaluation=tmp_path / "later") as found, admitted(found) as client:
        assert client.get("/report.json").json() == {"reports": []}
        assert client.get("/index.json").json()["suites"] == []
        write_small_reports(tmp_path / "later", "quick")
        assert len(client.get("/report.json").json()["reports"]) == 1
        assert client.get("/index.json").json()["suites"] == ["quick"]


def test_without_a_folder_there_are_no_reports(client: httpx.Client) -> None:
    assert client.get("/report.json").json() == {"reports": []}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no report of an evaluation"),
        ('{"format": 1}', "missing required field"),
        (json.dumps({**small_report(), "format": 9}), "has format 9, and this version reads 1"),
    ],
)
def test_a_file_that_is_no_report_is_named(atlas, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "full.json").write_text(text)
    with serving(atlas, evaluation=tmp_path) as found, admitted(found) as client:
        answer = client.get("/report.json")
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert str(tmp_path / "full.json") in error
        assert said in error
        assert "make it anew" in error


def _plot(page: Page, title: str):
    return page.locator(".metrics > .panel").filter(has=page.get_by_text(title, exact=True))


@pytest.mark.browser
def test_verdicts_are_in_words_and_figures_beside_their_plots(page: Page) -> None:
    expect(page.get_by_role("region", name="How it was made")).to_contain_text("a1b2")
    summary = page.locator(".summary")
    expect(summary).to_contain_text("On 1 of 2 metrics that have a verdict")
    expect(summary).to_contain_text("KL divergence: no better than pca")

    beaten = _plot(page, "unexplained")
    expect(beaten).to_contain_text("beats its controls")
    names = beaten.get_by_role("rowheader")
    expect(names).to_have_text(["dictionary", "pca", "neurons", "another seed"])
    first = beaten.get_by_role("row").nth(1)
    expect(first).to_contain_text("0.160")
    expect(first).to_contain_text("0.152 to 0.168")

    equal = _plot(page, "KL divergence")
    expect(equal).to_contain_text("no better than pca")
    expect(equal.get_by_role("rowheader", name="pca")).to_contain_text("not beaten")
    expect(equal.get_by_role("rowheader", name="neurons")).not_to_contain_text("not beaten")
    expect(_plot(page, "active features")).to_contain_text("describes only")


@pytest.mark.browser
def test_dots_and_intervals_stand_where_the_figures_are(page: Page) -> None:
    row = small_report()["sections"][0]["rows"][0]
    order = ["dictionary", "pca", "neurons", "another seed"]
    figures = [row["figures"][name] for name in order]
    low = min(figure["low"] for figure in figures)
    high = max(figure["high"] for figure in figures)

    def share(value: float) -> float:
        return 4 + 92 * (value - low) / (high - low)

    circles = _plot(page, "unexplained").locator("circle")
    at = [float(circle.get_attribute("cx").rstrip("%")) for circle in circles.all()]
    assert at == pytest.approx([share(figure["value"]) for figure in figures])
    lines = _plot(page, "unexplained").locator("line.interval")
    for line, figure in zip(lines.all(), figures, strict=True):
        ends = [float(line.get_attribute(end).rstrip("%")) for end in ("x1", "x2")]
        assert ends == pytest.approx([share(figure["low"]), share(figure["high"])])


@pytest.mark.browser
def test_what_things_are_opens_by_keyboard(page: Page) -> None:
    what = _plot(page, "KL divergence").locator("summary")
    expect(what).to_contain_text("left out on 1 arm")
    what.focus()
    page.keyboard.press("Enter")
    expect(_plot(page, "KL divergence")).to_contain_text("In nats.")
    expect(_plot(page, "KL divergence")).to_contain_text("Left out on another seed: it has none")
    arms = page.locator(".summary summary")
    expect(arms).to_have_text("The 4 arms that were measured, and 1 left out")
    arms.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".summary")).to_contain_text("Principal components.")
    expect(page.locator(".summary")).to_contain_text("needs 1,000 rows")
    jump = page.locator(".summary").get_by_role("button", name="KL divergence")
    jump.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#metric-kl")).to_be_focused()


@pytest.mark.browser
def test_details_known_and_unknown_are_shown_and_hostile_names_are_inert(page: Page) -> None:
    sources = page.get_by_role("region", name="Variance unexplained by source")
    expect(sources.get_by_role("row")).to_have_count(3)
    expect(sources).to_contain_text(HOSTILE)
    expect(page.locator("img")).to_have_count(0)
    dense = page.get_by_role("region", name="Dense features")
    expect(dense).to_contain_text("9, −0.95")
    expect(page.locator("dl").last).to_contain_text("deep 1, deeper 2.50")
    page.get_by_label("Fidelity: details of").select_option("pca")
    expect(dense.get_by_role("link")).to_have_count(0)  # pca's features have no pages
    page.get_by_label("Fidelity: details of").select_option("dictionary")
    dense.get_by_role("link", name="7").click()
    expect(page.locator("h1")).to_have_text("Feature 7")


@pytest.mark.browser
def test_suites_are_switched_and_home_leads_here(page: Page) -> None:
    expect(page.locator("pre")).to_have_text("sememe evaluate runs/small --suite standard")
    page.get_by_role("link", name="quick").click()
    expect(page).to_have_url(re.compile(r"/report\?suite=quick$"))
    expect(page.locator("pre")).to_have_text("sememe evaluate runs/small --suite quick")
    _goto(page, "/")
    page.get_by_role("link", name="How good they are").click()
    expect(page.locator("h1")).to_have_text("Evaluation beside its controls")


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_the_report_reads_well(browser: Browser, reported: str, scheme: str, width: int) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    for page in _opened(context, reported):
        _goto(page, "/report")
        expect(page.locator("h1")).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        contrast = page.evaluate(CONTRAST)
        assert contrast["seen"] > 20
        assert contrast["found"] == []
    context.close()


@pytest.mark.browser
def test_a_site_without_a_server_has_the_report(atlas, folder, tmp_path, browser: Browser) -> None:
    export_site(atlas, tmp_path / "site", features=[1, 7], evaluation=folder)
    page = browser.new_page()
    page.goto((tmp_path / "site/index.html").as_uri())
    page.get_by_role("link", name="How good they are").click()
    expect(page.locator(".summary")).to_contain_text("KL divergence: no better than pca")
    page.close()
