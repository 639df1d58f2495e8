"""Compile every Triton program to machine code for GPUs that need not be here.

``test_gpu.py`` runs it; by hand ``TRITON_INTERPRET=0 python -m tests.kernels.compile_programs``.
"""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sememe.kernels import gpu, programs

NUMBERS = {
    **dict.fromkeys(("rows", "width", "features", "tiles", "keep", "floor", "k"), "i32"),
    **dict.fromkeys(("rate", "new1", "new2", "correction2", "epsilon"), "fp32"),
}
POINTERS = {
    **dict.fromkeys(("keys", "starts", "which"), "*i64"),
    **dict.fromkeys(("counts", "found_features", "found_bits", "indices"), "*i32"),
}
"""Types of arguments by name; any other is a pointer to float32 or bfloat16 numbers."""
TARGETS = {"fp32": GPUTarget("cuda", 80, 32), "bf16": GPUTarget("cuda", 90, 32)}
COUNTING = dict.fromkeys(("starts", "found_features", "found_bits"))


def compiled(function, floats, warps, constants):
    types = {
        name: "constexpr" if name in constants else {**NUMBERS, **POINTERS}.get(name, f"*{floats}")
        for name in function.arg_names
    }
    source = ASTSource(function, types, constants)
    return triton.compile(source, target=TARGETS[floats], options={"num_warps": warps})


def main():
    gather = {"BLOCK_ENTRIES": gpu.ENTRIES, "BLOCK_WIDTH": gpu.WIDTH}
    for floats, step in (("fp32", 32), ("bf16", 64)):
        tile = {"BLOCK_ROWS": gpu.ROWS, "BLOCK_FEATURES": gpu.FEATURES, "BLOCK_WIDTH": step}
        for function, warps, constants in (
            (programs.largest_of_tile, 8, tile),
            (programs.entries_of_tile, 8, tile | COUNTING),
            (programs.entries_of_tile, 8, tile),
            (programs.sum_of_rows, 4, gather | {"totals": None}),
            (programs.sum_of_rows, 4, gather),
            (programs.products_with_rows, 4, gather),
            (programs.adam_row, 4, {"UNIT_ROWS": False, "BLOCK_WIDTH": gpu.SPAN}),
            (programs.adam_row, 4, {"UNIT_ROWS": True, "BLOCK_WIDTH": 1024}),
            (programs.adam_row, 32, {"UNIT_ROWS": True, "BLOCK_WIDTH": 16384}),
        ):
            assert compiled(function, floats, warps, constants).asm["cubin"]


if __name__ == "__main__":
    main()
