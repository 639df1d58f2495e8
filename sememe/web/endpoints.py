"""Every address of the JSON API."""

from typing import Any

import anyio
from starlette.exceptions import HTTPException

from sememe.atlas.annotations import Annotations
from sememe.errors import UsageError
from sememe.web import answers, arguments
from sememe.web.api import Asked, Endpoint
from sememe.web.points import Points
from sememe.web.prompt import Prompter
from sememe.web.report import Evaluations
from sememe.web.views import Views

NO_MODEL = "this server has no model to run prompts; start it with `sememe serve DIR`"
SEARCHES = 4
"""Searches at a time: more would only wait for each other, and pages for them."""


def endpoints(views: Views, prompter: Prompter | None) -> list[Endpoint]:
    """Return the addresses that show ``views``; without a ``prompter`` prompts are not found."""
    return [
        *_reading(views),
        *_map(views),
        *_model(views, prompter),
        *_notes(views),
    ]


def _reading(views: Views) -> list[Endpoint]:
    features = views.atlas.features
    searches = anyio.CapacityLimiter(SEARCHES)

    def listed(asked: Asked) -> answers.Rows:
        query = asked.query
        found = arguments.query_of(
            query, _only(views, query), sort=query.sort, descending=query.order == "desc"
        )
        return views.rows(found, query.offset, query.limit, facets=query.facets)

    def matches(asked: Asked) -> bytes:
        only = _only(views, asked.query)
        query = arguments.query_of(asked.query, only, sort="feature", descending=False)
        found = views.finder.find(query)
        return found.numbers.astype("<i4").tobytes()

    return [
        Endpoint(
            path="/index.json",
            handler=lambda _: views.index(),
            answer=answers.Index,
            summary="What was mapped, and its headline figures.",
        ),
        Endpoint(
            path="/report.json",
            handler=lambda _: views.reports(),
            answer=Evaluations,
            summary="The reports of the evaluation: every metric beside its controls.",
        ),
        Endpoint(
            path="/features.json",
            handler=listed,
            query=arguments.Listing,
            answer=answers.Rows,
            limiter=searches,
            summary="Features that pass every filter, sorted, a page at a time.",
        ),
        Endpoint(
            path="/matches.bin",
            handler=matches,
            query=arguments.AllFilters,
            limiter=searches,
            summary="The numbers of all features that pass every filter: int32, little-endian.",
        ),
        Endpoint(
            path="/feature/{number}.json",
            handler=lambda asked: views.feature(asked.number),
            answer=answers.Feature,
            numbers=features,
            summary="Everything about one feature.",
        ),
        Endpoint(
            path="/sample.json",
            handler=lambda asked: views.sample(asked.query.seed, asked.query.count),
            query=arguments.Sampling,
            answer=answers.Sample,
            limiter=searches,
            summary="Features drawn from the alive ones that are not dense.",
        ),
        Endpoint(
            path="/random.json",
            handler=lambda _: views.random(),
            answer=answers.Drawn,
            summary="The number of a feature drawn by chance.",
        ),
    ]


def _only(views: Views, query: Any) -> tuple[int, ...] | None:  # noqa: ANN401
    """Return the features that have the notes or the tag that is asked for."""
    if query.tag is None and not query.noted:
        return None
    return tuple(
        number
        for number in _annotations(views).features(query.tag)
        if number < views.atlas.features
    )


def _map(views: Views) -> list[Endpoint]:
    points = Points(views.atlas)

    def mapped() -> Points:
        if "x" not in views.atlas.columns:
            raise HTTPException(404, "this atlas has no map; describe it anew")
        return points

    def neuron(asked: Asked) -> answers.Neuron:
        if not views.search.neurons:
            raise HTTPException(404, "there is no index of neurons; make it: sememe index DIR")
        return views.neuron(asked.number, asked.query.offset, asked.query.limit)

    other = [
        Endpoint(
            path="/other/{number}.json",
            handler=lambda asked: answers.Other(**views.other(asked.number)),
            answer=answers.Other,
            numbers=beside.features,
            noun="other",
            summary="A feature of the dictionary on whose map these lie.",
        )
        for beside in [views.atlas.other]
        if beside is not None
    ]
    return [
        *other,
        Endpoint(
            path="/map.json",
            handler=lambda _: mapped().layout,
            answer=answers.MapLayout,
            summary="Where the arrays in map.bin stand.",
        ),
        Endpoint(
            path="/map.bin",
            handler=lambda _: mapped().data,
            kept=str(views.atlas.manifest["hash"]),
            summary="A point a feature: arrays of whole numbers, as map.json says.",
        ),
        Endpoint(
            path="/clusters.json",
            handler=lambda _: mapped().clusters(),
            answer=answers.Clusters,
            summary="The clusters of the map.",
        ),
        Endpoint(
            path="/neuron/{number}.json",
            handler=neuron,
            query=arguments.Page,
            answer=answers.Neuron,
            numbers=views.search.neurons or 2**31,
            noun="neuron",
            summary="The features that write to one neuron of the site.",
        ),
    ]


def _model(views: Views, prompter: Prompter | None) -> list[Endpoint]:
    one = anyio.CapacityLimiter(1)

    def there() -> Prompter:
        if prompter is None:
            raise HTTPException(404, NO_MODEL)
        return prompter

    return [
        Endpoint(
            path="/prompt.json",
            method="POST",
            body=arguments.PromptBody,
            handler=lambda asked: there().run(asked.body.text, asked.body.next),
            answer=answers.PromptAnswer,
            limiter=one,
            summary="The features of each token of a text.",
        ),
        Endpoint(
            path="/contrast.json",
            method="POST",
            body=arguments.ContrastBody,
            handler=lambda asked: there().contrast(
                asked.body.positive, asked.body.negative, asked.body.limit
            ),
            answer=answers.ContrastAnswer,
            limiter=one,
            summary="Features that tell two groups of texts apart, or two texts.",
        ),
        Endpoint(
            path="/feature/{number}/effects.json",
            handler=lambda asked: there().effects_of(asked.number),
            answer=answers.EffectsAnswer,
            numbers=views.atlas.features,
            limiter=one,
            summary="What a feature adds to the logits of the tokens on its page.",
        ),
    ]


def _annotations(views: Views) -> Annotations:
    if views.annotations is None:
        raise UsageError("this server keeps no notes; start it with `sememe serve DIR`")
    return views.annotations


def _notes(views: Views) -> list[Endpoint]:
    writes = anyio.CapacityLimiter(1)

    def noted(asked: Asked) -> answers.Notes:
        every = _annotations(views).all()
        start = asked.query.offset
        return answers.Notes(
            len(every),
            start,
            _annotations(views).tags(),
            [answers.Note(**item._asdict()) for item in every[start : start + asked.query.limit]],
        )

    def put(asked: Asked) -> answers.Note:
        body = asked.body
        found = _annotations(views).put(asked.number, body.note, body.tags)
        return answers.Note(**found._asdict())

    path = "/feature/{number}/note.json"
    return [
        Endpoint(
            path="/notes.json",
            handler=noted,
            query=arguments.Page,
            answer=answers.Notes,
            summary="Every note, the latest first, and every tag.",
        ),
        Endpoint(
            path=path,
            method="PUT",
            body=arguments.NoteBody,
            handler=put,
            answer=answers.Note,
            numbers=views.atlas.features,
            limiter=writes,
            summary="Note something on a feature, in place of what is noted.",
        ),
        Endpoint(
            path=path,
            method="DELETE",
            handler=lambda asked: answers.Deleted(_annotations(views).delete(asked.number)),
            answer=answers.Deleted,
            numbers=views.atlas.features,
            limiter=writes,
            summary="Remove what is noted on a feature.",
        ),
    ]
