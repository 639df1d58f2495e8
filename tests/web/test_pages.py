"""What the pages of features, neurons and prompts do, in a real Chromium."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from sememe.activations.rules import TokenRules
from sememe.activations.store import Activations
from sememe.atlas.annotations import Annotations
from sememe.atlas.index import index
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.run import Run
from sememe.web.live import LivePrompt
from tests.web.conftest import admitted, serving
from tests.web.small_atlas import HOSTILE, NEURONS, run_prompt, vocabulary
from tests.web.test_browser import CONTRAST, _goto, _opened
from tests.web.test_browser import browser as browser
from tests.web.test_browser import context as context

pytestmark = pytest.mark.browser


class Directions:
    """Effects by a rule that a test can work out: the feature's number less the token's, / 100."""

    def __init__(self) -> None:
        self.vocabulary = vocabulary()

    def token(self, text: str) -> int:
        if text.encode() not in self.vocabulary:
            raise UsageError(f"next {text!r} is several tokens: expected one")
        return self.vocabulary.index(text.encode())

    def on_token(self, features: Sequence[int], token: int) -> np.ndarray:
        return np.array([(feature - token % 10) / 100 for feature in features], np.float32)

    def of_feature(self, feature: int) -> np.ndarray:
        return (feature - np.arange(len(self.vocabulary), dtype=np.float32)) / 100


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, atlas: Atlas) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    index(atlas, folder / "index")
    return folder


@pytest.fixture(scope="module")
def address(atlas: Atlas, beside: Path) -> Iterator[str]:
    """Everything is there: notes, neurons, effects."""
    notes = Annotations(beside / "annotations.sqlite", "test")
    search = Search(atlas, beside)
    with serving(
        atlas, run_prompt, effects=Directions(), search=search, annotations=notes
    ) as found:
        yield found
    notes.close()


@pytest.fixture(scope="module")
def api(address: str) -> Iterator[httpx.Client]:
    with admitted(address) as found:
        yield found


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    yield from _opened(context, address)


def _text(example: dict) -> str:
    return "".join(piece["text"] for piece in example["pieces"])


def _shown(page: Page) -> list[str]:
    """The texts of the examples as they are shown, without what stands for what is left out."""
    return page.locator(".example .text").evaluate_all(
        "nodes => nodes.map(node => [...node.querySelectorAll('[data-n]')]"
        ".map(piece => piece.textContent).join(''))"
    )


def _plain(text: str) -> str:
    return text.replace("\n", "↵").replace("\t", "⇥")


def test_every_interval_tab_shows_the_samples_of_the_api(page, api):
    feature = api.get("/feature/0.json").json()
    _goto(page, "/feature/0")
    page.get_by_role("button", name="Longer texts").click()
    tabs = page.get_by_role("tab")
    groups = [
        feature["top"],
        *(part["examples"] for part in feature["intervals"]),
        feature["inactive"],
    ]
    expect(tabs).to_have_count(len(groups))
    assert sum(map(bool, groups)) > 4
    for number, examples in enumerate(groups):
        tabs.nth(number).click()
        expect(tabs.nth(number)).to_have_attribute("aria-selected", "true")
        expect(page.locator(".example")).to_have_count(len(examples))
        assert _shown(page) == [_plain(_text(example)) for example in examples]
    expect(page).to_have_url(re.compile(r"/feature/0\?interval=silent$"))
    assert page.locator(".example .shade").count() == 0
    page.reload()
    expect(page.locator("#examples")).to_have_text("Text on which it is silent")


def test_a_text_opens_to_all_of_it_and_closes_again(page, api):
    examples = api.get("/feature/1.json").json()["top"]
    number = next(n for n, item in enumerate(examples) if len(item["pieces"]) > 35)
    _goto(page, "/feature/1")
    example = page.locator(".example").nth(number)
    expect(example.get_by_role("button", name="… more")).to_be_visible()
    short = len(_shown(page)[number])
    example.get_by_role("button", name="… more").click()
    assert _shown(page)[number] == _plain(_text(examples[number]))
    example.get_by_role("button", name="less").click()
    assert len(_shown(page)[number]) == short < len(_text(examples[number]))
    example.focus()
    page.keyboard.press("Enter")
    assert _shown(page)[number] == _plain(_text(examples[number]))


def test_hovering_says_the_value_and_what_the_feature_does_to_the_next_token(page, api):
    example = api.get("/feature/1.json").json()["top"][0]
    effects = api.get("/feature/1/effects.json").json()["effects"]
    _goto(page, "/feature/1")
    for place in (example["peak"] - 1, example["peak"] - 2):
        piece, following = example["pieces"][place], example["pieces"][place + 1]
        shown = page.locator(f".example >> nth=0 >> [data-n='{place}']")
        shown.hover()
        strength = effects[str(following["tokens"][0])]
        sign = "−" if strength < 0 else "+"
        tip = page.locator(".tip")
        expect(tip).to_contain_text(re.compile(rf"next token “.*”: {re.escape(sign)}\d"))
        said = re.search(r"”: (.[\d.]+) logit", tip.inner_text())
        assert said is not None
        assert float(said[1].replace("−", "-")) == pytest.approx(strength, rel=5e-3)
        value = float(page.locator(".tip strong").inner_text())
        assert value == pytest.approx(piece["value"], rel=5e-3)


def test_copied_json_is_the_answer_of_the_api(browser, address, api):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    for page in _opened(context, address):
        _goto(page, "/feature/8?interval=2")
        page.get_by_role("button", name="Copy as JSON").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert json.loads(copied) == api.get("/feature/8.json").json()
        page.get_by_role("button", name="Copy link").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.url
    context.close()


def test_notes_and_tags_are_kept_over_a_reload_and_can_be_removed(page, api):
    _goto(page, "/feature/5")
    note = f"Looks like {HOSTILE[0]}\nsecond line"
    page.get_by_label("Note", exact=True).fill(note)
    page.get_by_label("Tags").fill(f"check, {HOSTILE[1]},check,")
    expect(page.get_by_text("not kept yet")).to_be_visible()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Kept", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Note", exact=True)).to_have_value(note)
    expect(page.get_by_label("Tags")).to_have_value(f"check, {HOSTILE[1]}")
    expect(page.locator(".noted .tag")).to_have_text(["check", HOSTILE[1]])
    assert api.get("/feature/5.json").json()["note"]["tags"] == ["check", HOSTILE[1]]
    page.get_by_label("Note", exact=True).fill("typed and not kept")
    page.get_by_role("button", name="Next feature").click()
    expect(page.get_by_label("Note", exact=True)).to_have_value("")
    page.go_back()
    expect(page.get_by_label("Note", exact=True)).to_have_value("typed and not kept")
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Removed", exact=True)).to_be_visible()
    expect(page.locator(".noted")).to_have_count(0)
    page.reload()
    expect(page.get_by_label("Note", exact=True)).to_have_value("")
    assert api.get("/feature/5.json").json()["note"] is None


def test_a_neuron_and_its_features_lead_to_each_other(page, api):
    feature = api.get("/feature/3.json").json()
    neuron = feature["basis"][1]["neuron"]
    found = api.get(f"/neuron/{neuron}.json?limit=200").json()
    _goto(page, "/feature/3")
    page.get_by_role("list", name="Neurons it is made of").get_by_role(
        "link", name=f"neuron {neuron}", exact=True
    ).click()
    expect(page).to_have_url(re.compile(rf"/neuron/{neuron}$"))
    expect(page.locator("h1")).to_have_text(f"Neuron {neuron}")
    lines = page.locator("section[aria-labelledby=writers] li")
    expect(lines).to_have_count(found["total"])
    assert lines.locator("strong").all_inner_texts() == [str(r["feature"]) for r in found["rows"]]
    assert f"{found['effective']:.1f}" in page.locator("dl").inner_text()
    written = [text.replace("−", "-") for text in lines.locator(".written").all_inner_texts()]
    assert [float(text) for text in written] == pytest.approx(
        [row["weight"] for row in found["rows"]], rel=6e-3, abs=1e-4
    )
    lines.get_by_role("link", name=re.compile(r"\b3\b")).first.click()
    expect(page.locator("h1")).to_have_text("Feature 3")
    _goto(page, f"/neuron/{NEURONS - 2}")
    expect(page.locator("h1")).to_have_text(f"Neuron {NEURONS - 2}")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text(f"Neuron {NEURONS - 1}")
    expect(page.get_by_role("button", name="Next neuron")).to_be_disabled()
    page.get_by_role("button", name="Previous neuron").click()
    expect(page.locator("h1")).to_have_text(f"Neuron {NEURONS - 2}")


def test_neighbours_and_cofiring_stand_side_by_side_and_lead_on(page, api):
    feature = api.get("/feature/2.json").json()
    _goto(page, "/feature/2")
    for name in ("neighbours", "cofiring"):
        numbers = page.locator(f".{name} li strong")
        expect(numbers).to_have_text([str(item["feature"]) for item in feature[name]])
    boxes = [page.locator(f".{name}").bounding_box() for name in ("neighbours", "cofiring")]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.locator(".cofiring a").first.click()
    expect(page.locator("h1")).to_have_text(f"Feature {feature['cofiring'][0]['feature']}")


def test_every_part_of_a_feature_is_on_its_page(page, api):
    feature = api.get("/feature/0.json").json()
    _goto(page, "/feature/0")
    for title, part, key in [
        ("promotes", "promotes", "effect"),
        ("suppresses", "suppresses", "effect"),
        ("tokens", "tokens", "share"),
        ("tokens before", "before", "share"),
        ("tokens after", "after", "share"),
        ("sources", "sources", "share"),
    ]:
        bars = page.get_by_role("list", name=f"Feature 0 {title}", exact=True)
        expect(bars).to_be_visible()
        written = bars.locator(".written").all_inner_texts()
        values = [float(text.replace("−", "-").rstrip(" %")) for text in written]
        scale = 100 if key == "share" else 1
        expected = [item[key] * scale for item in feature[part]][: len(values)]
        assert len(values) == min(len(feature[part]), 8 if part == "sources" else 99)
        assert values == pytest.approx(expected, abs=0.051 if scale == 100 else 0.01)
    plot = page.get_by_role("img", name=re.compile("effects of feature 0 on the logits"))
    assert plot.locator("[data-bar]").count() == len(feature["logits"]["counts"])
    figures = page.locator("dl.figures").inner_text()
    assert f"{feature['alignment']:.2f}" in figures


def test_plots_are_saved_as_svg_and_png(page):
    _goto(page, "/feature/28")
    for title in ("Feature 28 activations", "Feature 28 logit effects", "Feature 28 tokens"):
        saved = {}
        for kind in ("SVG", "PNG"):
            page.get_by_role("button", name=f"Save plot: {title}", exact=True).click()
            with page.expect_download() as waiting:
                page.get_by_role("button", name=f"Save as {kind}: {title}", exact=True).click()
            name = waiting.value.suggested_filename
            assert name == title.lower().replace(" ", "-") + "." + kind.lower()
            saved[kind] = Path(waiting.value.path()).read_bytes()
        tree = ElementTree.fromstring(saved["SVG"])
        assert tree.tag == "{http://www.w3.org/2000/svg}svg"
        drawn = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert drawn <= {"svg", "g", "title", "rect", "line", "text", "path"}
        colors = {element.get("fill", "") for element in tree.iter()}
        assert not any("var(" in color or "oklab" in color for color in colors)
        assert b"class=" not in saved["SVG"]
        assert saved["PNG"].startswith(b"\x89PNG\r\n\x1a\n")
        width, height = (int.from_bytes(saved["PNG"][at : at + 4]) for at in (16, 20))
        assert (width, height) == (2 * int(tree.get("width")), 2 * int(tree.get("height")))
    assert HOSTILE[0][:10] in "".join(tree.itertext())


def test_hostile_tokens_stay_inert_on_every_new_part(page):
    for number in range(28, 28 + len(HOSTILE)):
        for path in (f"/feature/{number}?interval=silent", f"/neuron/{number % NEURONS}"):
            _goto(page, path)
            expect(page.locator("h1")).to_be_visible()
            assert page.locator("main script, main img, main b").count() == 0
    for path, label in (("/compare", "First text"), ("/contrast", "Texts that have it")):
        _goto(page, path)
        page.get_by_label(label, exact=True).fill(" and ".join(HOSTILE))
        page.keyboard.press("Control+Enter")
        expect(page.locator("li strong").first).to_be_visible()
        expect(page.get_by_text("Reading…")).to_have_count(0)
        assert page.locator("main script, main img, main b").count() == 0


def _numbers(page: Page, heading: str) -> list[int]:
    lines = page.locator(f"section[aria-labelledby={heading}] li strong")
    return [int(text) for text in lines.all_inner_texts()]


def test_features_are_ranked_by_their_effect_on_a_chosen_next_token(page, api):
    text = "The sea was made in the harbour"
    answer = api.post("/prompt.json", json={"text": text, "next": " wind"}).json()
    _goto(page, "/prompt")
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("Next token").fill(" wind")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label("Rank by")).to_have_value("effect")
    effect = {item["feature"]: item["value"] * item["effect"] for item in answer["features"]}
    ranked = sorted(effect, key=lambda feature: (-effect[feature], feature))
    assert _numbers(page, "strongest") == ranked[:30]
    assert len({value > 0 for value in effect.values()}) == 2
    written = page.locator("section[aria-labelledby=strongest] li .value").all_inner_texts()
    assert [float(text.replace("−", "-")) for text in written] == pytest.approx(
        [effect[feature] for feature in ranked[:30]], rel=6e-3
    )
    page.reload()
    expect(page.get_by_label("Rank by")).to_have_value("effect")
    page.get_by_label("Rank by").select_option("value")
    values = {item["feature"]: item["value"] for item in answer["features"]}
    assert _numbers(page, "strongest") == sorted(values, key=lambda n: (-values[n], n))[:30]


def test_comparing_shows_what_fires_in_one_text_and_not_in_the_other(page, api):
    texts = ("The sea and the harbour", "The boats and the harbour in the morning")
    fires = [
        {
            item["feature"]
            for item in api.post("/prompt.json", json={"text": text}).json()["features"]
        }
        for text in texts
    ]
    _goto(page, "/prompt")
    page.get_by_role("link", name="Compare two").click()
    for label, text in zip(("First text", "Second text"), texts, strict=True):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Compare", exact=True).click()
    counts = (len(fires[0] - fires[1]), len(fires[1] - fires[0]), len(fires[0] & fires[1]))
    said = "{} features only in the first, {} only in the second, {} in both.".format(*counts)
    expect(page.get_by_role("status")).to_have_text(said)
    assert set(_numbers(page, "first")) == fires[0] - fires[1]
    assert set(_numbers(page, "second")) == fires[1] - fires[0]
    assert set(_numbers(page, "both")) == fires[0] & fires[1]
    assert 1 in fires[0] & fires[1]
    page.get_by_role("button", name=re.compile("Shade the tokens by feature 1,")).click()
    page.mouse.move(0, 0)
    expect(page.locator(".tokens .shade")).to_have_text([" harbour", " harbour"])
    page.reload()
    expect(page.get_by_role("status")).to_have_text(said)


PATHS = [
    "/feature/8?interval=silent",
    "/feature/28",
    "/neuron/3",
    "/prompt",
    "/compare",
    "/contrast#positive=The+sea&negative=A+door",
]


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screens_do_not_scroll_sideways(browser: Browser, address: str, width: int):
    context = browser.new_context(viewport={"width": width, "height": 780}, has_touch=True)
    for page in _opened(context, address):
        for path in PATHS:
            _goto(page, path)
            expect(page.locator("h1")).to_be_visible()
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser: Browser, address: str, scheme: str):
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


def test_everything_that_acts_has_a_name_and_is_reached_by_keyboard(page):
    for path in PATHS:
        _goto(page, path)
        page.wait_for_load_state("networkidle")
        nameless = page.evaluate(
            "() => [...document.querySelectorAll("
            "'button, a[href], input, textarea, select, [role=img]')]"
            ".filter(item => item.checkVisibility())"
            ".filter(item => !(item.getAttribute('aria-label') || item.textContent.trim()"
            " || item.labels?.length)).map(item => item.outerHTML)"
        )
        assert nameless == [], path
    _goto(page, "/feature/8")
    expect(page.locator(".example").first).to_be_visible()
    seen = set()
    for _ in range(160):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label')"
                " ?? document.activeElement.innerText ?? ''"
            ).strip()
        )
    assert {"Copy as JSON", "Longer texts", "Save plot: Feature 8 activations"} <= seen
    page.get_by_role("button", name="Save plot: Feature 8 activations").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("Save as PNG"))).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name=re.compile("Save as PNG"))).to_have_count(0)


def test_nothing_moves_for_those_who_ask_for_that(browser: Browser, address: str):
    context = browser.new_context(reduced_motion="reduce")
    for page in _opened(context, address):
        for path in PATHS:
            _goto(page, path)
            page.wait_for_load_state("networkidle")
            moving = page.evaluate(
                "() => [...document.querySelectorAll('*')].map(node => getComputedStyle(node))"
                ".filter(style => style.animationName !== 'none'"
                " || parseFloat(style.transitionDuration) > 0).length"
            )
            assert moving == 0
    context.close()


def test_on_paper_there_are_examples_of_every_range_and_no_buttons(page, api):
    feature = api.get("/feature/8.json").json()
    _goto(page, "/feature/8")
    expect(page.locator(".example").first).to_be_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    filled = [part for part in feature["intervals"] if part["examples"]]
    expected = min(len(feature["top"]), 10) + min(len(feature["inactive"]), 2)
    expected += sum(min(len(part["examples"]), 2) for part in filled)
    expect(page.locator(".example")).to_have_count(expected)
    assert page.locator("button:visible").count() == 0
    expect(page.locator("header.top")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.get_by_role("tab").first).to_have_count(1)


@pytest.fixture(scope="module")
def live(small_run: Path) -> LivePrompt:
    run = Run(small_run)
    rules = TokenRules.of(Activations.open(run.held_out))
    return LivePrompt(run.load_model, Dictionary.load(run.dictionary), rules, 64)


@pytest.fixture(scope="module")
def lively(small_run: Path, live: LivePrompt) -> Iterator[str]:
    """A server with a small real model."""
    with serving(Atlas.open(Run(small_run).atlas), live, effects=live) as found:
        yield found


def test_a_real_model_finds_the_features_that_tell_texts_apart(context, lively, live):
    positive = ["The captain watched the sea.", "A sailor sold the sea in the morning."]
    negative = ["    return width * height", "def area_3(width, height):"]
    means = []
    for texts in (positive, negative):
        total = np.zeros(live.dictionary.config.features)
        kept = [token for text in texts for token in live(text) if not token.excluded]
        for token in kept:
            for feature, value in token.features:
                total[feature] += value
        means.append(total / len(kept))
    difference = means[0] - means[1]
    for page in _opened(context, lively):
        _goto(page, "/contrast")
        page.get_by_label("Texts that have it").fill("\n".join(positive))
        page.get_by_label("Texts that lack it").fill("\n".join(negative))
        page.get_by_role("button", name="Find features").click()
        expect(page.get_by_role("status")).to_contain_text("tokens that have it")
        for heading, sign in (("more", 1), ("less", -1)):
            numbers = _numbers(page, heading)
            shown = sign * difference[numbers]
            assert len(numbers) > 3
            assert shown[0] == pytest.approx((sign * difference).max(), abs=1e-3)
            assert np.all(np.diff(shown) < 1e-3)
        page.locator("section[aria-labelledby=more] li a").first.click()
        best = int(np.argmax(difference))
        expect(page.locator("h1")).to_have_text(f"Feature {best}")


def test_a_real_model_ranks_features_by_a_next_token_and_refuses_two(context, lively, live):
    for page in _opened(context, lively):
        _goto(page, "/prompt")
        page.get_by_label("Text", exact=True).fill("The captain watched the")
        page.get_by_label("Next token").fill(" sea")
        page.get_by_role("button", name="Show features").click()
        expect(page.get_by_label("Rank by")).to_have_value("effect")
        token = live.token(" sea")
        fired: dict[int, float] = {}
        for item in live("The captain watched the"):
            for feature, value in item.features:
                fired[feature] = max(value, fired.get(feature, 0.0))
        effect = live.on_token(list(fired), token) * np.array(list(fired.values()))
        ranked = np.array(list(fired))[np.argsort(-effect, kind="stable")]
        assert _numbers(page, "strongest")[:5] == ranked[:5].tolist()
    page.close()
    refused = context.new_page()
    refused.goto(lively)
    _goto(refused, "/prompt")
    refused.get_by_label("Next token").fill("two tokens of it")
    refused.get_by_role("button", name="Show features").click()
    expect(refused.get_by_role("alert")).to_contain_text("expected one")
