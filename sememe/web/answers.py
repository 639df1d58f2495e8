"""What the server answers, as types: the OpenAPI document is written from these declarations."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from sememe.web.report import SuiteName

Status = Literal["alive", "dead", "dense", "ultralow"]


class Piece(Struct):
    """A token, or the run of tokens that are bytes of one character."""

    text: str
    tokens: list[int]
    value: Annotated[float, Meta(description="The largest activation of its tokens.")]
    broken: Annotated[
        bool | UnsetType, Meta(description="It has escapes for bytes of no character.")
    ] = UNSET


class Example(Struct):
    """A stretch of text with the feature's values on it."""

    pieces: list[Piece]
    peak: Annotated[int, Meta(description="The piece that the example was chosen for.")]
    value: float
    source: str
    document: int
    position: int


class Name(Struct, kw_only=True):
    """A feature at a glance."""

    feature: int
    status: Status
    frequency: Annotated[float, Meta(description="Share of tokens on which it fires.")]
    mean: Annotated[float, Meta(description="Over the tokens on which it fires.")]
    maximum: float
    tokens: Annotated[list[str], Meta(description="Tokens that it fires on.")]
    promotes: Annotated[list[str], Meta(description="Tokens whose logits it raises.")]
    label: str | None = None
    source: Annotated[str | None, Meta(description="The source it fires on most.")] = None
    cluster: Annotated[int | None, Meta(description="Its cluster on the map.")] = None


class Row(Name, kw_only=True):
    """A line of the table of features."""

    histogram: list[int]
    examples: Annotated[
        list[Example], Meta(description="Middles of strong examples, of different documents.")
    ]


class Rows(Struct):
    """A page of the table of features."""

    total: int
    offset: int
    more: Annotated[
        bool, Meta(description="The search looked at its best candidates only: there are more.")
    ]
    rows: list[Row]
    facets: Annotated[
        dict[str, dict[str, int]],
        Meta(description="How many of all that match, by status, source and cluster's number."),
    ]


class Histogram(Struct):
    """Counts between edges."""

    edges: list[float]
    counts: list[int]


class Index(Struct, kw_only=True):
    """What was mapped, and its headline figures."""

    version: str
    atlas: Annotated[str, Meta(description="Identifies the atlas.")]
    model: str | None
    site: str | None
    tokens: int | None
    width: int | None
    features: int
    status: dict[str, int]
    report: dict[str, Any]
    frequencies: Annotated[Histogram, Meta(description="Of the logarithms to base 10.")]
    prompt: Annotated[bool, Meta(description="Prompts can be run.")]
    effects: Annotated[bool, Meta(description="Effects on a chosen next token can be asked for.")]
    notes: Annotated[bool, Meta(description="Notes and tags can be written.")]
    job: Annotated[bool, Meta(description="How it was made can be asked for: job.json.")]
    suites: Annotated[
        list[SuiteName],
        Meta(description="Evaluations whose reports report.json has, the fullest first."),
    ]
    searches: Annotated[list[str], Meta(description="What `by` may be.")]
    sorts: Annotated[list[str], Meta(description="What `sort` may be.")]
    ranges: Annotated[
        dict[str, tuple[float, float]],
        Meta(description="Columns that can be filtered, with their lowest and highest value."),
    ]
    sources: list[str]
    map: Annotated[bool, Meta(description="Features have places on a map.")]
    neurons: Annotated[int | None, Meta(description="Neurons that have pages.")]


class Sample(Struct):
    """Features drawn by chance."""

    seed: int
    of: int
    rows: list[Row]


class Drawn(Struct):
    """A feature drawn by chance."""

    feature: int


class Interval(Struct):
    """A part of the range of a feature's values."""

    low: float
    high: float
    count: int
    examples: list[Example]


class Token(Struct):
    """A token."""

    token: int
    text: str


class TokenShare(Struct):
    """A token and its share."""

    token: int
    text: str
    share: float


class TokenEffect(Struct):
    """A token and what a feature adds to its logit."""

    token: int
    text: str
    effect: float


class SourceShare(Struct):
    """A source and its share."""

    source: str
    share: float


class Neighbour(Name, kw_only=True):
    """A feature whose decoder row is near."""

    cosine: float


class Cofiring(Name, kw_only=True):
    """A feature that fires on the same tokens."""

    strength: float


class Other(Struct, kw_only=True):
    """A feature of the dictionary on whose map these lie."""

    dictionary: Annotated[str, Meta(description="Name of the run that it is of.")]
    feature: int
    tokens: Annotated[list[str], Meta(description="Tokens that it fires on, as far as known.")]


class NearestOther(Other, kw_only=True):
    """The feature of that dictionary whose decoder row is nearest."""

    cosine: float


class NeuronWeight(Struct):
    """A neuron and a feature's weight on it."""

    neuron: int
    weight: float


class NeuronCorrelation(Struct):
    """A neuron and the correlation of its values with a feature's."""

    neuron: int
    correlation: float


class Note(Struct):
    """What somebody has put on a feature."""

    feature: int
    note: str
    tags: list[str]
    changed: str


class Feature(Struct, kw_only=True):
    """Everything about one feature."""

    feature: int
    status: Status
    frequency: float
    count: int
    mean: float
    maximum: float
    mean_square: float | None
    norm: Annotated[float | None, Meta(description="Of its decoder row.")]
    alignment: Annotated[float | None, Meta(description="Cosine of encoder and decoder row.")]
    neurons: Annotated[
        float | None, Meta(description="Share of the neurons that its decoder row is spread over.")
    ]
    histogram: Histogram
    logits: Annotated[Histogram | None, Meta(description="Of its effects on all tokens' logits.")]
    name: Name
    tokens: list[TokenShare]
    before: list[TokenShare]
    after: list[TokenShare]
    promotes: list[TokenEffect]
    suppresses: list[TokenEffect]
    sources: list[SourceShare]
    neighbours: list[Neighbour]
    other: NearestOther | None
    cofiring: list[Cofiring]
    basis: list[NeuronWeight]
    correlated: list[NeuronCorrelation]
    top: list[Example]
    intervals: list[Interval]
    inactive: Annotated[list[Example], Meta(description="Text on which it does not fire.")]
    note: Note | None
    previous: int | None
    next: int | None


class PromptPiece(Struct):
    """A piece of a prompt, and the features that fire on it, strongest first."""

    text: str
    tokens: list[int]
    excluded: Annotated[bool, Meta(description="The dictionary never sees it.")]
    features: list[tuple[int, float]]
    broken: bool | UnsetType = UNSET


class PromptFeature(Name, kw_only=True):
    """A feature that fires on a prompt."""

    value: Annotated[float, Meta(description="The largest on any piece.")]
    pieces: Annotated[int, Meta(description="On how many it fires.")]
    effect: Annotated[
        float | None,
        Meta(
            description=(
                "What one unit of it adds to the logit of the chosen next token by the direct "
                "path, against the mean over the vocabulary."
            )
        ),
    ] = None


class PromptAnswer(Struct):
    """A prompt by pieces, and every feature that fires on it, strongest first."""

    tokens: int
    pieces: list[PromptPiece]
    features: list[PromptFeature]
    next: Annotated[Token | None, Meta(description="The chosen next token.")] = None


class EffectsAnswer(Struct):
    """What one unit of a feature adds to logits by the direct path, against the median token."""

    effects: Annotated[
        dict[int, float], Meta(description="By token, of those that the feature's page shows.")
    ]


class Contrasted(Name, kw_only=True):
    """A feature's mean value on two groups of texts."""

    positive: float
    negative: float
    difference: float


class ContrastAnswer(Struct):
    """Features by the difference of their means, the largest first of either sign."""

    positive_tokens: int
    negative_tokens: int
    positive: Annotated[list[Contrasted], Meta(description="Stronger on the positive texts.")]
    negative: Annotated[list[Contrasted], Meta(description="Stronger on the negative texts.")]


class Cluster(Struct):
    """A cluster of the map."""

    cluster: int
    name: str
    size: int
    x: float
    y: float


class Clusters(Struct):
    """The clusters of the map."""

    clusters: list[Cluster]


class MapArray(Struct):
    """Where an array of one number a feature stands in map.bin, little-endian."""

    name: str
    dtype: Literal["uint8", "uint16"]
    offset: int
    low: Annotated[float, Meta(description="The number that 0 stands for.")]
    step: Annotated[float, Meta(description="What one more stands for.")]


class OtherLayout(Struct):
    """Where the features of the dictionary on whose map these lie stand in map.bin."""

    name: Annotated[str, Meta(description="Of the run that it is of.")]
    features: int
    arrays: list[MapArray]


class MapLayout(Struct):
    """What map.bin holds: whole numbers; the largest of a type stands for none."""

    name: Annotated[str, Meta(description="Of the run whose features these are.")]
    features: int
    bytes: int
    arrays: list[MapArray]
    other: OtherLayout | None


class NeuronRow(Name, kw_only=True):
    """A feature that writes to a neuron."""

    weight: Annotated[float, Meta(description="Of its unit decoder row on the neuron.")]


class Neuron(Struct):
    """The features that write to one neuron, the largest weights first."""

    neuron: int
    neurons: int
    total: Annotated[int, Meta(description="Features with it among their largest weights.")]
    effective: Annotated[
        float,
        Meta(description="Participation ratio of those weights' squares: 1 where one has all."),
    ]
    positive: Annotated[int, Meta(description="Those of them with a positive weight.")]
    offset: int
    rows: list[NeuronRow]
    previous: int | None
    next: int | None


class Notes(Struct):
    """Everything noted, the latest first."""

    total: int
    offset: int
    tags: Annotated[dict[str, int], Meta(description="Every tag, with how many features have it.")]
    rows: list[Note]


class Deleted(Struct):
    """Whether there was a note to remove."""

    deleted: bool


class Failure(Struct):
    """What is wrong, in one line."""

    error: str
