"""Figures against the truth: brute-force references, and dictionaries whose figures are known."""

import itertools

import pytest
import torch

from sememe.dictionaries import Code, Dictionary, DictionaryConfig, ReLU, TopK
from sememe.evaluation.ground_truth import (
    Counts,
    Family,
    Match,
    absorbed,
    assign,
    cosines,
    excess,
    firing,
    ground_truth,
    hedging,
    uniqueness,
)
from sememe.evaluation.worlds import SITE, World, independent


def dictionary_of(rows, nonlinearity, bias=0.0):
    features, width = rows.shape
    config = DictionaryConfig(
        reads=(SITE,),
        writes=(SITE,),
        read_widths=(width,),
        write_widths=(width,),
        features=features,
        nonlinearity=nonlinearity,
    )
    made = Dictionary(config)
    with torch.no_grad():
        made.W_dec.copy_(rows)
        made.W_enc.copy_(rows)
        made.b_enc.fill_(bias)
    return made


def orthogonal(features=12, width=12, active=2.0):
    """Return a world of independent features in orthogonal directions."""
    made = independent(features, width, active=active, rows=4096)
    return World("orthogonal", torch.eye(width)[:features], made.draw, made.rows)


def test_the_true_dictionary_gets_full_marks():
    world = orthogonal()
    dictionary = dictionary_of(world.directions, ReLU(), bias=-1e-4)
    figures = ground_truth(dictionary, world.directions, world.held_out(4000))
    for name in ("f1", "precision", "recall", "mcc", "uniqueness", "recovered", "shrinkage"):
        # rows in which nothing fires have no norm to lose
        assert figures[name] == pytest.approx(1, abs=1e-3), name
    assert figures["fvu"] < 1e-3
    assert figures["dead"] == 0
    assert figures["l0"] == pytest.approx(2, abs=0.1)


def test_a_random_dictionary_is_at_chance():
    """As many latents as features fire, but at random: precision is the features' frequency."""
    world = independent(200, 64, active=4.0)
    rows = torch.nn.functional.normalize(
        torch.randn(200, 64, generator=torch.Generator().manual_seed(9)), dim=1
    )
    figures = ground_truth(dictionary_of(rows, TopK(4)), world.directions, world.held_out(4000))
    assert figures["f1"] < 0.25
    assert figures["recovered"] == 0
    best = cosines(rows, world.directions).abs().max(1).values.mean()
    assert figures["mcc"] < float(best) < 0.5


def test_a_dead_dictionary_scores_nothing():
    world = orthogonal()
    dictionary = dictionary_of(world.directions, ReLU(), bias=-100.0)
    figures = ground_truth(dictionary, world.directions, world.held_out(500))
    assert (figures["f1"], figures["precision"], figures["recall"]) == (0, 0, 0)
    assert (figures["dead"], figures["l0"], figures["shrinkage"]) == (1, 0, 0)
    assert figures["mcc"] == 1


def test_assignment_is_the_best_of_all():
    cosine = cosines(torch.randn(4, 3), torch.randn(6, 3))
    best = max(
        sum(abs(float(cosine[i, j])) for i, j in enumerate(order))
        for order in itertools.permutations(range(6), 4)
    )
    match = assign(cosine)
    assert match.mcc == pytest.approx(best / 4, abs=1e-5)
    assert len(set(match.true.tolist())) == 4


def test_counts_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(2)
    latent, true = (torch.rand(50, 5, generator=generator) < p for p in (0.4, 0.3))
    latent[:, 4] = False
    found = Counts.of(latent[:20], true[:20]).plus(Counts.of(latent[20:], true[20:]))
    for i in range(5):
        hits = sum(bool(a and b) for a, b in zip(latent[:, i], true[:, i], strict=True))
        fires, truths = int(latent[:, i].sum()), int(true[:, i].sum())
        precision, recall = hits / fires if fires else 0, hits / truths
        f1 = 2 * precision * recall / (precision + recall) if hits else 0
        assert float(found.precision[i]) == pytest.approx(precision)
        assert float(found.recall[i]) == pytest.approx(recall)
        assert float(found.f1[i]) == pytest.approx(f1)


def test_uniqueness_counts_shared_matches_once():
    rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, 1.0]])
    assert uniqueness(cosines(rows, torch.eye(2))) == 2 / 4


def test_entries_that_are_not_there_do_not_fire():
    code = Code(torch.tensor([[2, 0], [0, 0]], dtype=torch.int32), torch.tensor([[1.0, 0], [0, 0]]))
    assert firing(code, 3).tolist() == [[False, False, True], [False, False, False]]


PARENT, CHILD = torch.eye(3)[0], torch.eye(3)[1]


def family(parent_latent, child_latent):
    return Family(*(torch.tensor([n]) for n in (0, 1, parent_latent, child_latent)))


@pytest.mark.parametrize(
    ("row", "parent_fires", "expected"),
    [
        (CHILD, False, 0.0),  # the parent is missed, but nobody speaks for it
        (CHILD + PARENT, False, 1.0),
        (CHILD + PARENT, True, 0.0),
    ],
)
def test_absorption_is_a_child_that_speaks_for_a_silent_parent(row, parent_fires, expected):
    """Of 10 samples with the child, and 10 with the parent alone, which do not count."""
    true = torch.tensor([[True, True]] * 10 + [[True, False]] * 10)
    fired = torch.tensor([[parent_fires, True]] * 10 + [[True, False]] * 10)
    rows, directions = torch.stack([PARENT, row]), torch.stack([PARENT, CHILD])
    cases = absorbed(fired, true, rows, directions, family(0, 1))
    assert cases == (10 * expected, 10)


def test_hedging_is_how_far_a_parent_leans_to_a_child_without_latent():
    directions = torch.stack([PARENT, CHILD])
    leaning = (PARENT + 0.5 * CHILD)[None]
    assert hedging(PARENT[None], directions, family(0, -1)) == 0
    assert hedging(leaning, directions, family(0, -1)) == pytest.approx(0.5 / 1.25**0.5)
    assert hedging(leaning, directions, family(0, 0)) == 0


def test_excess_leaves_out_what_the_own_direction_explains():
    own = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0, 0.0]]))
    assert float(excess(own, own, PARENT[None])) == pytest.approx(0, abs=1e-6)


def test_only_good_matches_own_a_feature():
    match = Match(torch.tensor([3, 5]), torch.tensor([1, 0]), torch.tensor([0.9, 0.6]))
    assert match.latent_of(3).tolist() == [-1, 3, -1]
