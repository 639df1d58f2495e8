"""Dictionaries: encode and decode; nonlinearities, objectives and initialisation, each a table.

Axis names: rows (activations), width (of an activation), features, k (entries of a code).
"""

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary, Folded
from sememe.dictionaries.nonlinearities import NONLINEARITIES, Nonlinearity, ReLU, TopK
from sememe.kernels.code import Code

__all__ = [
    "NONLINEARITIES",
    "Code",
    "Dictionary",
    "DictionaryConfig",
    "Folded",
    "Nonlinearity",
    "ReLU",
    "TopK",
]
