"""A feature, or a list of features, as a widget in a notebook: the pages' own examples and plots.

Needs the extra ``notebook`` (anywidget).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.errors import SememeError, UsageError
from sememe.web.server import ASSETS, check_built
from sememe.web.views import Views

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise SememeError("notebook widgets need anywidget: pip install 'sememe[notebook]'") from error


class FeatureWidget(anywidget.AnyWidget):
    """Features of an atlas, one open at a time; ``chosen`` says which, and opens another.

    ``features`` is one number or several. ``beside`` is the directory that holds labels.

    Raises UsageError for a number that is no feature (TraitError where ``chosen`` is set to it),
    SememeError where the pages are not built.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    names: traitlets.List[Any] = traitlets.List().tag(sync=True)
    """The features at a glance, as the server's lists have them."""
    chosen = traitlets.Int().tag(sync=True)
    page = traitlets.Dict().tag(sync=True)
    """Everything about the chosen feature, as the server's ``/feature/N.json`` has it."""

    def __init__(
        self, atlas: Atlas, features: int | Sequence[int], beside: Path | None = None
    ) -> None:
        check_built()
        numbers = [features] if isinstance(features, int) else [int(item) for item in features]
        if not numbers:
            raise UsageError("features: expected at least one")
        self._views = Views(atlas, {}, prompt=False, search=Search(atlas, beside))
        self._numbers = dict.fromkeys(self._checked(number) for number in numbers)
        super().__init__(
            _esm=(ASSETS / "widget.js").read_text(),
            _css=(ASSETS / "widget.css").read_text(),
            names=[_plain(self._views.name(number)) for number in self._numbers],
            chosen=numbers[0],
            page=_plain(self._views.feature(numbers[0])),
        )

    def _checked(self, number: int) -> int:
        last = self._views.atlas.features - 1
        if not 0 <= number <= last:
            raise UsageError(f"feature {number}: expected a whole number from 0 to {last}")
        return number

    @traitlets.validate("chosen")
    def _refuse_unknown(self, proposal: Any) -> int:  # noqa: ANN401
        try:
            return self._checked(proposal["value"])
        except UsageError as error:  # after any other the value would stay, if a notebook sent it
            raise traitlets.TraitError(str(error)) from error

    @traitlets.observe("chosen")
    def _open(self, change: Any) -> None:  # noqa: ANN401
        self.page = _plain(self._views.feature(change["new"]))


def _plain(answer: object) -> Any:  # noqa: ANN401
    """Return an answer as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(answer))
