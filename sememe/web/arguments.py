"""What requests may say: each address's arguments and bodies, as types that check them."""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, defstruct

from sememe.atlas.annotations import NOTE_LENGTH, TAG_LENGTH, TAGS
from sememe.atlas.query import NUMERIC, SORTS, Query
from sememe.errors import UsageError
from sememe.web.answers import Status

MAX_ROWS = 200
MAX_TEXTS = 64
MAX_CORNERS = 64

_NUMBER = r"-?\d+(\.\d+)?([eE][+-]?\d+)?"
Offset = Annotated[int, Meta(ge=0, le=2**31, description="How many to skip.")]
Limit = Annotated[int, Meta(ge=0, le=MAX_ROWS, description="How many to answer.")]
Range = Annotated[
    str,
    Meta(
        pattern=rf"^({_NUMBER})?\.\.({_NUMBER})?$",
        max_length=60,
        description="low..high: only features with this column between; either may lack",
    ),
]
Polygon = Annotated[
    str,
    Meta(
        pattern=rf"^{_NUMBER},{_NUMBER}( {_NUMBER},{_NUMBER}){{2,{MAX_CORNERS - 1}}}$",
        max_length=4_000,
        description="polygon on the map that features lie in, as corners: x,y x,y x,y",
    ),
]
OneToken = Annotated[str, Meta(min_length=1, max_length=200, description="The text of one token.")]
Text = Annotated[str, Meta(min_length=1, max_length=60_000)]


class Nothing(Struct, frozen=True):
    """No arguments."""


class Filters(Struct, frozen=True, kw_only=True):
    """Which features."""

    search: Annotated[str, Meta(max_length=200, description="Text to look for.")] = ""
    by: Annotated[
        Literal["tokens", "fires", "promotes", "label", "meaning", "example"],
        Meta(description="What `search` looks in; `searches` of index.json has those there are"),
    ] = "tokens"
    status: list[Status] = []
    source: Annotated[
        list[str], Meta(max_length=100, description="Labels of sources; one a feature's main one.")
    ] = []
    cluster: Annotated[list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(max_length=100)] = []
    tag: Annotated[str | None, Meta(description="Only features with this tag.")] = None
    noted: Annotated[bool, Meta(description="Only features with a note or tag.")] = False
    lasso: Polygon | None = None


_RANGES: list[Any] = [(name, Range | None, None) for name in NUMERIC]
AllFilters: Any = defstruct("AllFilters", _RANGES, bases=(Filters,), frozen=True, kw_only=True)


class Listing(AllFilters, frozen=True, kw_only=True):  # type: ignore[misc,call-arg]
    """Which features, in what order, how many."""

    sort: Annotated[
        Literal[SORTS],  # type: ignore[valid-type]
        Meta(
            description="`relevance` is that of a search by label, meaning or example; else "
            "ordinary features first, then the very frequent, the dense, the rare and the dead."
        ),
    ] = "relevance"
    order: Literal["desc", "asc"] = "desc"
    offset: Offset = 0
    limit: Limit = 50
    facets: Annotated[bool, Meta(description="Count what matches by group.")] = True


class Sampling(Struct, frozen=True, kw_only=True):
    """Which draw, and how many."""

    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0
    count: Limit = 6


class Page(Struct, frozen=True, kw_only=True):
    """A part of a list."""

    offset: Offset = 0
    limit: Limit = 50


class PromptBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A text to run, and perhaps a next token to see effects on."""

    text: Text
    next: OneToken | None = None


class ContrastBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Texts that features should tell apart."""

    positive: Annotated[list[Text], Meta(min_length=1, max_length=MAX_TEXTS)]
    negative: Annotated[list[Text], Meta(max_length=MAX_TEXTS)] = []
    limit: Limit = 50


class NoteBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A note and tags, in place of those there are."""

    note: Annotated[str, Meta(max_length=NOTE_LENGTH)] = ""
    tags: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=TAG_LENGTH)]], Meta(max_length=TAGS)
    ] = []


def query_of(given: Any, only: tuple[int, ...] | None, **order: Any) -> Query:  # noqa: ANN401
    """Return the query that filters ask for; UsageError for a range from high to low."""
    ranges = []
    for name in NUMERIC:
        if (text := getattr(given, name)) is not None:
            low, high = (
                float(part or sign + "inf")
                for part, sign in zip(text.split("..", 1), "-+", strict=True)
            )
            if low > high:
                raise UsageError(f"{name} {text!r}: expected a low number before a high one")
            ranges.append((name, low, high))
    corners = [corner.split(",") for corner in (given.lasso or "").split()]
    return Query(
        search=given.search,
        by=given.by,
        status=tuple(given.status),
        source=tuple(given.source),
        cluster=tuple(given.cluster),
        ranges=tuple(ranges),
        lasso=tuple((float(x), float(y)) for x, y in corners),
        only=only,
        **order,
    )


def whole_number(value: str) -> int | None:
    """Return the number that ``value`` writes in ASCII digits, None if it writes none."""
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None
