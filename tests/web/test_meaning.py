"""Search by meaning from end to end: MiniLM itself, its index, the server, the page."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from sememe.atlas.index import index_meanings
from sememe.atlas.labels import NAME, Labels
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.errors import SememeError
from sememe.models.sentences import load_sentence_encoder
from sememe.serving import TOGETHER, sentence_encoder
from tests.web.conftest import admitted, serving
from tests.web.small_atlas import FEATURES
from tests.web.test_browser import _opened
from tests.web.test_browser import browser as browser

LABELS = {
    3: "boats and ships at sea",
    9: "legal contracts between companies",
    12: "recipes: baking with butter and flour",
}
ASKED = {
    "sailors on the ocean": 3,
    "a lawyer writes an agreement": 9,
    "how to make a cake": 12,
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, atlas: Atlas) -> Path:
    path = tmp_path_factory.mktemp("meaning")
    labels = Labels(path / NAME)
    labels.put(LABELS.items())
    index_meanings(atlas, path / "meanings", sentence_encoder(), labels=labels.all())
    labels.close()
    return path


@pytest.fixture(scope="module")
def meaning_address(atlas: Atlas, beside: Path) -> Iterator[str]:
    with serving(atlas, search=Search(atlas, beside, encoder=sentence_encoder)) as found:
        yield found


def test_sentences_mean_the_same_whatever_stands_beside_them():
    texts = ["word " * (1 + number * 7 % 50) + str(number) for number in range(TOGETHER + 9)]
    model = load_sentence_encoder()
    alone = np.concatenate([model(**model.tokens([text])).numpy() for text in texts])
    together = sentence_encoder()(texts)
    assert np.abs((together * alone).sum(1) - 1).max() < 2e-3  # bf16 where that is fast


@pytest.mark.parametrize(("text", "feature"), ASKED.items())
def test_the_server_finds_what_is_meant(meaning_address: str, text: str, feature: int):
    with admitted(meaning_address) as client:
        query = {"search": text, "by": "meaning", "facets": "false"}
        rows = client.get("/features.json", params=query).json()
        assert rows["rows"][0]["feature"] == feature
        assert rows["rows"][0]["label"] == LABELS[feature]
        assert rows["total"] == FEATURES


@pytest.mark.browser
def test_a_person_finds_a_feature_by_what_it_is_about(browser: Browser, meaning_address: str):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    for page in _opened(context, meaning_address):
        page.get_by_label("What to search in").select_option("meaning")
        page.get_by_role("searchbox").fill("sailors on the ocean")
        expect(page).to_have_url(re.compile("by=meaning"))
        expect(page.locator("[role=rowheader] a").first).to_have_text("3", timeout=20_000)
        expect(page.locator("[role=rowheader]").first).to_contain_text(LABELS[3])
        page.locator("[role=rowheader] a").first.click()
        expect(page.locator("h1")).to_have_text("Feature 3")
        expect(page.get_by_text(LABELS[3], exact=True).first).to_be_visible()
    context.close()


def test_other_labels_are_not_taken_for_those_of_the_index(atlas: Atlas, beside: Path):
    with pytest.raises(SememeError, match="labels"):
        index_meanings(atlas, beside / "meanings", sentence_encoder(), labels={3: "something else"})


def test_without_an_index_meaning_is_not_offered(client: httpx.Client):
    assert "meaning" not in client.get("/index.json").json()["searches"]
    assert client.get("/features.json?search=sea&by=meaning").status_code == 400
