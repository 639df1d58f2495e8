"""The points of the map as arrays of small whole numbers: ten bytes a feature."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sememe.atlas.store import Atlas
from sememe.web import answers

_Bounds = tuple[float, float]
DECADES = 10.0
"""The map tells frequencies apart down to this negative power of ten."""
_Part = tuple[str, npt.NDArray[Any], type[np.uint8 | np.uint16], _Bounds]


class Points:
    """Positions, clusters, sources, status and frequency of an atlas's features.

    Where they lie on the map of another dictionary, its features' positions too, in the same
    bounds.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas

    @cached_property
    def _made(self) -> tuple[answers.MapLayout, bytes]:
        other = self.atlas.other
        own, first = _packed([*self._places(self.atlas.columns), *self._numbers()], 0)
        theirs, second = _packed(self._places(other.columns) if other else [], len(first))
        rest, third = _packed(self._scales(), len(first) + len(second))
        data = first + second + third
        layout = answers.MapLayout(
            name=self.atlas.path.resolve().parent.name,
            features=self.atlas.features,
            bytes=len(data),
            arrays=own + rest,
            other=answers.OtherLayout(other.name, other.features, theirs) if other else None,
        )
        return layout, data

    def _places(self, columns: Mapping[str, npt.NDArray[Any]]) -> list[_Part]:
        return [(name, columns[name], np.uint16, self._bounds[name]) for name in ("x", "y")]

    def _numbers(self) -> list[_Part]:
        columns = self.atlas.columns
        numbers = {
            name: np.where(columns[name] < 0, np.nan, columns[name].astype(np.float32))
            for name in ("cluster", "source")
            if name in columns
        }
        return [(name, values, np.uint16, (0.0, 65534.0)) for name, values in numbers.items()]

    def _scales(self) -> list[_Part]:
        columns = self.atlas.columns
        frequency = columns["frequency"]
        with np.errstate(divide="ignore"):
            logarithm = np.where(frequency > 0, np.log10(frequency), np.nan)
        parts: list[_Part] = [
            ("frequency", logarithm, np.uint8, (-DECADES, 0.0)),
            ("status", columns["status"], np.uint8, (0.0, 254.0)),
        ]
        if "other_cosine" in columns:
            parts.append(("other_cosine", columns["other_cosine"], np.uint8, (0.0, 1.0)))
        return parts

    @cached_property
    def _bounds(self) -> dict[str, _Bounds]:
        other = self.atlas.other
        maps = [self.atlas.columns, *([] if other is None else [other.columns])]
        return {name: _bounds([places[name] for places in maps]) for name in ("x", "y")}

    @property
    def layout(self) -> answers.MapLayout:
        """Where each array stands, and what its numbers mean."""
        return self._made[0]

    @property
    def data(self) -> bytes:
        """The arrays one after another, those of two bytes first."""
        return self._made[1]

    def clusters(self) -> answers.Clusters:
        """Return the clusters of the map."""
        named = self.atlas.manifest.get("clusters", [])
        return answers.Clusters(
            [
                answers.Cluster(number, item["name"], item["size"], item["x"], item["y"])
                for number, item in enumerate(named)
            ]
        )


def _packed(parts: Sequence[_Part], offset: int) -> tuple[list[answers.MapArray], bytes]:
    """Return arrays as whole numbers one after another, from ``offset`` on."""
    found, chunks = [], []
    for name, values, dtype, (low, high) in parts:
        most = int(np.iinfo(dtype).max)
        step = (high - low) / (most - 1)
        scaled = np.clip(np.rint((values - low) / step), 0, most - 1)
        array = np.where(np.isnan(scaled), most, scaled).astype(dtype)
        found.append(answers.MapArray(name, array.dtype.name, offset, low, step))  # type: ignore[arg-type]
        chunks.append(array.tobytes())
        offset += array.nbytes
    return found, b"".join(chunks)


def _bounds(maps: Sequence[npt.NDArray[np.float32]]) -> _Bounds:
    """Return the least and the largest of some arrays, NaN left out, never the same."""
    there = np.concatenate([values[~np.isnan(values)] for values in maps])
    if not len(there):
        return 0.0, 1.0
    low, high = float(there.min()), float(there.max())
    return low, high if high > low else low + 1.0
