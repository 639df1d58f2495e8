"""What a model knows of entities, and what of it the last token of their names carries.

Axis names: entities = of a kind, those known; attributes = of the kind; pairs = (base, source)
entities; width = of an activation.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sememe.evaluation.entities import Kind
from sememe.evaluation.prompts import Prompt, answers, asked_activations, gradients, prompt_of
from sememe.evaluation.readings import kept
from sememe.evaluation.sections import Settings, SuiteName
from sememe.models.language_model import LanguageModel

PAIRS: dict[SuiteName, int] = {"quick": 32, "standard": 32, "full": 128}
"""Pairs that an attribute's features are tried on, as many for cause as for isolation."""
KNOWN = 24
"""Entities of a kind that the model must know, all attributes of each."""
LEAST_PAIRS = 8
"""Pairs that there must be of every two attributes."""
CEILING = 0.5
"""Share of the pairs whose answer must change when the whole activation is exchanged."""

Pairs = Int64[Tensor, "pairs two"]
"""Base and source, by their places among the known entities."""


class Known(NamedTuple):
    """A kind's entities that the model knows, and what was read of them."""

    kind: str
    attributes: list[str]
    entities: list[str]
    prompts: list[list[Prompt]]
    """By attribute and entity."""
    token: Int64[Tensor, "attributes entities"]
    """First token of each value."""
    values: Float[Tensor, "attributes entities width"]
    """Activation of the entity's last token in each attribute's prompt."""
    fitting: list[Pairs]
    """Pairs that features are chosen on, by the attribute asked about."""
    gradients: list[Float[Tensor, "pairs width"]]
    """Of the other's answer over the own one, at the base."""
    trying: dict[tuple[int, int], Pairs]
    """Pairs of other entities, by the attribute exchanged and the one asked about."""
    ceiling: list[Bool[Tensor, " pairs"]]
    """Whether exchanging the whole activation changes the answer, by attribute."""


def know(model: LanguageModel, site: str, kind: Kind, settings: Settings) -> Known | str:
    """Ask the model about a kind; return what it knows, or in words why that is too little."""
    prompts, token, entities = _questions(model, kind)
    ids = [prompt.ids for row in prompts for prompt in row]
    made_from = [kind.name, model.hash, model.dtype, ids, token.tolist()]

    def ask() -> dict[str, Tensor]:
        rows = [
            answers(model, site, row, own[:, None]).token == own
            for row, own in zip(prompts, token, strict=True)
        ]
        return {"right": torch.stack(rows)}

    right = kept(["known", *made_from], ask)["right"]
    chosen = right.all(0).nonzero()[:, 0]
    known_of = ", ".join(
        f"{attribute.name} of {share:.0%}"
        for attribute, share in zip(kind.attributes, right.double().mean(1).tolist(), strict=True)
    )
    if len(chosen) < KNOWN:
        return (
            f"of {len(entities)} entities of the kind {kind.name} the model knows all attributes "
            f"of {len(chosen)} ({known_of}): at least {KNOWN} are needed"
        )
    prompts = [[row[n] for n in chosen.tolist()] for row in prompts]
    token = token[:, chosen]
    fitting, trying = pairs_of(token, PAIRS[settings.suite], settings.seed)

    fewest = min(len(pairs) for pairs in (*fitting, *trying.values()))
    if fewest < LEAST_PAIRS:
        return (
            f"what the model knows of {len(chosen)} entities of the kind {kind.name} differs in "
            f"{fewest} pairs: at least {LEAST_PAIRS} are needed"
        )
    found = kept(
        ["exchanged", site, PAIRS[settings.suite], settings.seed, *made_from],
        partial(_exchanged, model, site, prompts, token, fitting, trying),
    )
    ceiling = [found[f"ceiling {number}"] for number in range(len(prompts))]
    known = Known(
        kind.name,
        [attribute.name for attribute in kind.attributes],
        [entities[n] for n in chosen.tolist()],
        prompts,
        token,
        found["values"],
        fitting,
        [found[f"gradients {number}"] for number in range(len(prompts))],
        trying,
        ceiling,
    )
    reached = min(float(changed.double().mean()) for changed in ceiling)
    if reached < CEILING:
        return (
            f"exchanging the whole activation of a {kind.name}'s last token changes {reached:.0%} "
            f"of the answers at {site}: at least {CEILING:.0%} are needed"
        )
    return known


def _exchanged(
    model: LanguageModel,
    site: str,
    prompts: list[list[Prompt]],
    token: Int64[Tensor, "attributes entities"],
    fitting: list[Pairs],
    trying: dict[tuple[int, int], Pairs],
) -> dict[str, Tensor]:
    """Return activations, gradients, and whether a whole activation changes the answer."""
    values = torch.stack([asked_activations(model, site, row) for row in prompts])
    found = {"values": values}
    for number, row in enumerate(prompts):
        base, source = fitting[number].T
        among = torch.stack([token[number, source], token[number, base]], 1)
        up = torch.tensor([1.0, -1.0]).expand(among.shape)
        own = [row[n] for n in base.tolist()]
        found[f"gradients {number}"] = gradients(model, site, own, among, up)
        base, source = trying[number, number].T
        own = [row[n] for n in base.tolist()]
        among = token[number, source][:, None]
        added = values[number, source] - values[number, base]
        answered = answers(model, site, own, among, added).token
        found[f"ceiling {number}"] = answered == among[:, 0]
    return found


def _questions(
    model: LanguageModel, kind: Kind
) -> tuple[list[list[Prompt]], Int64[Tensor, "attributes entities"], list[str]]:
    """Return prompts by attribute and entity, first tokens of the answers, and the entities.

    An entity is left out where a token spans the end of its name.
    """
    found: dict[str, list[Prompt]] = {}
    for entity in kind.entities:
        prompts = [
            prompt_of(model.tokenizer, each.examples + each.before, f" {entity}", each.after)
            for each in kind.attributes
        ]
        whole = [prompt for prompt in prompts if prompt]
        if len(whole) == len(prompts):
            found[entity] = whole
    answers_of = [
        [model.tokenizer.encode(f" {value}")[0] for value in kind.entities[entity]]
        for entity in found
    ]
    columns = [[row[n] for row in found.values()] for n in range(len(kind.attributes))]
    token = torch.tensor(answers_of, dtype=torch.long).reshape(len(found), -1).T
    return columns, token, list(found)


def pairs_of(
    token: Int64[Tensor, "attributes entities"], wanted: int, seed: int
) -> tuple[list[Pairs], dict[tuple[int, int], Pairs]]:
    """Draw pairs of entities to choose features on, and pairs of others to try them on.

    The first are by the attribute asked about, whose values differ; the second by the attribute
    exchanged and the one asked about, both of which differ: for each exchanged as many where they
    are the same as where they are not.
    """
    attributes, entities = token.shape
    generator = np.random.default_rng(seed)
    order = generator.permutation(entities)
    halves = order[: entities // 2], order[entities // 2 :]

    def draw(half: np.ndarray, differ: tuple[int, ...], count: int) -> Pairs:
        every = torch.from_numpy(half[generator.permutation(len(half))].copy())
        base, source = torch.cartesian_prod(every, every).T
        fit = (token[list(differ)][:, base] != token[list(differ)][:, source]).all(0)
        chosen = generator.permutation(int(fit.sum()))[:count]
        return torch.stack([base, source], 1)[fit][torch.from_numpy(chosen)]

    fitting = [draw(halves[0], (number,), wanted) for number in range(attributes)]
    other = -(-wanted // max(1, attributes - 1))
    trying = {
        (exchanged, asked): draw(
            halves[1], (exchanged, asked), wanted if exchanged == asked else other
        )
        for exchanged, asked in product(range(attributes), repeat=2)
    }
    return fitting, trying
