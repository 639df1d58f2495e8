"""The map: every feature that fires at a place in the plane, near those with near decoder rows.

UMAP (McInnes et al., 2018) over the exact nearest decoder rows by cosine, begun at the first two
principal components. Clusters are those of HDBSCAN on the map.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sememe.atlas.ranked import Ranked
from sememe.atlas.umap import umap
from sememe.atlas.weights import CHUNK, nearest
from sememe.kernels.compiled import Array
from sememe.models.tokenizer import pieces

LEAST_FEATURES = 256
"""With fewer the first two principal components are the map."""
SPREAD = 10.0
"""Standard deviation of the first layout, along its longer axis."""
SMALLEST_CLUSTER = 0.002
"""Share of the features; and never fewer than five."""
LARGEST_CLUSTER = 0.2
"""Share too, or one cluster may swallow nearly all, as HDBSCAN then prefers."""
PLACED_BY = 3
"""Nearest features between which one of another dictionary lies."""
NAMED_BY = 3
"""Tokens in the name of a cluster."""


class Layout(NamedTuple):
    """Where features lie; NaN and -1 for those that are not on the map."""

    x: Array
    y: Array
    cluster: Array
    clusters: list[dict[str, Any]]
    """Name, number of features and middle of every cluster, by its number."""


def lay_out(decoder: Float[torch.Tensor, "features width"], near: Ranked, fires: Array) -> Layout:
    """Return the map of the features that ``fires`` (features,) says fire, clusters unnamed.

    ``near`` are the nearest features of each.
    """
    chosen = np.flatnonzero(fires)
    features = len(decoder)
    points = np.full((features, 2), np.nan, np.float32)
    cluster = np.full(features, -1, np.int32)
    points[chosen] = _principal(decoder, chosen)
    if len(chosen) >= LEAST_FEATURES:
        points[chosen] = umap(points[chosen], _among(near, chosen, features))
        cluster[chosen] = _clusters(points[chosen])
    return Layout(points[:, 0].copy(), points[:, 1].copy(), cluster, [])


def place_beside(
    decoder: Float[torch.Tensor, "features width"],
    fires: Array,
    mapped: Float[torch.Tensor, "others width"],
    layout: Layout,
) -> tuple[Layout, Ranked]:
    """Return where other features lie on a map that is there, whose features are ``mapped``.

    Each lies in the middle of its three nearest decoder rows by cosine, nearer ones weighing more,
    and in the cluster of the nearest. Both are unit rows. The second answer is those three of
    ``mapped`` for each feature that fires: of features that are not on the map none is among them.
    """
    there = np.flatnonzero(np.isfinite(layout.x))
    chosen = np.flatnonzero(fires)
    near = nearest(decoder[torch.from_numpy(chosen)], mapped[torch.from_numpy(there)], PLACED_BY)
    which, weight = there[near.which], np.where(near.which >= 0, near.amount**8, 0.0)
    known = weight.sum(axis=1) > 0
    places = np.full((2, len(decoder)), np.nan, np.float32)
    for axis, place in zip(places, (layout.x, layout.y), strict=True):
        middle = (weight * place[which]).sum(axis=1)[known] / weight.sum(axis=1)[known]
        axis[chosen[known]] = middle
    cluster = np.full(len(decoder), -1, np.int32)
    cluster[chosen[known]] = layout.cluster[which[known, 0]]
    sizes = np.bincount(cluster[cluster >= 0], minlength=len(layout.clusters)).tolist()
    clusters = [{**old, "size": size} for old, size in zip(layout.clusters, sizes, strict=True)]
    nearby = Ranked.empty(len(decoder), PLACED_BY)
    nearby.which[chosen, : near.which.shape[1]] = np.where(near.which >= 0, which, -1)
    nearby.amount[chosen, : near.which.shape[1]] = near.amount
    return Layout(places[0], places[1], cluster, clusters), nearby


def _principal(decoder: Float[torch.Tensor, "features width"], chosen: Array) -> Array:
    """(chosen, 2) places along two principal components, each with its larger side positive.

    Memory: some thousand rows in float64 at a time.
    """
    if len(chosen) < 3:
        return np.zeros((len(chosen), 2), np.float32)
    parts = torch.from_numpy(chosen).split(CHUNK)
    mean = sum(decoder[part].double().sum(0) for part in parts) / len(chosen)
    centred = partial(map, lambda part: decoder[part].double() - mean, parts)
    _, vectors = torch.linalg.eigh(sum(rows.T @ rows for rows in centred()))
    places = torch.cat([rows @ vectors[:, -2:].flip(1) for rows in centred()]).numpy()
    places *= np.where(np.abs(places.max(0)) < np.abs(places.min(0)), -1.0, 1.0)
    spread = places.std(axis=0).max()
    # rounded, so that they do not depend on how many threads add up
    scaled: Array = (places * (SPREAD / spread if spread else 0.0)).round(4).astype(np.float32)
    return scaled


def _among(near: Ranked, chosen: Array, features: int) -> Ranked:
    """Return the nearest of the chosen features among themselves, by their number there."""
    number = np.full(features + 1, -1, np.int32)
    number[chosen] = np.arange(len(chosen))
    return Ranked(number[near.which[chosen]], near.amount[chosen])


def _clusters(points: Array) -> Array:
    """(n,) numbers of clusters, the largest first; -1 for none."""
    from sklearn.cluster import HDBSCAN

    clustering = HDBSCAN(
        min_cluster_size=max(5, round(SMALLEST_CLUSTER * len(points))),
        max_cluster_size=round(LARGEST_CLUSTER * len(points)),
        copy=True,
    )
    found = clustering.fit_predict(points.astype(np.float64))
    sizes = np.bincount(found[found >= 0])
    rank = np.empty(len(sizes) + 1, np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    rank[-1] = -1
    renumbered: Array = rank[found]
    return renumbered


def named(layout: Layout, tokens: Array, token_bytes: Sequence[bytes]) -> Layout:
    """Return a map with every cluster's name, size and middle.

    It is named by the tokens that the largest part of its features share, weighed by how rare they
    are among all features (tf-idf). ``tokens`` (features, shown) are those that each fires on most,
    -1 where there are fewer.
    """
    points, cluster = np.stack([layout.x, layout.y], axis=1), layout.cluster
    everywhere = np.bincount(tokens[tokens >= 0], minlength=len(token_bytes))
    features = int((tokens[:, 0] >= 0).sum())
    found = []
    for number in range(int(cluster.max(initial=-1)) + 1):
        mine = np.flatnonzero(cluster == number)
        inside = tokens[mine]
        token, count = np.unique(inside[inside >= 0], return_counts=True)
        weight = count * np.log(features / everywhere[token])
        rare = np.argsort(-weight, kind="stable")[: int((weight > 0).sum())]
        best = [token_bytes[token] for token in token[rare]]
        x, y = np.median(points[mine], axis=0).tolist()
        name = " · ".join(_words(best) or map(_escaped, best[:1]))
        found.append({"name": name, "size": len(mine), "x": round(x, 4), "y": round(y, 4)})
    return layout._replace(clusters=found)


def _words(tokens: Iterable[bytes]) -> list[str]:
    """Return the first tokens that are whole characters and seen, once whatever their case."""
    words: dict[str, str] = {}
    for token in tokens:
        word = token.decode("utf-8", "replace").strip()
        if word and "\N{REPLACEMENT CHARACTER}" not in word:
            words.setdefault(word.casefold(), word)
        if len(words) == NAMED_BY:
            break
    return list(words.values())


def _escaped(token: bytes) -> str:
    """Return a token of which nothing would be seen."""
    text = "".join(piece.text for piece in pieces([token]))
    return text.strip() or text.encode("unicode_escape").decode()
