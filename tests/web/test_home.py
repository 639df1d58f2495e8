"""The home page in a real Chromium: the map, its lasso, filters and the list of all features."""

import re
from collections import Counter
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.web.small_atlas import FEATURES, SOURCES
from tests.web.test_browser import CONTRAST, _goto, _opened, browser

__all__ = ["browser"]
pytestmark = pytest.mark.browser

INK = """() => {
    const canvas = document.querySelector("canvas");
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    const found = [];
    for (let n = 3; n < pixels.length; n += 4)
        if (pixels[n] > 0) found.push([(n >> 2) % canvas.width, Math.floor((n >> 2) / canvas.width),
            ...pixels.slice(n - 3, n + 1)]);
    return found;
}"""


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1400}, reduced_motion="reduce")
    for page in _opened(context, address):
        _ready(page)
        yield page
    context.close()


def _ready(page: Page) -> None:
    page.locator("canvas[data-every='1']").wait_for()
    page.wait_for_load_state("networkidle")


def _shown(page: Page) -> list[int]:
    """The numbers of the features in the list."""
    return [int(text) for text in page.locator("[role=rowheader] a").all_inner_texts()]


def _matching(client: httpx.Client, query: str) -> list[int]:
    rows = client.get(f"/features.json?limit=200&{query}").json()["rows"]
    return [row["feature"] for row in rows]


def _pixel(page: Page, atlas, x: float, y: float) -> tuple[float, float]:
    """Where a place of the map is in the window, told from where the names of clusters stand."""
    clusters = atlas.manifest["clusters"]
    boxes = [
        page.locator(".labels span")
        .filter(has_text=re.compile(f"^{name}$"))
        .evaluate(
            "node => { const at = new DOMMatrix(getComputedStyle(node).transform);"
            " return [at.e, at.f]; }"
        )
        for name in ("the sea", "made")
    ]
    (x0, y0), (x1, y1) = boxes
    scale = (x1 - x0) / (clusters[1]["x"] - clusters[0]["x"])
    assert scale == pytest.approx((y0 - y1) / (clusters[1]["y"] - clusters[0]["y"]), rel=1e-3)
    frame = page.locator("canvas").bounding_box()
    return (
        frame["x"] + x0 + (x - clusters[0]["x"]) * scale,
        frame["y"] + y0 - (y - clusters[0]["y"]) * scale,
    )


def _place(page: Page, atlas, feature: int) -> tuple[float, float]:
    columns = atlas.columns
    return _pixel(page, atlas, float(columns["x"][feature]), float(columns["y"][feature]))


def test_every_feature_with_a_place_is_drawn_at_it(page, atlas):
    ink = page.evaluate(INK)
    assert len(ink) > 500
    frame = page.locator("canvas").bounding_box()
    there = {(x, y) for x, y, *_ in ink}
    for feature in np.flatnonzero(~np.isnan(atlas.columns["x"])):
        x, y = _place(page, atlas, int(feature))
        x, y = int(x - frame["x"]), int(y - frame["y"])
        assert any((x + dx, y + dy) in there for dx in (-1, 0, 1) for dy in (-1, 0, 1))
    name = page.get_by_role("application").get_attribute("aria-label")
    placed = int((~np.isnan(atlas.columns["x"])).sum())
    assert name == f"Map of {placed} features, coloured by cluster; 3 clusters"


def test_colours_are_those_of_the_column_chosen(page):
    def colours() -> set[tuple[int, ...]]:
        ink = [tuple(rgba[2:]) for rgba in page.evaluate(INK)]
        alone = Counter(rgba[3] for rgba in ink).most_common(1)[0][0]  # one disc, not its edge
        return {rgba[:3] for rgba in ink if rgba[3] == alone}

    by_cluster = colours()
    assert len(by_cluster) == 3
    select = page.get_by_role("combobox", name=re.compile("^Colour"))
    assert select.locator("option").all_inner_texts() == [
        "cluster", "frequency", "main source", "status",
    ]  # fmt: skip
    select.select_option("status")
    expect(page).to_have_url(re.compile("color=status"))
    page.wait_for_function(f"() => ({INK})().length && true")
    assert colours().isdisjoint(by_cluster)
    page.reload()
    _ready(page)
    assert colours().isdisjoint(by_cluster)


def test_a_lasso_selects_what_lies_inside(page, atlas):
    page.get_by_role("button", name="Lasso").click()
    ring = [
        _pixel(page, atlas, 4 - 1.1 * np.cos(turn), 1 + 1.1 * np.sin(turn))
        for turn in np.linspace(0, 2 * np.pi, 60)
    ]
    page.mouse.move(*ring[0])
    page.mouse.down()
    for place in ring[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    expect(page).to_have_url(re.compile("lasso="))
    x, y = atlas.columns["x"], atlas.columns["y"]
    inside = set(np.flatnonzero(np.hypot(x - 4, y - 1) < 1.05).tolist())
    assert inside == set(np.flatnonzero(atlas.columns["cluster"] == 1).tolist())
    expect(page.get_by_role("status")).to_contain_text(f"of {len(inside)}")
    assert set(_shown(page)) <= inside
    page.reload()
    _ready(page)
    expect(page.get_by_role("status")).to_contain_text(f"of {len(inside)}")
    expect(page.locator("polygon")).to_have_count(1)
    page.get_by_role("button", name="Remove Selected on the map").click()
    expect(page.get_by_role("status")).to_contain_text(f"of {FEATURES}")
    page.go_back()
    expect(page.get_by_role("status")).to_contain_text(f"of {len(inside)}")


def test_what_the_map_shows_can_be_selected_without_drawing(page, atlas):
    page.get_by_role("button", name="In view").click()
    expect(page).to_have_url(re.compile("lasso="))
    placed = int((~np.isnan(atlas.columns["x"])).sum())
    expect(page.get_by_role("status")).to_contain_text(f"of {placed}")


def test_what_a_search_finds_stands_out(page, atlas, client):
    before = page.evaluate(INK)
    grey = {tuple(rgba[2:5]) for rgba in before}
    page.get_by_role("searchbox").fill("harbour")
    expect(page).to_have_url(re.compile("search=harbour"))
    expect(page.get_by_role("application")).to_have_attribute("aria-label", re.compile("stand out"))
    found = _matching(client, "search=harbour")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(found)}")
    assert _shown(page) == found[: len(_shown(page))]
    page.wait_for_timeout(300)
    after = {(x, y): tuple(rgba[:3]) for x, y, *rgba in page.evaluate(INK)}
    columns = atlas.columns
    for feature in np.flatnonzero(~np.isnan(columns["x"])):
        alone = np.hypot(columns["x"] - columns["x"][feature], columns["y"] - columns["y"][feature])
        if np.sort(alone[~np.isnan(alone)])[1] < 0.12:
            continue  # another lies on it
        # Names of clusters move with what is found: places are told from the whole map's.
        x, y = _whole(before, atlas, int(feature))
        assert (after[x, y] in grey) == (int(feature) in found)


def _whole(ink, atlas, feature: int) -> tuple[int, int]:
    """The pixel of a feature on the whole map, told from how far all ink reaches."""
    xs, ys = [item[0] for item in ink], [item[1] for item in ink]
    x, y = atlas.columns["x"], atlas.columns["y"]
    across = np.interp(x[feature], [np.nanmin(x), np.nanmax(x)], [min(xs) + 5, max(xs) - 5])
    down = np.interp(y[feature], [np.nanmin(y), np.nanmax(y)], [max(ys) - 5, min(ys) + 5])
    return round(float(across)), round(float(down))


def test_counts_of_filters_are_those_of_the_features_they_leave(page, atlas, client):
    def counts() -> dict[str, int]:
        found = page.locator("[data-count]").evaluate_all(
            "nodes => nodes.map(node => [node.dataset.count, node.textContent])"
        )
        return {name: int(text) for name, text in found}

    page.get_by_role("button", name=re.compile(r"^All \d+$")).first.click()
    columns = atlas.columns
    cluster = np.bincount(columns["cluster"][columns["cluster"] >= 0])
    source = np.bincount(columns["source"][columns["source"] >= 0], minlength=len(SOURCES))
    status = np.bincount(columns["status"], minlength=4)
    expected = {
        **{f"cluster:{n}": count for n, count in enumerate(cluster)},
        **{f"source:{SOURCES[n]}": count for n, count in enumerate(source) if count},
        **{
            f"status:{name}": status[n]
            for n, name in enumerate(["alive", "dead", "dense", "ultralow"])
            if status[n]
        },
    }
    assert counts() == expected

    page.get_by_role("checkbox", name=re.compile("^code")).check()
    expect(page).to_have_url(re.compile("source=code"))
    expect(page.get_by_role("status")).to_contain_text(f"of {expected['source:code']}")
    facets = client.get("/features.json?source=code&limit=0").json()["facets"]
    alive = page.locator('[data-count="status:alive"]')
    expect(alive).to_have_text(str(facets["status"]["alive"]))  # counts come after the list
    of_code = columns["source"] == SOURCES.index("code")
    after = counts()
    for number in range(3):
        wanted = int((of_code & (columns["cluster"] == number)).sum())
        assert after.get(f"cluster:{number}", 0) == wanted
    assert after["source:prose"] == expected["source:prose"]
    assert {k: v for k, v in after.items() if k.startswith("status:")} == {
        f"status:{name}": count for name, count in facets["status"].items()
    }
    page.get_by_role("checkbox", name=re.compile("^the sea")).check()
    expect(page).to_have_url(re.compile("cluster=0"))
    found = _matching(client, "source=code&cluster=0")
    assert 0 < len(found) < after["source:code"]
    expect(page.get_by_role("status")).to_contain_text(f"of {len(found)}")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text(f"of {FEATURES}")
    expect(page.get_by_role("checkbox", name=re.compile("^code"))).not_to_be_checked()


def test_numbers_are_filtered_by_sliders(page, client):
    slider = page.get_by_role("slider", name="Maximum, at least")
    slider.focus()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)
    bounds = re.search(r"maximum=([\d.]+\.\.)", page.url)[1]
    found = _matching(client, f"maximum={bounds}")
    assert 0 < len(found) < FEATURES
    expect(page.get_by_role("status")).to_contain_text(f"of {len(found)}")
    high = client.get("/index.json").json()["ranges"]["maximum"][1]
    low = client.get("/index.json").json()["ranges"]["maximum"][0]
    assert float(bounds.removesuffix("..")) == pytest.approx(low + 0.3 * (high - low), rel=5e-3)


def test_the_map_opens_what_is_clicked_and_names_what_is_pointed_at(page, atlas, client):
    feature = 4
    page.mouse.move(*_place(page, atlas, feature))
    expect(page.locator(".tip strong")).to_have_text(str(feature))
    tokens = client.get(f"/feature/{feature}.json").json()["name"]["tokens"]
    expect(page.locator(".tip")).to_contain_text(tokens[0].strip())
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile(f"/feature/{feature}$"))


def test_the_map_is_moved_by_mouse_and_keeps_its_place(page, atlas):
    x, y = _place(page, atlas, 4)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    moved = _place(page, atlas, 4)
    assert moved == pytest.approx((x + 60, y + 40), abs=1.5)
    expect(page).to_have_url(re.compile("view="))
    page.reload()
    _ready(page)
    assert _place(page, atlas, 4) == pytest.approx(moved, abs=1.5)
    page.mouse.move(*moved)
    page.mouse.wheel(0, -200)
    page.wait_for_timeout(100)
    assert _place(page, atlas, 4) == pytest.approx(moved, abs=1.5)
    page.get_by_role("button", name="Show the whole map").click()
    assert _place(page, atlas, 4) == pytest.approx((x, y), abs=1.5)
    expect(page).not_to_have_url(re.compile("view="))


def test_the_map_works_by_keyboard(page, atlas):
    page.get_by_role("application").focus()
    before, other = _place(page, atlas, 4), _place(page, atlas, 7)
    columns = atlas.columns
    scale = (other[0] - before[0]) / (columns["x"][7] - columns["x"][4])
    box = page.locator("canvas").bounding_box()
    page.keyboard.press("ArrowRight")
    assert _place(page, atlas, 4) == pytest.approx((before[0] - box["width"] / 8, before[1]), abs=1)
    page.keyboard.press("0")
    assert _place(page, atlas, 4) == pytest.approx(before, abs=1)
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    said = page.locator("[aria-live=polite]").filter(has_text="Feature").first
    expect(said).to_have_text(re.compile(r"^Feature \d+, fires on .+, (1 in|[\d.]+ %)"))
    page.wait_for_timeout(200)
    number = int(re.search(r"\d+", said.inner_text())[0])
    ring = page.locator("svg.over circle").last.bounding_box()
    middle = np.array([box["width"] / 2, box["height"] / 2])
    found = np.array([ring["x"] - box["x"], ring["y"] - box["y"]]) + ring["width"] / 2
    away = np.stack([columns["x"] - columns["x"][number], columns["y"][number] - columns["y"]], 1)
    distance = np.linalg.norm(found + 1.6 * scale * away - middle, axis=1)
    assert distance[number] <= np.nanmin(distance) + 1
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/feature/{number}$"))


def test_the_list_is_one_long_list_of_which_few_rows_are_in_the_page(page, client):
    every = _matching(client, "sort=relevance&order=desc")
    assert len(_shown(page)) < 30
    assert _shown(page) == every[: len(_shown(page))]
    rows = page.locator(".rows")
    rows.evaluate("node => node.scrollTo(0, node.scrollHeight)")
    page.locator(f"[data-row='{FEATURES - 1}'] a").wait_for()
    assert _shown(page)[-1] == every[-1]
    expect(page).to_have_url(re.compile(r"offset=\d+"))
    top = page.get_by_role("status").inner_text()
    page.reload()
    expect(page.get_by_role("status")).to_have_text(top)
    table = page.get_by_role("table", name="Features")
    assert table.get_attribute("aria-rowcount") == str(FEATURES)
    page.locator(f"[data-row='{FEATURES - 3}'] a").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator(f"[data-row='{FEATURES - 4}'] a")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/feature/{every[-4]}$"))
    page.go_back()
    expect(page.get_by_role("status")).to_have_text(top)


def test_the_list_is_sorted(page, client):
    page.get_by_label("Sort").select_option("maximum asc")
    expect(page).to_have_url(re.compile("sort=maximum&order=asc$"))
    every = _matching(client, "sort=maximum&order=asc")
    expect(page.locator("[role=rowheader] a").first).to_have_text(str(every[0]))
    assert _shown(page) == every[: len(_shown(page))]


def test_pointing_at_a_row_marks_the_feature_on_the_map(page, atlas):
    row = page.locator("[data-row='3']")
    number = int(row.locator("a").inner_text())
    row.hover()
    circle = page.locator("svg.over circle").last
    box = circle.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert middle == pytest.approx(_place(page, atlas, number), abs=2)


def test_searches_are_those_the_server_offers(page, client):
    offered = client.get("/index.json").json()["searches"]
    options = page.get_by_label("What to search in").locator("option")
    assert [item.get_attribute("value") for item in options.all()] == offered
    page.get_by_role("searchbox").fill("sea")
    page.get_by_label("What to search in").select_option("fires")
    expect(page).to_have_url(re.compile("search=sea&by=fires"))
    found = _matching(client, "search=sea&by=fires")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(found)}")


def test_what_is_wrong_with_an_address_is_said(context_page, address):
    page = context_page
    _goto(page, "/?source=nowhere")
    expect(page.get_by_role("alert")).to_contain_text("expected one of")


@pytest.fixture
def context_page(browser: Browser, address: str) -> Iterator[Page]:
    context: BrowserContext = browser.new_context()
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


def test_the_map_works_on_a_narrow_touch_screen(browser, address, atlas):
    context = browser.new_context(viewport={"width": 360, "height": 780}, has_touch=True)
    for page in _opened(context, address):
        _ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_text("Filters").click()
        expect(page.get_by_role("checkbox", name=re.compile("^Alive"))).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_text("Filters").click()
        page.locator("canvas").scroll_into_view_if_needed()
        x, y = _place(page, atlas, 4)
        page.touchscreen.tap(x, y)
        expect(page.locator(".tip strong")).to_have_text(re.compile(r"^\d+$"))
        page.touchscreen.tap(x, y)
        expect(page).to_have_url(re.compile("/feature/"))
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["/?color=frequency", "/?search=sea&status=alive&color=source", "/?search=zzzz"]
)
def test_text_stands_out(browser, address, scheme, path):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    for page in _opened(context, address):
        _goto(page, path)
        _ready(page)
        contrast = page.evaluate(CONTRAST)
        assert contrast["seen"] > 20
        assert contrast["found"] == []
    context.close()


def test_the_map_is_saved_as_a_picture(page):
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the map as PNG").click()
    assert saved.value.suggested_filename == "map.png"
    data = saved.value.path().read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    box = page.locator("canvas").bounding_box()
    size = tuple(int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    assert size == (round(box["width"]), round(box["height"]))
