"""The pages in a real Chromium, driven as a person would."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.web.small_atlas import FEATURES, HOSTILE

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium or Chrome here; Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    yield from _opened(context, address)


def _opened(context: BrowserContext, address: str) -> Iterator[Page]:
    """Open the home page; afterwards nothing may have gone wrong, been run or been fetched."""
    shown = context.new_page()
    shown.set_default_timeout(10_000)
    wrong: list[str] = []
    strangers: list[str] = []
    base = str(httpx.URL(address).copy_with(path="/", query=None))
    shown.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("dialog", lambda dialog: wrong.append(dialog.message))
    shown.on(
        "request",
        lambda request: (
            None
            if request.url.removeprefix("blob:").startswith(base)
            else strangers.append(request.url)
        ),
    )
    shown.goto(address)
    assert shown.url == base
    expect(shown.get_by_role("row").first).to_be_visible()
    yield shown
    assert shown.evaluate("window.hacked") is None
    assert wrong == []
    assert strangers == []


def _goto(page: Page, path: str) -> None:
    page.goto(re.sub(r"(://[^/]*).*", r"\1", page.url) + path)


def test_a_person_wanders_from_home_to_a_feature_and_on_to_a_prompt(page):
    expect(page.locator("h1")).to_have_text(f"{FEATURES} features of small-test-model")
    expect(page.get_by_text("76.4 %")).to_be_visible()
    expect(page.locator("a.card")).to_have_count(6)

    page.keyboard.press("/")
    search = page.get_by_role("searchbox")
    expect(search).to_be_focused()
    search.press_sequentially("harbour")
    expect(page).to_have_url(re.compile(r"\?search=harbour$"))
    expect(page.locator("#all")).to_have_text("Features with “harbour”")
    expect(page.get_by_role("row").filter(has_text="harbour").first).to_be_visible()
    page.get_by_role("table").get_by_role("link", name="1", exact=True).click()

    expect(page).to_have_url(re.compile(r"/feature/1$"))
    expect(page.locator("h1")).to_have_text("Feature 1")
    expect(page.locator(".example .peak").first).to_have_text(" harbour")

    page.get_by_role("tab").nth(3).click()
    expect(page).to_have_url(re.compile(r"interval=3$"))
    expect(page.get_by_role("tab").nth(3)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#examples")).to_contain_text("From")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab").nth(2)).to_be_focused()
    expect(page).to_have_url(re.compile(r"/feature/1\?interval=2$"))

    page.locator(".neighbours a").first.click()
    expect(page.locator("h1")).to_have_text("Feature 2")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text("Feature 3")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text("Feature 1")
    page.get_by_role("button", name="Next feature").click()
    expect(page.locator("h1")).to_have_text("Feature 2")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Feature 1")

    page.get_by_role("link", name="Prompt").click()
    expect(page.locator(".tokens [data-n]").first).to_be_visible()
    page.get_by_label("Text", exact=True).fill("The sea and the harbour, 바다")
    page.keyboard.press("Control+Enter")
    token = page.locator(".tokens [data-n]").filter(has_text="harbour")
    token.click()
    expect(page.locator("#strongest")).to_contain_text("harbour")
    line = page.locator("li", has=page.get_by_role("link", name=re.compile(r"^1\s*fires on")))
    line.get_by_role("button").hover()
    expect(token).to_have_class(re.compile("shade"))
    expect(page.locator(".tokens .shade")).to_have_count(1)
    line.get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("Feature 1")


def test_search_by_number_opens_the_feature_and_nothing_found_says_so(page):
    search = page.get_by_role("searchbox")
    search.fill("zzzz")
    expect(
        page.get_by_text("No feature here fires on or promotes a token like this")
    ).to_be_visible()
    search.fill("17")
    search.press("Enter")
    expect(page.locator("h1")).to_have_text("Feature 17")
    for _ in range(5):  # chance may draw the feature that is shown
        page.keyboard.press("r")
        page.wait_for_timeout(500)
        if not page.url.endswith("/feature/17"):
            break
    expect(page).not_to_have_url(re.compile("/feature/17$"))
    expect(page.locator("h1")).to_contain_text("Feature")


def test_values_are_shown_on_hover_and_by_keyboard(page):
    _goto(page, "/feature/1")
    example = page.locator(".example").first
    page.locator(".example .peak").first.hover()
    value = example.locator(".value").inner_text()
    expect(page.locator(".tip strong")).to_have_text(value)
    page.mouse.move(0, 0)
    expect(page.locator(".tip")).to_have_count(0)
    page.get_by_role("tab").first.focus()
    page.keyboard.press("Tab")
    expect(example).to_be_focused()
    expect(page.locator(".tip strong")).to_have_text(value)
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tip strong")).to_have_text("0")
    expect(example.locator("[aria-live]")).to_contain_text(": 0")
    expect(page.locator("h1")).to_have_text("Feature 1")


def test_the_histogram_leads_to_the_interval_under_it(page):
    _goto(page, "/feature/8")
    plot = page.get_by_role("img", name=re.compile("Histogram of the activations of feature 8"))
    box = plot.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + 30)
    expect(page).to_have_url(re.compile("interval=1$|interval=2$"))
    expect(plot.locator(".band")).to_be_visible()


def test_hostile_tokens_are_inert_and_visible(page):
    for number in [18, 19, *range(28, 28 + len(HOSTILE))]:
        _goto(page, f"/feature/{number}")
        expect(page.locator("h1")).to_have_text(f"Feature {number}")
        expect(page.locator(".example").first).to_be_visible()
        assert page.locator("main script, main img, main b").count() == 0
        assert not re.search("[\u202e\u200b\ufeff\x00\x07\x1b]", page.locator("main").inner_text())
    _goto(page, "/feature/28")
    expect(page.locator(".example .peak").first).to_have_text(HOSTILE[0])
    _goto(page, "/feature/30")
    expect(page.locator(".example .peak").first).to_contain_text("U+202E")
    _goto(page, "/feature/31")
    expect(page.locator(".example .peak").first).to_contain_text("␀␇␛[31m")
    _goto(page, "/?search=%3Cscript%3E")
    expect(page.locator("#all")).to_have_text("Features with “<script>”")
    _goto(page, "/prompt")
    page.get_by_label("Text", exact=True).fill(" and ".join(HOSTILE))
    page.keyboard.press("Control+Enter")
    expect(page.locator(".tokens")).to_contain_text(HOSTILE[0])


def test_right_to_left_text_reads_rightly(page):
    _goto(page, "/feature/16")
    arabic = page.locator(".example .text", has_text="البيت").first
    expect(arabic).to_have_attribute("dir", "rtl")
    boxes = arabic.evaluate(
        "node => [...node.children].map(item => item.getClientRects()[0])"
        ".map(box => ({left: box.left, top: box.top}))"
    )
    first_line = [box["left"] for box in boxes if abs(box["top"] - boxes[0]["top"]) < 8]
    assert len(first_line) > 5
    assert first_line == sorted(first_line, reverse=True)


def test_white_space_is_visible(page):
    _goto(page, "/feature/13")
    expect(page.locator(".example .peak").first).to_have_text(re.compile("^↵+$"))
    dots = page.locator(".example .ws").first
    assert "radial-gradient" in dots.evaluate("node => getComputedStyle(node).backgroundImage")
    _goto(page, "/feature/14")
    expect(page.locator(".example .peak").first).to_have_text("⇥")


@pytest.mark.parametrize("path", ["/feature/999", "/feature/nine", "/nowhere"])
def test_missing_pages_say_what_is_missing(context, address, path):
    shown = context.new_page()
    shown.goto(address)
    shown.goto(str(httpx.URL(address).copy_with(path=path, query=None)))
    said = "no page at /nowhere" if path == "/nowhere" else f"0 to {FEATURES - 1}"
    expect(shown.get_by_role("alert")).to_contain_text(said)
    shown.get_by_role("link", name="All features").click()
    expect(shown.locator("h1")).to_contain_text("features of")


PATHS = [
    "/",
    "/feature/8",
    "/feature/16?interval=3",
    "/feature/19",
    f"/feature/{FEATURES - 1}",
    "/prompt",
]


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screens_do_not_scroll_sideways(browser, address, width):
    context = browser.new_context(viewport={"width": width, "height": 780}, has_touch=True)
    for page in _opened(context, address):
        for path in PATHS:
            _goto(page, path)
            expect(page.locator("h1")).to_be_visible()
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser, address, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    for page in _opened(context, address):
        for path in PATHS:
            _goto(page, path)
            expect(page.locator("h1")).to_be_visible()
            page.wait_for_load_state("networkidle")
            contrast = page.evaluate(CONTRAST)
            assert contrast["seen"] > 20
            assert contrast["found"] == [], path
    context.close()


def test_dark_and_light_follow_the_system_until_chosen(browser, address):
    context = browser.new_context(color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    for page in _opened(context, address):
        dark = page.evaluate(background)
        page.get_by_role("button", name="Light theme").click()
        light = page.evaluate(background)
        assert dark != light
        page.reload()
        assert page.evaluate(background) == light
        page.emulate_media(color_scheme="light")
        page.get_by_role("button", name="Dark theme").click()
        assert page.evaluate(background) == dark
    context.close()


def test_what_is_focused_can_be_seen(page):
    for _ in range(12):
        page.keyboard.press("Tab")
        ring = page.evaluate(
            "() => { const style = getComputedStyle(document.activeElement);"
            " const after = getComputedStyle(document.activeElement, '::after');"
            " return [style, after].some(s => s.outlineStyle !== 'none'"
            " && parseFloat(s.outlineWidth) >= 2) }"
        )
        assert ring, page.evaluate("document.activeElement.outerHTML")
