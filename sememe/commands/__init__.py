"""The commands as dataclasses: their fields are the flags, their docstrings the help.

Heavy imports stay inside ``__call__``, so that ``sememe --help`` answers at once.
"""

from collections.abc import Callable
from typing import Any

from sememe.commands.activations import Activations
from sememe.commands.attributing import Attribute
from sememe.commands.dials import Recipe
from sememe.commands.dictionaries import Describe, Train
from sememe.commands.evaluating import Evaluate
from sememe.commands.exporting import Export
from sememe.commands.importing import Import
from sememe.commands.inputs import Corpus, Harvest, Sites
from sememe.commands.intervening import Steer
from sememe.commands.job import Index, Map, Plan, Serve
from sememe.commands.language import LmFamily, TrainLm
from sememe.commands.monitoring import Monitor
from sememe.commands.studies import Study

__all__ = ["COMMANDS", "Map", "Recipe", "Train"]

COMMANDS: dict[str, Callable[..., Any]] = {
    "map": Map,
    "plan": Plan,
    "corpus": Corpus,
    "harvest": Harvest,
    "activations": Activations,
    "train": Train,
    "evaluate": Evaluate,
    "describe": Describe,
    "index": Index,
    "serve": Serve,
    "steer": Steer,
    "attribute": Attribute,
    "monitor": Monitor,
    "export": Export,
    "import": Import,
    "sites": Sites,
    "study": Study,
    "train-lm": TrainLm,
    "lm-family": LmFamily,
}
"""Every command by name."""
