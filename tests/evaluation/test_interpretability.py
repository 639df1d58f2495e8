"""Token patterns beside a slow walk over text, and features whose patterns are known by hand."""

import random

import numpy as np
import pytest
import torch

from sememe.evaluation.arms import Arm
from sememe.evaluation.firings import Firings, Text, sample
from sememe.evaluation.interpretability import METRICS, measure, ranked_effects, single_tokens
from sememe.evaluation.sections import NotApplicableError, Settings
from sememe.evaluation.token_patterns import (
    ANY,
    START,
    Pattern,
    Score,
    Trie,
    commonest,
    contexts_of,
    patterns_of,
)
from sememe.progress import Progress

DEPTH = 5


def fits(pattern: Pattern, text: list[int], place: int) -> bool:
    """Whether a pattern fits at a place of a text, one token after the other."""
    for back, wanted in enumerate(pattern):
        at = place - back
        if wanted == START:
            return at == -1
        if at < 0 or (wanted != ANY and text[at] != wanted):
            return False
    return True


def contexts(text: list[int], depth: int = DEPTH) -> np.ndarray:
    place = np.arange(len(text))
    return contexts_of(np.array(text), place, place, depth)


def test_the_trie_agrees_with_a_slow_walk_over_the_text() -> None:
    chance = random.Random(0)
    found = 0
    for _ in range(200):
        text = [chance.randrange(3) for _ in range(60)]
        patterns = set()
        for _ in range(chance.randrange(6)):
            rest = [chance.choice([0, 1, 2, ANY]) for _ in range(chance.randrange(4))]
            end = [START] if chance.random() < 0.3 else []
            patterns.add((chance.randrange(3), *rest, *end))
        expected = [any(fits(p, text, place) for p in patterns) for place in range(len(text))]
        found += sum(expected)
        assert Trie(patterns).matches(contexts(text)).tolist() == expected
    assert found > 1000


def test_contexts_look_back_to_the_start_of_their_own_text() -> None:
    ids, position = np.array([7, 8, 9, 4, 5]), np.array([0, 1, 2, 0, 1])
    rows = contexts_of(ids, np.arange(5), position, 3)
    assert rows[2].tolist() == [9, 8, 7]
    assert rows[1].tolist() == [8, 7, START]
    assert rows[3, :2].tolist() == [4, START]
    assert not (rows[3, 2:] >= 0).any()


def respond_to(rules: list[Pattern], asked: list[int] | None = None):
    """Features that fire where their rule fits, and nowhere else."""

    def respond(texts):
        if asked is not None:
            asked.append(len(texts))
        forward = [list(reversed(back)) for _, back in texts]
        return [
            float(fits(rules[n], text, len(text) - 1))
            for (n, _), text in zip(texts, forward, strict=True)
        ]

    return respond


@pytest.mark.parametrize("rule", [(3,), (3, 1), (3, ANY, 2), (3, ANY, 1, ANY, 2)])
def test_the_pattern_of_a_hand_made_feature_is_found_and_foretells_all(rule: Pattern) -> None:
    """Fitted on one text, precision and recall are 1 on another."""
    chance = random.Random(1)
    fitting, scored = ([chance.randrange(5) for _ in range(4000)] for _ in range(2))
    place = next(p for p in range(8, 4000) if fits(rule, fitting, p))
    context = contexts(fitting, 8)[place].tolist()
    asked: list[int] = []
    found = patterns_of([context], [1.0], respond_to([rule], asked), filler=9)
    assert found == [rule]
    assert asked == [8, len(rule) - 1]
    fired = np.array([fits(rule, scored, p) for p in range(4000)])
    score = Score.of(Trie(found).matches(contexts(scored)), fired)
    assert score.fired > 10
    assert (score.precision, score.recall, score.f1) == (1, 1, 1)


def test_what_no_trimmed_context_fires_on_is_kept_whole_with_the_start() -> None:
    context = contexts([1, 2, 3])[2].tolist()
    assert patterns_of([context], [1.0], lambda texts: [0.0] * len(texts), filler=9) == [
        (3, 2, 1, START)
    ]


def test_each_context_is_held_to_its_own_feature() -> None:
    rows = contexts([1, 2, 3])[[2, 2]].tolist()
    assert patterns_of(rows, [1.0, 1.0], respond_to([(3,), (3, 2)]), filler=9) == [(3,), (3, 2)]


def test_scores_are_counts() -> None:
    score = Score.of(np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 1], bool))
    assert score == (1, 2, 3)
    assert score.precision == 1 / 2
    assert score.recall == 1 / 3
    assert score.f1 == pytest.approx(2 / (1 / score.precision + 1 / score.recall))
    assert Score(0, 0, 0).f1 == 0


def test_a_share_is_measured_where_the_token_was_not_chosen() -> None:
    """Token 4 is commonest in the first half; in the second it has a quarter of the activation."""
    token = np.array([4, 4, 5, 6, 4, 5, 5, 6, 4])
    fitting = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    firings = Firings(
        np.array([0, 1, 2, 4, 5]), np.array([1.0, 1.0, 1.5, 1.0, 3.0]), np.array([0, 5])
    )
    (share,), (score,) = single_tokens(token, firings, np.array([0]), fitting)
    assert share == 0.25
    assert score == (1, 2, 2)
    assert commonest(np.array([4, 5, 5]), np.array([3.0, 1.0, 1.0])) == (4, 0.6)


def test_promoted_tokens_that_follow_rank_first_and_by_chance_half() -> None:
    generator = np.random.default_rng(0)
    effects = np.eye(40)
    own = [np.array([n]) for n in range(40)]
    weights = [np.ones(1)] * 40
    assert ranked_effects(effects, own, weights).tolist() == [1.0] * 40
    noise = generator.normal(size=(40, 300)) * generator.uniform(0.1, 10, size=(40, 1))
    following = [generator.integers(0, 300, 50) for _ in range(40)]
    chance = ranked_effects(noise, following, [generator.uniform(size=50) for _ in range(40)])
    assert chance.mean() == pytest.approx(0.5, abs=0.03)


def test_rows_are_found_in_the_held_out_text(subject: Arm) -> None:
    text = Text.of(subject)
    stored = subject.held_out.read("token", 0, subject.held_out.rows)
    assert text.token.tolist() == stored.tolist()
    place = subject.held_out.read("place", 0, subject.held_out.rows).tolist()
    for row in np.flatnonzero(text.follows)[:50]:
        after = int(subject.corpus.tokens(place[row] + 1, place[row] + 2)[0])
        assert text.ids[text.place[row] + 1] == after


def test_firings_are_the_code_turned_round(subject: Arm) -> None:
    firings = Firings.of(subject)
    dense = torch.zeros(subject.held_out.rows, subject.features)
    dense.scatter_add_(1, subject.code.indices.long(), subject.code.values)
    for number in range(0, subject.features, 7):
        rows, values = firings.feature(number)
        assert rows.tolist() == dense[:, number].nonzero().flatten().tolist()
        assert values.tolist() == dense[rows, number].tolist()


def test_a_real_arm_is_measured(subject: Arm) -> None:
    measured = measure(subject, Settings("quick"), Progress())
    assert set(measured.estimates) == {metric.name for metric in METRICS}
    for estimate in measured.estimates.values():
        assert 0 <= estimate.value <= 1
        assert estimate.interval is not None
    again = measure(subject, Settings("quick"), Progress())
    assert again.details == measured.details


def test_an_arm_that_hardly_fires_is_left_out(subject: Arm) -> None:
    none = Firings(np.zeros(0, np.int64), np.zeros(0), np.zeros(11, np.int64))
    fitting = np.arange(subject.held_out.rows) % 2 == 0
    with pytest.raises(NotApplicableError, match="4 tokens in each half"):
        sample(none, fitting, 5, np.random.default_rng(0))
