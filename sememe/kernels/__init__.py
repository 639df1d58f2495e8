"""Sparse operations: plain torch and compiled CPU twins, and the choice between them.

Axis names: rows (activations), width (of an activation), features, k (entries of a code).
"""

from sememe.kernels.choice import kernels_for
from sememe.kernels.code import Code
from sememe.kernels.differentiable import decode, encode_batchtopk, encode_positive, encode_topk

__all__ = ["Code", "decode", "encode_batchtopk", "encode_positive", "encode_topk", "kernels_for"]
