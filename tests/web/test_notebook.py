"""The notebook widget: its traits without a browser, its script in a real Chromium."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from traitlets import TraitError

from sememe.errors import UsageError
from sememe.web.notebook import FeatureWidget
from tests.web.small_atlas import FEATURES, HOSTILE
from tests.web.test_browser import CONTRAST
from tests.web.test_browser import browser as browser
from tests.web.test_browser import context as context


def test_the_widget_holds_what_the_server_answers(atlas, client):
    widget = FeatureWidget(atlas, [3, 1, 3, 28])
    assert widget.chosen == 3
    assert [name["feature"] for name in widget.names] == [3, 1, 28]
    pages = {n: client.get(f"/feature/{n}.json").json() for n in (1, 3, 28)}
    assert widget.page == pages[3]
    assert widget.names == [pages[n]["name"] for n in (3, 1, 28)]
    widget.chosen = 28
    assert widget.page == pages[28]
    assert FeatureWidget(atlas, 1).page == pages[1]


def test_what_is_sent_to_the_notebook_is_json(atlas):
    state = FeatureWidget(atlas, 30).get_state()
    assert json.loads(json.dumps(state))["page"]["feature"] == 30
    assert "export" in state["_esm"]
    assert ".sememe" in state["_css"]


@pytest.mark.parametrize("number", [-1, FEATURES])
def test_numbers_of_no_feature_are_refused(atlas, number):
    with pytest.raises(UsageError, match=rf"feature {number}: .* 0 to {FEATURES - 1}"):
        FeatureWidget(atlas, [1, number])
    widget = FeatureWidget(atlas, 1)
    with pytest.raises(TraitError, match="expected a whole number"):
        widget.chosen = number
    with pytest.raises(TraitError, match="expected a whole number"):
        widget.set_state({"chosen": number})  # as a notebook sends it
    assert widget.chosen == widget.page["feature"] == 1
    with pytest.raises(UsageError, match="at least one"):
        FeatureWidget(atlas, [])


def test_without_the_extra_one_line_says_what_to_install():
    code = "import sys; sys.modules['anywidget'] = None; import sememe.web.notebook"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SememeError: notebook widgets need anywidget: pip install 'sememe[notebook]'" in (
        done.stderr
    )


DOCUMENT = """<!doctype html><title>Notebook</title><style>{css}</style>
<body data-jp-theme-light="{light}"><h2 id="others">Of the notebook</h2><div id="cell"></div>
<script type="module">
import widget from "/widget.js";
const values = {values};
const calls = [];
window.model = {{
  get: (name) => values[name],
  set: (name, value) => {{ values[name] = value; }},
  save_changes: () => {{ window.sent = values.chosen; }},
  on: (event, call) => calls.push([event, call]),
  off: () => {{}},
  receive: (name, value) => {{
    values[name] = value;
    calls.filter(([event]) => event === `change:${{name}}`).forEach(([, call]) => call());
  }},
}};
await widget.render({{ model: window.model, el: document.getElementById("cell") }});
</script>"""


@pytest.fixture
def page(context) -> Iterator[Page]:
    shown = context.new_page()
    wrong: list[str] = []
    shown.on("console", lambda message: wrong.append(message.text))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    yield shown
    assert shown.evaluate("window.hacked") is None
    assert wrong == []


def _open(page: Page, widget: FeatureWidget, light: str = "true") -> None:
    """Show ``widget`` on a page as a notebook would."""
    values = json.dumps({"names": widget.names, "chosen": widget.chosen, "page": widget.page})
    html = DOCUMENT.format(css=widget._css, light=light, values=values.replace("<", "\\u003c"))
    answers = {
        "/widget.js": ("text/javascript", widget._esm),
        "/": ("text/html; charset=utf-8", html),
    }

    def answer(route) -> None:
        kind, body = answers.get(route.request.url.removeprefix("http://notebook"), ("", ""))
        route.fulfill(content_type=kind, body=body)

    page.route("http://notebook/**", answer)
    page.goto("http://notebook/")


@pytest.mark.browser
def test_the_widget_shows_its_features_and_opens_another(page, atlas):
    widget = FeatureWidget(atlas, [1, 28])
    _open(page, widget)
    expect(page.get_by_role("heading", name="Feature 1", exact=True)).to_be_visible()
    expect(page.locator(".example .peak").first).to_have_text(" harbour")
    page.get_by_role("tab").nth(1).click()
    examples = widget.page["intervals"][0]["examples"]
    expect(page.locator(".example")).to_have_count(len(examples))
    page.locator("nav button").nth(1).click()
    page.wait_for_function("window.sent === 28")
    widget.chosen = page.evaluate("window.sent")
    page.evaluate("page => window.model.receive('page', page)", widget.page)
    expect(page.get_by_role("heading", name="Feature 28", exact=True)).to_be_visible()
    expect(page.locator(".example .peak").first).to_have_text(HOSTILE[0])
    assert page.locator(".sememe script, .sememe img").count() == 0
    expect(page.get_by_role("tab").first).to_have_attribute("aria-selected", "true")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save plot: Feature 28 activations").click()
        page.get_by_role("button", name=re.compile("Save as PNG")).click()
    assert waiting.value.suggested_filename == "feature-28-activations.png"


@pytest.mark.browser
@pytest.mark.parametrize("light", ["true", "false"])
def test_the_widget_follows_the_notebook_and_leaves_it_as_it_is(page, atlas, light):
    _open(page, FeatureWidget(atlas, 8), light)
    expect(page.locator(".example").first).to_be_visible()
    look = "id => { const style = getComputedStyle(document.querySelector(id));"
    look += " return [style.backgroundColor, style.margin, style.fontFamily] }"
    assert page.evaluate(look, "#others")[0] == "rgba(0, 0, 0, 0)"
    assert page.evaluate(look, "#others")[1] != "0px"
    paper = page.evaluate(look, ".sememe")[0]
    assert paper == ("rgb(251, 251, 250)" if light == "true" else "rgb(17, 19, 22)")
    assert (
        page.evaluate(CONTRAST.replace("document.body", "document.querySelector('.sememe')"))[
            "found"
        ]
        == []
    )
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
