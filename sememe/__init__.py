"""Sememe takes a language model apart into units of meaning.

The stages are functions (``corpus``, ``harvest``, ``train``, ``evaluate``, ``describe``, ``serve``,
and ``map`` for all of them), beside the classes that they read and write. Each name is imported
when it is first used, so that ``import sememe`` itself is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sememe.activations.buffered import BufferedStream
    from sememe.activations.harvest import harvest
    from sememe.activations.in_order import LiveRows
    from sememe.activations.live import LiveStream
    from sememe.activations.own import harvest_module
    from sememe.activations.store import Activations
    from sememe.activations.stream import MemoryStream, Stream
    from sememe.atlas.describe import describe
    from sememe.atlas.store import Atlas
    from sememe.corpora.build import build_corpus as corpus
    from sememe.corpora.corpus import Corpus
    from sememe.dictionaries.dictionary import Dictionary
    from sememe.errors import SememeError, UsageError
    from sememe.evaluation.evaluate import evaluate
    from sememe.intervention.attribution import attribute
    from sememe.intervention.changes import Change
    from sememe.intervention.features import FeatureSet
    from sememe.intervention.intervene import intervene
    from sememe.intervention.monitor import Monitor
    from sememe.intervention.steering import steer
    from sememe.job import MapConfig, plan
    from sememe.job import map_model as map
    from sememe.models.generation import generate
    from sememe.models.load import load_model
    from sememe.models.sites import Site
    from sememe.training.config import TrainConfig
    from sememe.training.loop import train
    from sememe.web.server import serve

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Atlas",
    "BufferedStream",
    "Change",
    "Corpus",
    "Dictionary",
    "FeatureSet",
    "LiveRows",
    "LiveStream",
    "MapConfig",
    "MemoryStream",
    "Monitor",
    "SememeError",
    "Site",
    "Stream",
    "TrainConfig",
    "UsageError",
    "attribute",
    "corpus",
    "describe",
    "evaluate",
    "generate",
    "harvest",
    "harvest_module",
    "intervene",
    "load_model",
    "map",
    "plan",
    "serve",
    "steer",
    "train",
]

# Each name's module, and its name there where that is another; the imports above say the same to
# type checkers.
_PLACES = {
    "Activations": "sememe.activations.store",
    "Atlas": "sememe.atlas.store",
    "BufferedStream": "sememe.activations.buffered",
    "Change": "sememe.intervention.changes",
    "Corpus": "sememe.corpora.corpus",
    "Dictionary": "sememe.dictionaries.dictionary",
    "FeatureSet": "sememe.intervention.features",
    "LiveRows": "sememe.activations.in_order",
    "LiveStream": "sememe.activations.live",
    "MapConfig": "sememe.job",
    "MemoryStream": "sememe.activations.stream",
    "Monitor": "sememe.intervention.monitor",
    "SememeError": "sememe.errors",
    "Site": "sememe.models.sites",
    "Stream": "sememe.activations.stream",
    "TrainConfig": "sememe.training.config",
    "UsageError": "sememe.errors",
    "attribute": "sememe.intervention.attribution",
    "corpus": "sememe.corpora.build:build_corpus",
    "describe": "sememe.atlas.describe",
    "evaluate": "sememe.evaluation.evaluate",
    "generate": "sememe.models.generation",
    "harvest": "sememe.activations.harvest",
    "harvest_module": "sememe.activations.own",
    "intervene": "sememe.intervention.intervene",
    "load_model": "sememe.models.load",
    "map": "sememe.job:map_model",
    "plan": "sememe.job",
    "serve": "sememe.web.server",
    "steer": "sememe.intervention.steering",
    "train": "sememe.training.loop",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'sememe' has no attribute {name!r}")
    module, _, there = _PLACES[name].partition(":")
    value: object = getattr(import_module(module), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
