"""A real atlas of a few dozen features, made without a model: words are the features.

The text is cut into words with their leading space; what is not ASCII is cut into single bytes, as
byte-level tokenizers do with rare characters. A feature fires on a set of words, more strongly late
in a document, so that every figure can be worked out from the text again.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from sememe.atlas.store import Atlas, OtherAtlas
from sememe.atlas.writing import write_atlas
from sememe.web.prompt import PromptToken

SCRIPT = "<script>window.hacked=1</script>"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror=window.hacked=1>',
    "\u202etxet desrever",
    "\x00\x07\x1b[31m",
    "{@html hacked}",
    "\u200b\ufeff",
    "&lt;b&gt;",
]

DOCUMENTS = [
    (
        "prose",
        "The sea was grey and the wind came off the sea in long cold breaths. We could not "
        "see the harbour, only the lamp above the harbour wall, and the gulls that made a circle "
        "over the boats.\nIn the morning the wind fell and the boats went out again.",
    ),
    (
        "prose",
        "She made tea, and made a list of what was to be made before winter: a door, two "
        "shelves, a box for the seeds. “Nothing is made in a day,” said her brother, and sat down "
        "by the fire in the morning light.",
    ),
    (
        "mail",
        "Hello Ruth,\n\nthanks for the minutes. The meeting moved to Monday at 9:30; please "
        "bring the figures for March, 1984 and 1985.\n\nBest wishes,\nTom",
    ),
    (
        "reference",
        "The harbour of Trieste was built in 1719. Its lighthouse, made of white stone, "
        "stands 68 metres above the sea and was lit in 1927 for the first time.",
    ),
    (
        "code",
        'def harbour(boats: list[str]) -> int:\n\t"""Count the boats."""\n\treturn '
        "sum(1 for boat in boats if boat)\n\nfor boat in boats:\n\tprint(boat)",
    ),
    (
        "code",
        "for i in range(10):\n    if i % 2 == 0:\n        total = total + i\n    return total",
    ),
    ("html", '<p class="note">The sea is <em>not</em> a lake.</p>\n' + SCRIPT),
    ("arabic", "ذهب الولد إلى البحر في الصباح، ثم عاد إلى البيت في المساء."),
    ("hebrew", "הים היה אפור והרוח באה מן הים."),
    ("chinese", "大海是灰色的。早上我们去海边，晚上回家。"),
    ("korean", "바다는 회색이었다. 아침에 우리는 바다로 갔다."),
    ("emoji", "The boats 🚤 went out 👩‍🚀 and came back 1️⃣ by 1️⃣ 🎉"),
    ("dna", "ACGT ACGT GATTACA ACGT TTAGGG TTAGGG ACGT CCTA"),
]

WORDS = [
    ["sea", "海", "바다", "lake"],
    ["harbour"],
    ["wind"],
    ["boats", "boat"],
    ["made", "built"],
    ["morning", "早"],
    ["for"],
    ["in"],
    ["the", "The"],
    ["not", "Nothing"],
    ["def", "return"],
    ["1719", "1927", "1984", "1985"],
    ["ACGT", "TTAGGG", "GATTACA", "CCTA"],
    ["\n", "\n\n"],
    ["\t"],
    [",", "."],
    ["ا", "ل", "ב", "ה"],
    ["🚤", "🎉", "👩"],
    [SCRIPT],
    HOSTILE,
    ["Ruth", "Tom"],
    ["Monday", "March"],
    ["list", "sum", "range"],
    ["was", "is"],
    ["grey", "white", "cold"],
    ["a"],
    ["that", "what"],
    ["light", "lamp", "lighthouse", "fire"],
]
DENSE = 25


def cut(text: str) -> list[bytes]:
    """Cut text into words with their leading space; what is not ASCII into single bytes."""
    known = "|".join(re.escape(item) for item in sorted(HOSTILE, key=len, reverse=True))
    found = re.findall(rf"{known}| ?[A-Za-z]+| ?[0-9]+|\n+|.", text, re.DOTALL)
    return [
        token
        for word in found
        for token in (
            [word.encode()]
            if word.isascii() or word in HOSTILE
            else [bytes([byte]) for byte in word.encode()]
        )
    ]


def _documents() -> list[tuple[str, list[bytes]]]:
    hostile = "a list of " + " and ".join(HOSTILE) + " in the harbour"
    return [(label, cut(text)) for label, text in [*DOCUMENTS, ("hostile", hostile)]]


def vocabulary() -> list[bytes]:
    """Return every token of the documents, and every byte."""
    words = {token for _, tokens in _documents() for token in tokens}
    return sorted(words | {bytes([byte]) for byte in range(256)})


def _values(words: list[str], tokens: list[bytes]) -> np.ndarray:
    wanted = {word.encode() for word in words}
    values = np.zeros(len(tokens), dtype=np.float32)
    joined = b"".join(tokens)
    starts = np.cumsum([0] + [len(token) for token in tokens])
    for place, token in enumerate(tokens):
        whole = token.lstrip(b" ") in wanted or token in wanted
        rare = not token.isascii() and any(
            joined.startswith(word, at)
            for word in wanted
            if not word.isascii()
            for at in range(max(starts[place] - len(word) + 1, 0), starts[place] + 1)
        )
        if whole or rare:
            values[place] = 1 + 8 * (place + 1) / len(tokens) + (place % 5) * 0.31
    return values


def _page(
    feature: int, words: list[str], ids: dict[bytes, int], documents: list[tuple[str, list[bytes]]]
) -> dict[str, Any]:
    found = []
    mass: dict[int, float] = {}
    by_source: dict[str, int] = {}
    for number, (label, tokens) in enumerate(documents):
        values = _values(words, tokens)
        for place in np.flatnonzero(values):
            start, stop = max(int(place) - 24, 0), int(place) + 16
            mass[ids[tokens[place]]] = mass.get(ids[tokens[place]], 0.0) + float(values[place])
            by_source[label] = by_source.get(label, 0) + 1
            found.append(
                {
                    "tokens": [ids[token] for token in tokens[start:stop]],
                    "values": [round(float(value), 3) for value in values[start:stop]],
                    "centre": int(place) - start,
                    "value": round(float(values[place]), 3),
                    "source": label,
                    "document": number,
                    "position": start,
                }
            )
    found.sort(key=lambda example: -example["value"])
    total = sum(len(tokens) for _, tokens in documents)
    strengths = [example["value"] for example in found]
    high = max(strengths, default=0.0)
    counts, edges = np.histogram(strengths, bins=32, range=(0, high or 1.0))
    bounds = np.linspace(0, high, 12)[::-1]
    intervals = []
    for low, top in zip(bounds[1:], bounds[:-1], strict=True):
        inside = [item for item in found if low < item["value"] <= top + 1e-6]
        intervals.append({"low": low, "high": top, "count": len(inside), "examples": inside[-5:]})
    share = len(found) / total
    return {
        "feature": feature,
        "frequency": share,
        "count": len(found),
        "mean": float(np.mean(strengths)) if strengths else 0.0,
        "maximum": high,
        "status": _status(share, len(found)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "tokens": [
            [token, value / sum(mass.values())]
            for token, value in sorted(mass.items(), key=lambda pair: -pair[1])[:8]
        ],
        "top": found[:20],
        "intervals": intervals,
        "promotes": [
            [(feature * 7 + i * 13) % len(ids), round(3.2 - 0.21 * i, 3)] for i in range(12)
        ],
        "suppresses": [
            [(feature * 11 + i * 17) % len(ids), round(-2.4 + 0.15 * i, 3)] for i in range(12)
        ],
        "neighbours": [[(feature + i) % FEATURES, round(0.71 - 0.05 * i, 3)] for i in range(1, 11)],
        "sources": [
            [label, count / len(found)]
            for label, count in sorted(by_source.items(), key=lambda pair: -pair[1])
        ],
        "mean_square": float(np.mean(np.square(strengths))) if strengths else 0.0,
        "norm": 1.0,
        "alignment": round(0.9 - feature / 100, 3),
        "neurons": round(0.02 + feature / 200, 3),
        "basis": [
            [(feature * 3 + i) % NEURONS, round(0.6 / (i + 1) * (-1) ** i, 3)] for i in range(4)
        ],
        "correlated": [[(feature * 5 + i) % NEURONS, round(0.5 - 0.1 * i, 3)] for i in range(3)],
        "cofiring": [[(feature + 5 * i) % FEATURES, round(0.6 - 0.1 * i, 3)] for i in range(1, 5)],
        "before": [[ids[b"."], 0.5]],
        "after": [[ids[b","], 0.25]],
        "inactive": [
            {**item, "value": 0.0, "values": [0.0] * len(item["values"])} for item in found[:2]
        ],
        "logits": {"edges": [-3.0, -1.0, 0.0, 1.0, 4.0], "counts": [3, 200, 180, 5]},
    }


def _status(share: float, count: int) -> str:
    if count == 0:
        return "dead"
    if share > 0.1:
        return "dense"
    return "ultralow" if count == 1 else "alive"


NEURONS = 16
FEATURES = 64
"""The first are those of ``WORDS``, the others fire on one token each; some never fire."""


def feature_words() -> list[list[str]]:
    """Return the words that each feature fires on; hostile ones are features of their own too."""
    seen = [t.decode().strip() for _, tokens in _documents() for t in tokens if t.isascii()]
    others = [[word] for word in dict.fromkeys(seen) if len(word) > 3]
    words = [*WORDS, *([item] for item in HOSTILE), *others]
    words[DENSE] = sorted({word for word in seen if len(word) == 3})
    return [*words[: FEATURES - 3], [], [], []]


def small_atlas(out: Path, other: OtherAtlas | None = None) -> Atlas:
    """Write the atlas to ``out`` and open it; ``other`` is what its map shows beside."""
    tokens = vocabulary()
    ids = {token: number for number, token in enumerate(tokens)}
    documents = _documents()
    pages = [_page(i, words, ids, documents) for i, words in enumerate(feature_words())]
    statuses = ["alive", "dead", "dense", "ultralow"]
    columns = {
        "frequency": np.array([page["frequency"] for page in pages], dtype=np.float32),
        "mean": np.array([page["mean"] for page in pages], dtype=np.float32),
        "maximum": np.array([page["maximum"] for page in pages], dtype=np.float32),
        "status": np.array([statuses.index(page["status"]) for page in pages], dtype=np.int8),
        "promotes": _ids(pages, "promotes"),
        "tokens": _ids(pages, "tokens"),
        **{
            name: np.array([page[name] for page in pages], np.float32)
            for name in ("mean_square", "norm", "alignment", "neurons")
        },
        **_main_sources(pages),
        **_places(pages),
        **(_nearest(pages) if other else {}),
    }
    return write_atlas(
        out,
        pages,
        columns,
        tokens,
        config={"site": "layers.14.resid"},
        made_from={"model": "small-test-model"},
        other=other,
        tokens=sum(len(document) for _, document in documents),
        sources=SOURCES,
        clusters=[
            {
                "name": name,
                "size": sum(place % 3 == number for place in range(FEATURES - 3)),
                "x": x,
                "y": y,
            }
            for number, (name, x, y) in enumerate(
                [("the sea", 0.0, 0.0), ("made", 4.0, 1.0), (SCRIPT, 1.0, 5.0)]
            )
        ],
    )


SOURCES = sorted({label for label, _ in DOCUMENTS} | {"hostile"})


def _main_sources(pages: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    first = [page["sources"][0] if page["sources"] else None for page in pages]
    return {
        "source": np.array([SOURCES.index(item[0]) if item else -1 for item in first], np.int16),
        "source_share": np.array([item[1] if item else 0.0 for item in first], np.float32),
        "token_share": np.array(
            [page["tokens"][0][1] if page["tokens"] else 0.0 for page in pages], np.float32
        ),
    }


def _places(pages: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Three rings of features; dead ones have no place."""
    number = np.arange(len(pages))
    dead = np.array([page["status"] == "dead" for page in pages])
    cluster = np.where(dead, -1, number % 3)
    middle = np.array([(0.0, 0.0), (4.0, 1.0), (1.0, 5.0)])[number % 3]
    place = middle + np.stack([np.cos(number), np.sin(number)], 1)
    place[dead] = np.nan
    x, y = place.astype(np.float32).T
    return {"x": x.copy(), "y": y.copy(), "cluster": cluster.astype(np.int32)}


OTHERS = 10


def other_atlas() -> OtherAtlas:
    """Return another dictionary: its features lie on a line from (8, 0) on, the last is dead."""
    x = np.arange(8.0, 8.0 + OTHERS, dtype=np.float32)
    x[-1] = np.nan
    known = vocabulary()
    tokens = np.full((OTHERS, 8), -1, np.int32)
    tokens[:, 0] = known.index(b" sea")
    return OtherAtlas("demo", {"x": x, "y": np.where(np.isnan(x), x, 0), "tokens": tokens})


def _nearest(pages: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The nearest of the other's: less and less like it; none for dead ones and the last alive."""
    number = np.arange(len(pages))
    cosine = 1 - number / 64
    cosine[[page["status"] == "dead" for page in pages]] = np.nan
    which = np.where(np.isnan(cosine), -1, number % (OTHERS - 1))
    return {"other": which.astype(np.int32), "other_cosine": cosine.astype(np.float32)}


def _ids(pages: list[dict[str, Any]], key: str) -> np.ndarray:
    rows = [[token for token, _ in page[key]][:8] for page in pages]
    return np.array([row + [-1] * (8 - len(row)) for row in rows], dtype=np.int32)


REPORT = {
    "fvu": 0.236,
    "l0": 31.9,
    "alive": 0.95,
    "loss_recovered_zero": 0.967,
    "loss_recovered_mean": 0.941,
    "model": "small-test-model",
    "site": "layers.14.resid",
}


def run_prompt(text: str) -> list[PromptToken]:
    """Stand for the model: the features that fire on a text's tokens, by the words above."""
    ids = {token: number for number, token in enumerate(vocabulary())}
    tokens = []
    for token in cut(text):
        tokens += [token] if token in ids else [bytes([byte]) for byte in token]
    fired = np.stack([_values(words, tokens) for words in feature_words()])
    return [
        PromptToken(ids[token], [(int(i), float(fired[i, n])) for i in np.flatnonzero(fired[:, n])])
        for n, token in enumerate(tokens)
    ]
