"""Another dictionary's features under those of an atlas that lie on its map."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from sememe.atlas.store import Atlas
from tests.web.conftest import admitted, serving
from tests.web.small_atlas import FEATURES, OTHERS, other_atlas, small_atlas
from tests.web.test_browser import browser as browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return small_atlas(tmp_path_factory.mktemp("other") / "mine" / "atlas", other_atlas())


@pytest.fixture(scope="module")
def mapped(placed: Atlas) -> Iterator[str]:
    with serving(placed) as found:
        yield found


@pytest.fixture(scope="module")
def api(mapped: str) -> Iterator[httpx.Client]:
    with admitted(mapped) as found:
        yield found


def test_both_dictionaries_are_in_one_answer_and_in_the_same_bounds(api, placed):
    layout, data = api.get("/map.json").json(), api.get("/map.bin").content
    assert (layout["name"], layout["other"]["name"]) == ("mine", "demo")
    assert len(data) == layout["bytes"]
    for part, columns in ((layout, placed.columns), (layout["other"], other_atlas().columns)):
        for array in part["arrays"]:
            if array["name"] not in ("x", "y", "other_cosine"):
                continue
            kept = np.frombuffer(data, array["dtype"], part["features"], array["offset"])
            none = np.iinfo(array["dtype"]).max
            found = np.where(kept == none, np.nan, array["low"] + kept * array["step"])
            np.testing.assert_allclose(found, columns[array["name"]], atol=array["step"])
    bounds = [
        [(item["low"], item["step"]) for item in part["arrays"] if item["name"] in "xy"]
        for part in (layout, layout["other"])
    ]
    assert bounds[0] == bounds[1]


def test_features_far_from_the_other_dictionary_are_found(api, placed):
    cosine = placed.columns["other_cosine"]
    asked = {"other_cosine": "..0.5", "sort": "other_cosine", "order": "asc", "limit": 200}
    rows = api.get("/features.json", params=asked).json()["rows"]
    assert [row["feature"] for row in rows] == sorted(
        (n for n in range(FEATURES) if cosine[n] <= 0.5), key=lambda n: cosine[n]
    )


def test_a_feature_names_its_nearest_in_the_other_dictionary(api):
    other = api.get("/feature/16.json").json()["other"]
    assert other == {"dictionary": "demo", "feature": 7, "tokens": [" sea"], "cosine": 0.75}
    assert api.get(f"/feature/{FEATURES - 1}.json").json()["other"] is None
    assert api.get("/other/7.json").json() == {name: other[name] for name in list(other)[:3]}
    assert api.get(f"/other/{OTHERS}.json").status_code == 404


def test_an_atlas_with_a_map_of_its_own_has_no_other(client):
    assert client.get("/map.json").json()["other"] is None
    assert client.get("/feature/0.json").json()["other"] is None
    assert client.get("/other/0.json").status_code == 404


@pytest.fixture
def page(browser: Browser, mapped: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1400}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(mapped)
    page.locator("canvas[data-every='1']").wait_for()
    yield page
    context.close()


def test_the_layer_is_switched_on_named_and_pointed_at(page: Page):
    switch = page.get_by_role("button", name="demo beneath")
    expect(switch).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".layers")).to_have_count(0)
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".layers")).to_contain_text("mine 61")
    expect(page.locator(".layers")).to_contain_text(f"demo {OTHERS - 1}")
    assert "other=shown" in page.url
    # The line of its features runs off to the right: the last lies where the map ends.
    frame = page.locator(".frame").bounding_box()
    layout = page.evaluate("fetch('/map.json').then((answer) => answer.json())")
    low, step = ({a["name"]: a[key] for a in layout["arrays"]} for key in ("low", "step"))
    across, down = (65534 * step[name] for name in "xy")
    by = min(frame["width"] / across, frame["height"] / down) * 0.94
    x = frame["x"] + frame["width"] / 2 + (16 - low["x"] - across / 2) * by
    y = frame["y"] + frame["height"] / 2 - (0 - low["y"] - down / 2) * by
    page.mouse.move(x, y)
    expect(page.locator(".tip")).to_contain_text("8of demo")
    expect(page.locator("[aria-live=polite]", has_text="Feature 8 of demo")).to_have_count(1)
    page.mouse.click(x, y)
    assert "/feature/" not in page.url
    page.reload()
    expect(switch).to_have_attribute("aria-pressed", "true")


def test_the_map_is_coloured_and_the_list_sorted_by_likeness(page: Page, api):
    page.get_by_role("combobox", name="Colour").select_option("other_cosine")
    expect(page.locator(".legend i")).to_be_visible()
    page.get_by_role("combobox", name="Sort").select_option("other_cosine asc")
    wanted = api.get("/features.json?sort=other_cosine&order=asc&limit=1").json()["rows"][0]
    assert wanted["status"] != "dead"
    expect(page.locator("[role=rowheader] a").first).to_have_text(str(wanted["feature"]))
    page.goto(page.url.split("?")[0] + "feature/16")
    expect(page.locator(".other")).to_contain_text("Nearest in demo")
    expect(page.locator(".other")).to_contain_text("0.75")


def test_a_page_that_is_not_there_offers_no_json(page: Page):
    root = page.url.split("?")[0]
    expect(page.locator("footer .json a")).to_have_attribute("href", "/index.json")
    page.goto(f"{root}feature/1")
    expect(page.locator("footer .json a")).to_have_attribute("href", "/feature/1.json")
    for path in (f"feature/{FEATURES}", "feature/x", "nothing"):
        page.goto(f"{root}{path}")
        expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        expect(page.locator("footer .json")).to_have_count(0)
