import pytest
import torch

from sememe.activations.rules import TokenRules
from sememe.activations.store import Activations
from sememe.atlas.store import Atlas
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.models.language_model import LanguageModel
from sememe.run import Run
from sememe.web.live import LivePrompt
from sememe.web.prompt import MAX_TOKENS
from tests.web.conftest import admitted, serving

TEXT = "The sea was calm, 大海 and 바다."


@pytest.fixture(scope="module")
def live(small_run):
    run = Run(small_run)
    rules = TokenRules.of(Activations.open(run.held_out))
    return LivePrompt(run.load_model, Dictionary.load(run.dictionary), rules, 64)


def _hooked(model: LanguageModel, ids: list[int], layer: int) -> torch.Tensor:
    """What a plain hook sees after ``layer``, of a whole forward pass."""
    seen = []
    block = model.module.model.layers[layer]
    handle = block.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        model.module(torch.tensor([ids]))
    handle.remove()
    (output,) = seen
    return (output[0] if isinstance(output, tuple) else output).reshape(len(ids), -1).float()


def test_a_prompt_has_the_codes_of_the_activations_that_a_hook_sees(live):
    tokens = live(TEXT)
    model, dictionary = live.model, live.dictionary
    ids = model.tokenizer.encode(TEXT)
    assert [token.token for token in tokens] == ids
    layer = int(dictionary.config.reads[0].split(".")[1])
    rows = _hooked(model, [model.tokenizer.bos, *ids], layer)[1:]
    code = dictionary.encode(rows)
    for place, token in enumerate(tokens):
        pairs = zip(code.indices[place].tolist(), code.values[place].tolist(), strict=True)
        expected = {} if token.excluded else {i: value for i, value in pairs if value > 0}
        assert dict(token.features) == pytest.approx(expected, rel=1e-4)
    assert any(token.features for token in tokens)


def test_tokens_that_the_rules_leave_out_have_no_features(live):
    ids = live.model.tokenizer.encode(TEXT)
    left_out = LivePrompt(live.load, live.dictionary, live.rules._replace(special=[ids[1]]), 64)
    for number, limit in enumerate([{}, {live.dictionary.config.reads[0]: 0.0}]):
        left_out.rules = left_out.rules._replace(norm_limits=limit)
        found = left_out(TEXT)
        assert [token.excluded for token in found] == [number == 1 or i == ids[1] for i in ids]
        assert all(bool(token.features) != token.excluded for token in found)


def test_a_long_text_is_read_by_windows_as_the_training_text_was(live):
    text = "The sea was calm and the ship sailed on. " * 12
    ids = live.model.tokenizer.encode(text)
    assert len(ids) > 2 * live.window
    layer = int(live.dictionary.config.reads[0].split(".")[1])
    parts = [ids[start : start + live.window] for start in range(0, len(ids), live.window)]
    rows = [_hooked(live.model, [live.model.tokenizer.bos, *part], layer)[1:] for part in parts]
    with torch.no_grad():
        code = live.dictionary.encode(torch.cat(rows))
    for place, token in enumerate(live(text)):
        strongest = max((value for _, value in token.features), default=0.0)
        if not token.excluded:
            assert strongest == pytest.approx(float(code.values[place].max()), rel=1e-4)


def test_a_text_of_too_many_tokens_is_refused(live):
    with pytest.raises(UsageError, match=rf"expected 1 to {MAX_TOKENS}"):
        live("The sea. " * MAX_TOKENS)


def test_effects_are_those_of_decoder_rows_through_norm_and_unembedding(live):
    model = live.model.module
    rows = torch.nn.functional.normalize(live.dictionary.W_dec.detach().float(), dim=1)
    with torch.no_grad():
        weight = model.lm_head.weight.float()
        logits = (rows * model.model.norm.weight.float()) @ weight.T
    for feature in (0, 3, len(rows) - 1):
        expected = logits[feature] - logits[feature].median()
        assert live.of_feature(feature) == pytest.approx(expected.numpy(), abs=1e-4)
    token = live.token(" the")
    assert live.model.tokenizer.decode([token]) == " the"
    expected = logits[[1, 5], token] - logits[[1, 5]].mean(1)
    assert live.on_token([1, 5], token) == pytest.approx(expected.numpy(), abs=1e-4)
    with pytest.raises(UsageError, match=r"next 'the sea is' is \d tokens .*: expected one"):
        live.token("the sea is")


def test_contrast_ranks_by_the_difference_of_means(live, small_run):
    positive, negative = ["The sea was calm.", "The ship sailed."], ["1984 and 1985"]

    def mean(texts: list[str]) -> dict[int, float]:
        tokens = [token for text in texts for token in live(text) if not token.excluded]
        total: dict[int, float] = {}
        for token in tokens:
            for feature, value in token.features:
                total[feature] = total.get(feature, 0.0) + value
        return {feature: value / len(tokens) for feature, value in total.items()}

    one, other = mean(positive), mean(negative)
    difference = {f: one.get(f, 0.0) - other.get(f, 0.0) for f in {*one, *other}}
    atlas = Atlas.open(Run(small_run).atlas)
    with serving(atlas, live, effects=live) as address, admitted(address) as client:
        body = {"positive": positive, "negative": negative, "limit": 200}
        answer = client.post("/contrast.json", json=body).json()
        prompted = client.post("/prompt.json", json={"text": TEXT, "next": " the"}).json()
        effects = client.get("/feature/0/effects.json").json()["effects"]
    for side, sign in (("positive", 1), ("negative", -1)):
        found = {item["feature"]: item["difference"] for item in answer[side]}
        assert found == pytest.approx({f: difference[f] for f in found}, abs=2e-4)
        expected = sorted((v for v in difference.values() if sign * v > 0), key=lambda v: -sign * v)
        assert list(found.values()) == pytest.approx(expected[:200], abs=2e-4)
    first = prompted["features"][0]
    token = prompted["next"]["token"]
    assert first["effect"] == pytest.approx(
        float(live.on_token([first["feature"]], token)[0]), abs=1e-3
    )
    assert all(live.of_feature(0)[int(t)] == pytest.approx(e, abs=1e-3) for t, e in effects.items())


def test_the_served_atlas_and_the_model_name_the_same_features(live, small_run):
    atlas = Atlas.open(Run(small_run).atlas)
    with serving(atlas, live) as address, admitted(address) as client:
        answer = client.post("/prompt.json", json={"text": TEXT})
        assert answer.status_code == 200
        shown = answer.json()
        assert "".join(piece["text"] for piece in shown["pieces"]) == TEXT
        first = shown["features"][0]
        page = client.get(f"/feature/{first['feature']}.json").json()
        assert page["maximum"] == first["maximum"]
        long = client.post("/prompt.json", json={"text": "sea " * 2500})
    assert long.status_code == 400
    assert "tokens long" in long.json()["error"]
