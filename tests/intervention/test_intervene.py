"""Interventions beside plain hooks that do the algebra densely, in float64."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import sememe
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import Nonlinearity
from sememe.errors import SememeError, UsageError
from sememe.intervention.changes import Change, Scope
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import intervene
from sememe.models.generation import generate
from sememe.models.language_model import LanguageModel
from tests.intervention.conftest import KINDS, random_dictionary

SITE = "layers.0.resid"
TEXT = "The captain watched the sea in the morning. Nobody sold the hills for 37 days."


def ids_of(model: LanguageModel, text: str = TEXT) -> Tensor:
    return torch.tensor([[0, *model.tokenizer.encode(text)]])


def dense(dictionary: Dictionary, x: Tensor) -> Tensor:
    """Return the whole code of some rows, in float64."""
    code = dictionary.encode(x.float())
    full = torch.zeros(len(x), dictionary.config.features, dtype=torch.float64)
    for row in range(len(x)):
        for index, value in zip(code.indices[row].tolist(), code.values[row].tolist(), strict=True):
            if value > 0:
                full[row, index] = value
    return full


@contextmanager
def plain_hook(
    model: LanguageModel, dictionary: Dictionary, layer: int, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Replace a layer's output by x + decode(change(f)) - decode(f), rows of text 0, BOS kept."""
    rows = dictionary.W_dec.detach().double() / dictionary.write_scale.double()

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        result = output.clone()
        for number, text in enumerate(output):
            code = dense(dictionary, text[1:])
            result[number, 1:] = (text[1:].double() + (change(code) - code) @ rows).to(output.dtype)
        return result

    handle = model.module.model.layers[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def strongest(features: FeatureSet, model: LanguageModel, count: int = 3) -> list[int]:
    """Return the features that fire on most tokens of the text."""
    x = sememe.models.reading.read(model, ids_of(model), [features.reads])[features.reads][0, 1:]
    fires = (dense(features.dictionary, x) > 0).sum(0)
    return fires.argsort(descending=True, stable=True)[:count].tolist()


def column(feature: int, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def change(code: Tensor) -> Tensor:
        new = code.clone()
        new[:, feature] = function(code[:, feature])
        return new

    return change


@pytest.mark.parametrize(
    ("how", "function"),
    [
        ("3.5", lambda f: torch.full_like(f, 3.5)),
        (0, torch.zeros_like),
        ("scale:-2", lambda f: -2 * f),
        ("add:1.5", lambda f: f + 1.5),
    ],
)
def test_a_change_is_what_a_plain_hook_makes(
    model: LanguageModel,
    features: FeatureSet,
    how: str | int,
    function: Callable[[Tensor], Tensor],
) -> None:
    ids, feature = ids_of(model), strongest(features, model)[0]
    with intervene(model, {features: {feature: how}}) as run:
        found = model.logits(ids)
    (applied,) = run.report()
    assert applied.tokens == ids.numel()
    assert applied.left_out == 1  # the BOS
    assert applied.applied == ids.numel() - 1
    assert 0 < applied.changed <= applied.applied
    with plain_hook(model, features.dictionary, 0, column(feature, function)):
        expected = model.logits(ids)
    assert not torch.allclose(expected, model.logits(ids), atol=1e-2)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_multiples_and_means_are_those_of_the_atlas(
    model: LanguageModel, features: FeatureSet
) -> None:
    ids, feature = ids_of(model), strongest(features, model)[0]
    assert features.atlas is not None
    page = features.atlas.feature(feature)
    for how, amount in (
        ("2x", 2 * page["maximum"]),
        ("mean", page["mean"] * page["frequency"]),
        ("add:-0.5x", -0.5 * page["maximum"]),
    ):
        with intervene(model, {features: {feature: how}}) as run:
            found = model.logits(ids)
        assert run.report()[0].amount == pytest.approx(amount, rel=1e-4)
        plain = Change.parse(how).how
        with intervene(model, {features.dictionary: {feature: f"{plain}:{run.applied[0].amount}"}}):
            assert torch.equal(model.logits(ids), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_nothing_is_exact(
    model: LanguageModel, features: FeatureSet, dtype: torch.dtype
) -> None:
    ids = ids_of(model)
    module = type(model.module)(model.module.config).to(dtype)
    module.load_state_dict(model.module.state_dict())
    other = LanguageModel(model.name, module, model.tokenizer, hash=model.hash)
    every = range(features.dictionary.config.features)
    plain = other.logits(ids)
    for changes in ({}, dict.fromkeys(every, "scale:1"), dict.fromkeys(every, "add:0")):
        with intervene(other, {features: changes}) as run:
            assert torch.equal(other.logits(ids), plain)
        assert all(each.changed == 0 for each in run.report())
        assert run.tokens == ids.numel()
    assert torch.equal(other.logits(ids), plain)


def test_the_rest_of_the_tokens_stay_bit_for_bit(
    model: LanguageModel, features: FeatureSet
) -> None:
    """A feature that fires on some tokens is ablated: the others' activations do not move."""
    ids, feature = ids_of(model), strongest(features, model, 60)[-1]
    read = sememe.models.reading.read
    x = read(model, ids, [SITE])[SITE][0]
    fires = dense(features.dictionary, x)[:, feature] > 0
    fires[0] = False  # the BOS is left out
    with intervene(model, {features: {feature: 0}}):
        moved = read(model, ids, [SITE])[SITE][0]
    assert 0 < fires.sum() < len(fires)
    assert torch.equal((x != moved).any(1), fires)


def test_out_leaves_nothing_along_the_directions(
    model: LanguageModel, features: FeatureSet
) -> None:
    ids, (first, second, third) = ids_of(model), strongest(features, model)
    read = sememe.models.reading.read
    x = read(model, ids, [SITE])[SITE][0].double()
    with intervene(model, {features: {first: "out", second: "out", third: "add:2"}}):
        found = read(model, ids, [SITE])[SITE][0].double()
    rows = features.dictionary.W_dec.detach().double() / features.dictionary.write_scale.double()
    span = rows[[first, second]].T
    away = torch.eye(32, dtype=torch.float64) - span @ torch.linalg.pinv(span)
    torch.testing.assert_close(found[1:], (x[1:] + 2 * rows[third]) @ away, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0], x[0])


def test_the_same_direction_twice_goes_once(model: LanguageModel) -> None:
    dictionary = random_dictionary(SITE, SITE)
    with torch.no_grad():
        dictionary.W_dec[1] = dictionary.W_dec[0]
    ids, read = ids_of(model), sememe.models.reading.read
    seen = []
    for chosen in ({0: "out"}, {0: "out", 1: "out"}):
        with intervene(model, {dictionary: chosen}):
            seen.append(read(model, ids, [SITE])[SITE])
    torch.testing.assert_close(*seen, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_feature(model: LanguageModel, kind: Nonlinearity) -> None:
    dictionary, ids = random_dictionary(SITE, SITE, nonlinearity=kind), ids_of(model)
    features = FeatureSet(dictionary)
    feature = strongest(features, model)[0]
    with intervene(model, {features: {feature: "scale:3"}}):
        found = model.logits(ids)
    rows = dictionary.W_dec.detach() / dictionary.write_scale

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        code = dense(dictionary, output[0])
        return output + (2 * code[None, :, [feature]].float() * rows[feature])

    handle = model.module.model.layers[0].register_forward_hook(hook)
    expected = model.logits(ids)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_two_features_at_each_of_two_sites(model: LanguageModel, features: FeatureSet) -> None:
    later, ids = random_dictionary("layers.1.mlp.out", "layers.1.mlp.out"), ids_of(model)
    one, two, _ = strongest(features, model)
    with intervene(
        model, {features: {one: 2.0, two: "scale:0"}, later: {5: 1.0, 9: "add:2"}}
    ) as run:
        found = model.logits(ids)
    report = run.report()
    assert [(each.site, each.feature) for each in report] == [
        (SITE, one),
        (SITE, two),
        ("layers.1.mlp.out", 5),
        ("layers.1.mlp.out", 9),
    ]
    assert report[2].applied == ids.numel()  # no rules are known of this dictionary

    def first(code: Tensor) -> Tensor:
        new = code.clone()
        new[:, one], new[:, two] = 2.0, 0.0
        return new

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        code = dense(later, output[0])
        new = code.clone()
        new[:, 5] = 1.0
        new[:, 9] += 2
        rows = later.W_dec.detach().double() / later.write_scale.double()
        return (output.double() + (new - code) @ rows).to(output.dtype)

    handle = model.module.model.layers[1].mlp.register_forward_hook(hook)
    with plain_hook(model, features.dictionary, 0, first):
        expected = model.logits(ids)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_a_transcoder_writes_another_site_than_it_reads(model: LanguageModel) -> None:
    coder, ids = random_dictionary("layers.1.mlp.in", "layers.1.mlp.out"), ids_of(model)
    with intervene(model, {coder: {3: 4.0}}) as run:
        found = model.logits(ids)
    assert run.report()[0].applied == ids.numel()

    def hook(_module: object, args: tuple[Tensor], output: Tensor) -> Tensor:
        code = dense(coder, args[0][0])
        delta = (4.0 - code[:, [3]]) * coder.W_dec[3].detach() / coder.write_scale
        return (output.double() + delta).to(output.dtype)

    handle = model.module.model.layers[1].mlp.register_forward_hook(hook)
    expected = model.logits(ids)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    backwards = random_dictionary("layers.1.mlp.out", "layers.1.mlp.in")
    with intervene(model, {backwards: {3: 4.0}}), pytest.raises(SememeError, match="comes before"):
        model.logits(ids)


@pytest.mark.parametrize(
    ("scope", "positions"),
    [("all", range(1, 99)), ("3:6", range(3, 6)), ("4", [4]), ("20:", range(20, 99)), ("new", [])],
)
def test_a_scope_is_kept_to(
    model: LanguageModel, features: FeatureSet, scope: str, positions: range | list[int]
) -> None:
    ids = ids_of(model)
    change = Change.parse("add:3", scope=scope)
    read = sememe.models.reading.read
    x = read(model, ids, [SITE])[SITE][0]
    with intervene(model, {features: {7: change}}) as run:
        found = read(model, ids, [SITE])[SITE][0]
        model.logits(ids)
    expected = [place for place in positions if place < ids.numel()]
    assert (x != found).any(1).nonzero().flatten().tolist() == expected
    (each,) = run.report()
    assert each.applied == each.changed == len(expected)
    assert each.outside + each.left_out + each.applied == ids.numel() == run.tokens


def test_a_condition_is_of_another_feature(model: LanguageModel, features: FeatureSet) -> None:
    ids, (one, two, three) = ids_of(model), strongest(features, model)
    read = sememe.models.reading.read
    x = read(model, ids, [SITE])[SITE][0]
    code = dense(features.dictionary, x)
    limit = float(code[1:, two].median().clamp_min(0.01))
    change = Change.parse("add:3", when=f"{two}>{limit:.4f}")
    with intervene(model, {features: {one: change, three: "add:1", two: "0"}}) as run:
        found = read(model, ids, [SITE])[SITE][0]
        model.logits(ids)
    met = code[:, two] > round(limit, 4)
    met[0] = False
    each = run.report()[0]
    assert 0 < each.applied == met.sum()
    assert each.unmet == ids.numel() - 1 - met.sum()
    rows = features.dictionary.W_dec.detach().double() / features.dictionary.write_scale.double()
    delta = 3 * met[:, None] * rows[one] + rows[three] - code[:, [two]] * rows[two]
    torch.testing.assert_close(found[1:].double(), (x + delta)[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scope", ["all", "prompt", "new", "2:9"])
def test_generating_with_a_cache_is_reading_everything_again(
    model: LanguageModel, features: FeatureSet, scope: str
) -> None:
    prompt, tokens = ids_of(model, "The captain watched")[0].tolist(), 12
    one, two, _ = strongest(features, model)
    changes = {
        features: {
            one: Change.parse("2x", scope=scope),
            two: Change.parse("add:-1x", scope=scope),
        }
    }
    with intervene(model, changes) as run:
        found = generate(model, [prompt], tokens=tokens)[0]
    cached = run.report()
    text = list(prompt)
    with intervene(model, changes) as again:
        again.prompt_tokens = len(prompt)
        for token in found:
            assert int(model.logits(torch.tensor([text]))[0, -1].argmax()) == token
            text.append(token)
        assert len(found) == tokens
    again.report()
    assert run.tokens == len(prompt) + tokens - 1
    new = tokens - 1
    inside = {"all": run.tokens - 1, "prompt": len(prompt) - 1, "new": new, "2:9": 7}[scope]
    assert cached[0].applied == inside
    assert found != generate(model, [prompt], tokens=tokens)[0]


def test_a_padded_batch_is_its_prompts_one_by_one(
    model: LanguageModel, features: FeatureSet
) -> None:
    texts = ["The captain watched the sea", "Nobody", "def area(width, height):", "In 1984"]
    rows = [[0, *model.tokenizer.encode(text)] for text in texts]
    one, two, _ = strongest(features, model)
    for scope in ("all", "prompt", "new", "1:4"):
        change = {features: {one: Change.parse("2x", scope=scope), two: Change.parse("out")}}
        with intervene(model, change) as run:
            together = generate(model, rows, tokens=8)
        counted = run.report()
        totals = [0, 0]
        for row, expected in zip(rows, together, strict=True):
            with intervene(model, change) as run:
                assert generate(model, [row], tokens=8)[0] == expected
            for number, each in enumerate(run.report()):
                totals[number] += each.applied
        assert [each.applied for each in counted] == totals


def test_transformers_own_generation_is_changed_alike(
    model: LanguageModel, features: FeatureSet
) -> None:
    rows = [[0, *model.tokenizer.encode(text)] for text in ("The captain watched", "Nobody")]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    change = {features: {strongest(features, model)[0]: Change.parse("2x", scope="new")}}
    with intervene(model, change) as run:
        theirs = model.module.generate(
            ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0
        )
        run.report()
    with intervene(model, change):
        ours = generate(model, rows, tokens=6)
    for row, (new, whole) in enumerate(zip(ours, theirs[:, width:].tolist(), strict=True)):
        assert new == whole[: len(new)], row


def test_two_runs_of_the_same_model_are_told_apart(
    model: LanguageModel, features: FeatureSet
) -> None:
    ids = ids_of(model)
    plain = model.logits(ids)
    with intervene(model, {features: {1: "add:4"}}) as outer:
        once = model.logits(ids)
        with intervene(model, {features: {1: "add:4"}}) as inner:
            twice = model.logits(ids)
    with intervene(model, {features: {1: "add:8"}}):
        torch.testing.assert_close(model.logits(ids), twice, atol=2e-4, rtol=1e-4)
    assert not torch.equal(once, twice)
    assert torch.equal(model.logits(ids), plain)
    assert (outer.tokens, inner.tokens) == (2 * ids.numel(), ids.numel())
    outer.report()
    inner.report()


def test_a_missed_token_is_not_reported(tiny_directory: object, features: FeatureSet) -> None:
    model = sememe.load_model(str(tiny_directory), dtype="fp32")
    dictionary = random_dictionary("layers.2.resid", "layers.2.resid")
    with intervene(model, {dictionary: {0: 1.0}}) as run:
        model.logits(ids_of(model))
        run.report()
        model.module.config.num_hidden_layers = 2  # the third layer no longer runs
        model.logits(ids_of(model))
        with pytest.raises(SememeError, match=r"read (\d+) tokens, but \d+ were seen at layers\.2"):
            run.report()
    model.module.config.num_hidden_layers = 3
    with intervene(model, {dictionary: {0: 1.0}}), pytest.raises(SememeError, match="whole model"):
        model.module.model(ids_of(model))
    with intervene(model, {dictionary: {0: 1.0}}):
        model.logits(ids_of(model))
        with pytest.raises(SememeError, match="whole model"):
            model.module.model(ids_of(model))


def test_a_pass_that_is_broken_off_counts_nothing(
    model: LanguageModel, features: FeatureSet
) -> None:
    ids = ids_of(model)
    with intervene(model, {features: {1: "add:1"}}) as run:
        sememe.models.reading.read(model, ids, [SITE])
        assert run.report()[0].tokens == run.tokens == 0
        model.logits(ids)
    assert run.report()[0].tokens == run.tokens == ids.numel()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({128: 1.0}, "feature 128 of the dictionary at layers.0.resid: expected 0 to 127"),
        ({-1: 1.0}, "feature -1"),
        ({3: float("nan")}, "change is nan; expected a value"),
        ({3: float("inf")}, "change is inf"),
        ({3: "5 x"}, "change is '5 x'; expected a value"),
        ({3: "scale:2x"}, "scale:FACTOR without an x"),
        ({3: "1e999"}, "change is '1e999'"),
    ],
)
def test_wrong_changes_are_refused(
    model: LanguageModel, features: FeatureSet, changes: dict[int, str | float], message: str
) -> None:
    with (
        pytest.raises(UsageError, match=message.replace("(", r"\(")),
        intervene(model, {features: changes}),
    ):
        pass


def test_a_wrong_scope_or_condition_is_refused(model: LanguageModel, features: FeatureSet) -> None:
    for scope in ("some", "5:3", ":", "-1:", ""):
        with pytest.raises(UsageError, match="scope is"):
            Change.parse("5x", scope=scope)
    for when in ("88", "88<2", "88>nan", ">3"):
        with pytest.raises(UsageError, match="when is"):
            Change.parse("5x", when=when)
    for how in ("5x", "-2.5", "mean", "scale:0.5", "add:3", "add:-0.5x", "out"):
        assert str(Change.parse(how)) == how
    assert Scope.parse(":4") == Scope("all", 0, 4)
    change = Change.parse("1", when="500>1")
    with pytest.raises(UsageError, match="feature 500"), intervene(model, {features: {1: change}}):
        pass


def test_dictionaries_that_do_not_fit_are_refused(
    model: LanguageModel, features: FeatureSet, tiny_directory: object
) -> None:
    wide = random_dictionary("layers.0.mlp.hidden", "layers.0.mlp.hidden", (32, 32))
    for dictionary, message in (
        (wide, "width 32, but width 96"),
        (random_dictionary("layers.9.resid", "layers.9.resid"), "layers.9.resid"),
    ):
        with pytest.raises(UsageError, match=message), intervene(model, {dictionary: {0: 1.0}}):
            pass
    other = LanguageModel("other", model.module, model.tokenizer, hash="another")
    with pytest.raises(UsageError, match=r"made for model .*another"):
        features.check(other)
    with pytest.raises(UsageError, match="needs its atlas"):
        FeatureSet(features.dictionary).maximum(3)
    assert features.atlas is not None
    dead = [n for n, f in enumerate(features.atlas.columns["maximum"]) if not f > 0]
    for feature in dead[:1]:
        with pytest.raises(UsageError, match="never fired"):
            features.maximum(feature)
