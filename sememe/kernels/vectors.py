"""Vector instructions that numba does not find in plain loops, written as LLVM would have them.

A key is the bits of a bf16 number as an int16 that orders as the numbers do, negative or not.
Places count elements from the beginning of an array, whatever its shape; nothing is checked.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32
"""Keys looked at together."""
HALF = LANES // 2
WORD = ir.IntType(32)
KEYS = ir.VectorType(ir.IntType(16), LANES)
FEATURES = ir.VectorType(WORD, HALF)


class _Arrays:
    """The arguments of an intrinsic, where vectors are loaded from and stored to."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:  # noqa: ANN401
        self.builder, self.arguments = builder, arguments
        self.data = {
            number: context.make_array(kind)(context, builder, arguments[number]).data
            for number, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }

    def at(self, array: int, place: Any, vector: Any) -> Any:  # noqa: ANN401
        """Return the address of a vector."""
        return self.builder.bitcast(
            self.builder.gep(self.data[array], [place]), vector.as_pointer()
        )

    def keys(self, array: int, place: Any) -> Any:  # noqa: ANN401
        """Load bf16 numbers and make them keys."""
        bits = self.builder.load(self.at(array, place, KEYS), align=2)
        sign = self.builder.ashr(bits, _all(KEYS, 15))
        return self.builder.xor(bits, self.builder.and_(sign, _all(KEYS, 0x7FFF)))

    def reaching(self, keys: Any, bound: Any) -> Any:  # noqa: ANN401
        """Compare keys with one; return a bit for each that reaches it, as a vector."""
        return self.builder.icmp_signed(">=", keys, self.spread(bound, KEYS))

    def spread(self, value: Any, vector: Any) -> Any:  # noqa: ANN401
        """Return a vector that holds ``value`` alone."""
        undefined = ir.Constant(vector, ir.Undefined)
        single = self.builder.insert_element(undefined, value, WORD(0))
        places = ir.Constant(ir.VectorType(WORD, vector.count), [0] * vector.count)
        return self.builder.shuffle_vector(single, undefined, places)

    def packed(self, values: Any, mask: Any, name: str) -> Any:  # noqa: ANN401
        """Move the values that ``mask`` marks to the front; what follows them is undefined."""
        kind = ir.FunctionType(values.type, [values.type, mask.type, values.type])
        pack = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.experimental.vector.compress.{name}"
        )
        return self.builder.call(pack, [values, mask, ir.Constant(values.type, ir.Undefined)])


def _all(vector: Any, value: int) -> Any:  # noqa: ANN401
    return ir.Constant(vector, [value] * vector.count)


@intrinsic  # type: ignore[untyped-decorator]
def survey(_: Any, scores: Any, start: Any, maxima: Any, place: Any) -> Any:  # noqa: ANN401
    """Raise the keys maxima[place : place + 32] to those of the bf16 scores[start : start + 32]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        arrays = _Arrays(context, builder, signature, arguments)
        keys, there = arrays.keys(0, arguments[1]), arrays.at(2, arguments[3], KEYS)
        highest = builder.load(there, align=2)
        higher = builder.icmp_signed(">", keys, highest)
        builder.store(builder.select(higher, keys, highest), there, align=2)
        return context.get_dummy_value()

    return types.void(scores, types.intp, maxima, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def sift(
    _: Any,  # noqa: ANN401
    scores: Any,  # noqa: ANN401
    start: Any,  # noqa: ANN401
    bound: Any,  # noqa: ANN401
    first: Any,  # noqa: ANN401
    features: Any,  # noqa: ANN401
    keys: Any,  # noqa: ANN401
    place: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Append to features and keys, from ``place`` on, those of scores[start : start + 32] that
    reach ``bound``; ``first`` is the feature of the first. Return how many do.

    Up to 32 elements beyond the last may be overwritten.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        arrays = _Arrays(context, builder, signature, arguments)
        _, start, bound, first, _, _, place = arguments
        found = arrays.keys(0, start)
        mask = arrays.reaching(found, bound)
        bits = builder.bitcast(mask, WORD)
        builder.store(arrays.packed(found, mask, "v32i16"), arrays.at(5, place, KEYS), align=2)
        numbers = arrays.spread(builder.trunc(first, WORD), FEATURES)
        for half in (0, HALF):
            lanes = ir.Constant(FEATURES, list(range(half, half + HALF)))
            part = builder.shuffle_vector(mask, ir.Constant(mask.type, ir.Undefined), lanes)
            chosen = arrays.packed(builder.add(numbers, lanes), part, "v16i32")
            builder.store(chosen, arrays.at(4, place, FEATURES), align=4)
            lower = builder.ctpop(builder.and_(bits, WORD((1 << HALF) - 1)))
            place = builder.add(place, builder.zext(lower, place.type))
        return builder.zext(builder.ctpop(bits), place.type)

    arguments = (types.intp, types.int16, types.intp, features, keys, types.intp)
    return types.intp(scores, *arguments), generate


@intrinsic  # type: ignore[untyped-decorator]
def count_reaching(_: Any, keys: Any, start: Any, bound: Any) -> Any:  # noqa: ANN401
    """Return how many of keys[start : start + 32] reach ``bound``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        arrays = _Arrays(context, builder, signature, arguments)
        loaded = builder.load(arrays.at(0, arguments[1], KEYS), align=2)
        bits = builder.bitcast(arrays.reaching(loaded, arguments[2]), WORD)
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(keys, types.intp, types.int16), generate
