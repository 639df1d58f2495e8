"""Tests, mirroring the package.

Without a CUDA device Triton's programs run in its interpreter, which has to be chosen before
anything imports triton (transformers does).
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
