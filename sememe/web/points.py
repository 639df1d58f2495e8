"""The points of the map as arrays of small whole numbers: ten bytes a feature."""

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sememe.atlas.store import Atlas
from sememe.web import answers

_Bounds = tuple[float, float]
DECADES = 10.0
"""The map tells frequencies apart down to this negative power of ten."""


class Points:
    """Positions, clusters, sources, status and frequency of an atlas's features."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas

    @cached_property
    def _parts(self) -> list[tuple[answers.MapArray, npt.NDArray[Any]]]:
        columns = self.atlas.columns
        frequency = columns["frequency"]
        with np.errstate(divide="ignore"):
            logarithm = np.where(frequency > 0, np.log10(frequency), np.nan)
        places = {name: columns[name] for name in ("x", "y")}
        numbers = {
            name: np.where(columns[name] < 0, np.nan, columns[name].astype(np.float32))
            for name in ("cluster", "source")
            if name in columns
        }
        parts: list[tuple[str, npt.NDArray[Any], type[np.uint8 | np.uint16], _Bounds]] = [
            *((name, values, np.uint16, _bounds(values)) for name, values in places.items()),
            *((name, values, np.uint16, (0.0, 65534.0)) for name, values in numbers.items()),
            ("frequency", logarithm, np.uint8, (-DECADES, 0.0)),
            ("status", columns["status"], np.uint8, (0.0, 254.0)),
        ]
        found, offset = [], 0
        for name, values, dtype, bounds in parts:
            low, high = bounds
            most = int(np.iinfo(dtype).max)
            step = (high - low) / (most - 1)
            scaled = np.clip(np.rint((values - low) / step), 0, most - 1)
            array = np.where(np.isnan(scaled), most, scaled).astype(dtype)
            layout = answers.MapArray(name, array.dtype.name, offset, low, step)  # type: ignore[arg-type]
            found.append((layout, array))
            offset += array.nbytes
        return found

    @cached_property
    def layout(self) -> answers.MapLayout:
        """Where each array stands, and what its numbers mean."""
        size = sum(array.nbytes for _, array in self._parts)
        return answers.MapLayout(self.atlas.features, size, [part for part, _ in self._parts])

    @cached_property
    def data(self) -> bytes:
        """The arrays one after another, those of two bytes first."""
        return b"".join(array.tobytes() for _, array in self._parts)

    def clusters(self) -> answers.Clusters:
        """Return the clusters of the map."""
        named = self.atlas.manifest.get("clusters", [])
        return answers.Clusters(
            [
                answers.Cluster(number, item["name"], item["size"], item["x"], item["y"])
                for number, item in enumerate(named)
            ]
        )


def _bounds(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    if np.isnan(values).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, high if high > low else low + 1.0
