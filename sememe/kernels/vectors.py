"""Vector instructions that numba does not find in plain loops, written as LLVM would have them."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 32
"""Keys compared at once."""
BYTE, WORD = ir.IntType(8), ir.IntType(32)


@intrinsic  # type: ignore[untyped-decorator]
def fetch(_: Any, row: Any, start: Any) -> Any:  # noqa: ANN401
    """Ask for the cache line that holds row[start], and go on before it is there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(whole.data, [arguments[1]]), BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), WORD, WORD, WORD])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [BYTE.as_pointer()], kind)
        to_read, into_all_caches, data = WORD(0), WORD(3), WORD(1)
        builder.call(prefetch, [place, to_read, into_all_caches, data])
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def to_keys(_: Any, scores: Any, start: Any, maxima: Any, place: Any) -> Any:  # noqa: ANN401
    """Turn scores[start : start + 32] into keys and raise maxima[place : place + 32] to them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        vector = ir.VectorType(ir.IntType(16), LANES)

        def pointer(array: int, offset: int) -> Any:  # noqa: ANN401
            whole = context.make_array(signature.args[array])(context, builder, arguments[array])
            first = builder.gep(whole.data, [arguments[offset]])
            return builder.bitcast(first, vector.as_pointer())

        here, there = pointer(0, 1), pointer(2, 3)
        bits, highest = builder.load(here, align=2), builder.load(there, align=2)
        sign = builder.ashr(bits, ir.Constant(vector, [15] * LANES))
        key = builder.xor(bits, builder.and_(sign, ir.Constant(vector, [0x7FFF] * LANES)))
        builder.store(key, here, align=2)
        higher = builder.icmp_signed(">", key, highest)
        builder.store(builder.select(higher, key, highest), there, align=2)
        return context.get_dummy_value()

    return types.void(scores, types.intp, maxima, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def reaching(_: Any, keys: Any, start: Any, bound: Any) -> Any:  # noqa: ANN401
    """Compare keys[start : start + 32] with ``bound``; return a bit for each that reaches it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        vector = ir.VectorType(ir.IntType(16), LANES)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        loaded = builder.load(builder.bitcast(place, vector.as_pointer()), align=2)
        undefined = ir.Constant(vector, ir.Undefined)
        single = builder.insert_element(undefined, arguments[2], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        every = builder.shuffle_vector(single, undefined, zeros)
        return builder.bitcast(builder.icmp_signed(">=", loaded, every), ir.IntType(LANES))

    return types.uint32(keys, types.intp, types.int16), generate


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(_: Any, bits: Any) -> Any:  # noqa: ANN401
    """Return the place of the lowest bit that is set."""

    def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(types.uint32), generate


@intrinsic  # type: ignore[untyped-decorator]
def bit_count(_: Any, bits: Any) -> Any:  # noqa: ANN401
    """Return how many bits are set."""

    def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate
