"""Dictionaries: encode and decode; nonlinearities, objectives and initialisation, each a table.

Axis names: rows (activations), width (of what is read), write_width (of what is written), features,
k (entries of a code).
"""

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary, Folded
from sememe.dictionaries.nonlinearities import (
    NONLINEARITIES,
    BatchTopK,
    Gated,
    JumpReLU,
    Nonlinearity,
    Refined,
    ReLU,
    TopK,
)
from sememe.dictionaries.scores import Activity, Encoder
from sememe.kernels.code import Code

__all__ = [
    "NONLINEARITIES",
    "Activity",
    "BatchTopK",
    "Code",
    "Dictionary",
    "DictionaryConfig",
    "Encoder",
    "Folded",
    "Gated",
    "JumpReLU",
    "Nonlinearity",
    "ReLU",
    "Refined",
    "TopK",
]
