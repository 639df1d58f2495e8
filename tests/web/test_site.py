"""A site that opens from its folder, in a real Chromium without a server."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from sememe.errors import SememeError, UsageError
from sememe.web.site import export_site
from tests.web.small_atlas import FEATURES, REPORT
from tests.web.test_browser import browser as browser


@pytest.fixture(scope="module")
def site(atlas, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "all"
    assert export_site(atlas, out, report=REPORT) == FEATURES
    return out


def answer(site: Path, path: str) -> dict:
    """What a script of the site hands to the pages."""
    script = (site / path).read_text().splitlines()[-1]
    return json.loads(re.fullmatch(r'__sememe__\["[^"]*"\] = (.*);', script)[1])


def test_the_site_holds_what_the_server_answers(site, client):
    for number in (0, 19, 28, FEATURES - 1):
        served = client.get(f"/feature/{number}.json").json()
        assert answer(site, f"data/feature/{number}.js") == served
    rows = client.get(f"/features.json?limit={FEATURES}&sort=feature&order=asc").json()["rows"]
    assert answer(site, "data/features.js")["rows"] == rows
    assert answer(site, "data/clusters.js") == client.get("/clusters.json").json()
    index = answer(site, "data/index.js")
    assert (index["prompt"], index["notes"], index["map"]) == (False, False, True)


def test_chosen_features_lead_to_each_other(atlas, tmp_path):
    assert export_site(atlas, tmp_path / "few", features=[40, 7, 7, 12]) == 3
    pages = [answer(tmp_path / "few", f"data/feature/{number}.js") for number in (7, 12, 40)]
    assert [(page["previous"], page["next"]) for page in pages] == [(None, 12), (7, 40), (12, None)]
    assert not (tmp_path / "few/data/feature/8.js").exists()
    assert export_site(atlas, tmp_path / "few", features=[1]) == 1
    assert [*(tmp_path / "few/data/feature").iterdir()] == [tmp_path / "few/data/feature/1.js"]


def test_wrong_sites_are_refused(atlas, tmp_path):
    with pytest.raises(UsageError, match=f"feature {FEATURES}: expected a number from 0"):
        export_site(atlas, tmp_path / "a", features=[FEATURES])
    (tmp_path / "mine").write_text("x")
    with pytest.raises(SememeError, match="is not empty and holds no site"):
        export_site(atlas, tmp_path)
    assert (tmp_path / "mine").read_text() == "x"


@pytest.fixture
def page(browser, site):
    shown = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    wrong, asked = [], []
    shown.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto((site / "index.html").as_uri())
    yield shown
    assert wrong == []
    assert all(url.startswith("file:///") for url in asked)
    assert shown.evaluate("window.hacked") is None
    shown.context.close()


@pytest.mark.browser
def test_a_person_wanders_through_files(page: Page):
    expect(page.locator("h1")).to_have_text(f"{FEATURES} features of small-test-model")
    page.goto(re.sub("#.*", "", page.url) + "#/feature/1?interval=2")
    expect(page.locator("h1")).to_have_text("Feature 1")
    expect(page.get_by_role("tab").nth(2)).to_have_attribute("aria-selected", "true")
    page.locator(".neighbours a").first.click()
    expect(page.locator("h1")).to_have_text("Feature 2")
    expect(page).to_have_url(re.compile(r"index\.html#/feature/2$"))
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text("Feature 3")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Feature 2")
    page.reload()
    expect(page.locator("h1")).to_have_text("Feature 2")
    page.goto(re.sub("#.*", "", page.url) + "#/feature/28")
    expect(page.locator(".example .peak").first).to_contain_text("<script>")


@pytest.mark.browser
def test_lists_are_sorted_and_searched_as_by_the_server(page: Page, client):
    base = re.sub("#.*", "", page.url)
    for query in ("sort=maximum&order=desc", "sort=feature&order=asc", "search=harbour&by=fires"):
        page.goto(f"{base}#/?{query}")
        page.reload()
        expect(page.get_by_role("rowheader").first).to_be_visible()
        rows = client.get(f"/features.json?limit=50&{query}").json()["rows"]
        if "search" in query:  # a site looks in the tokens that it shows
            rows = [row for row in rows if any("harbour" in text for text in row["tokens"])]
        shown = page.locator("[role=rowheader] a").all_inner_texts()
        expected = [str(row["feature"]) for row in rows]
        if "search" in query:
            assert set(shown) >= set(expected)
        else:
            assert len(shown) > 5
            assert shown == expected[: len(shown)]
