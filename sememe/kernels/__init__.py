"""Sparse operations: plain torch and compiled CPU twins, and the choice between them.

Axis names: rows (activations), width (of an activation), features, k (entries of a code).
"""

from sememe.kernels.choice import kernels_for
from sememe.kernels.code import Code
from sememe.kernels.differentiable import (
    centred,
    decode,
    encode_batchtopk,
    encode_positive,
    encode_topk,
    gather,
    reconstruct,
    scores,
    scores_at,
    squared_distance,
)
from sememe.kernels.products import Products, collected

__all__ = [
    "Code",
    "Products",
    "centred",
    "collected",
    "decode",
    "encode_batchtopk",
    "encode_positive",
    "encode_topk",
    "gather",
    "kernels_for",
    "reconstruct",
    "scores",
    "scores_at",
    "squared_distance",
]
