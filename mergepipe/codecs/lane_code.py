"""The vector code of `lanes`, for the compiler: states, steps and the words of a stream.

Only kernels call what is here, and only the compiler imports it: `lanes` names it.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mergepipe.codecs.lanes import LANES, STEP_WORDS, VECTORS, WIDTH

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()
# numba does not type its decorators and builders.
_intrinsic = cast(Callable[..., Callable[[Any], Any]], intrinsic)
_cgutils: Any = cgutils


def _vector(element: Any) -> Any:
    return ir.VectorType(element, WIDTH)


def _splat(element: Any, value: int) -> Any:
    return ir.Constant(_vector(element), [value] * WIDTH)


class _Lanes:
    """Emits the vector code of one loop over steps; holds the states and the stream's position."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder = context, builder
        self.has_expand = "+avx512vbmi2" in context.codegen()._tm_features
        self.pointers = []
        for type_, value in zip(signature.args, args, strict=True):
            if isinstance(type_, types.Array):
                array = context.make_array(type_)(context, builder, value)
                self.pointers.append(array.data)
            else:
                self.pointers.append(value)

    def call(self, name: str, result: Any, args: list[Any]) -> Any:
        function = _cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(result, [a.type for a in args]), name
        )
        return self.builder.call(function, args)

    def address(self, base: Any, index: Any, element: Any) -> Any:
        return self.builder.gep(base, [index], source_etype=element)

    def vector_at(self, base: Any, index: Any, element: Any) -> Any:
        return self.builder.bitcast(
            self.address(base, index, element), _vector(element).as_pointer()
        )

    def load(self, base: Any, index: Any, element: Any) -> Any:
        """16 elements from `base[index]`, at any alignment, widened to 32 bits."""
        builder = self.builder
        value = builder.load(self.vector_at(base, index, element), align=1)
        return value if element == _I32 else builder.zext(value, _vector(_I32))

    def store(self, value: Any, base: Any, index: Any, element: Any) -> None:
        builder = self.builder
        if element != _I32:
            value = builder.trunc(value, _vector(element))
        builder.store(value, self.vector_at(base, index, element), align=1)

    def gather(self, base: Any, index: Any, stride: Any = _I32) -> Any:
        """32 bits from each of 16 places, counted in elements of `stride`."""
        builder = self.builder
        pointers = builder.gep(base, [index], source_etype=stride)
        pointers.type = _vector(_I32.as_pointer())
        return self.call(
            "llvm.masked.gather.v16i32.v16p0",
            _vector(_I32),
            [
                pointers,
                ir.Constant(_I32, stride.width // 8),
                ir.Constant(_vector(ir.IntType(1)), [1] * WIDTH),
                _splat(_I32, 0),
            ],
        )

    def count(self, mask: Any) -> Any:
        bits = self.builder.bitcast(mask, _I16)
        return self.builder.zext(self.call("llvm.ctpop.i16", _I16, [bits]), _I64)

    def emit(self, state: Any, mask: Any, words: Any, position: Any) -> tuple[Any, Any]:
        """Write the low 16 bits of the lanes in `mask`, in lane order; returns state, position."""
        builder = self.builder
        low = builder.trunc(state, _vector(_I16))
        packed = self.call(
            "llvm.experimental.vector.compress.v16i16",
            _vector(_I16),
            [low, mask, _splat(_I16, 0)],
        )
        builder.store(packed, self.vector_at(words, position, _I16), align=1)
        shifted = builder.lshr(state, _splat(_I32, 16))
        return builder.select(mask, shifted, state), builder.add(position, self.count(mask))

    def refill(self, state: Any, words: Any, position: Any) -> tuple[Any, Any]:
        """Give lanes below 2^16 a word from before `position`; returns state, position."""
        builder = self.builder
        mask = builder.icmp_unsigned("<", state, _splat(_I32, 1 << 16))
        position = builder.sub(position, self.count(mask))
        if self.has_expand:
            read = self.call(
                "llvm.masked.expandload.v16i16",
                _vector(_I16),
                [self.address(words, position, _I16), mask, _splat(_I16, 0)],
            )
            fresh = builder.zext(read, _vector(_I32))
        else:
            # Lane l reads the word numbered by how many lower lanes read one. All lanes read, and
            # 32 bits each: such a gather needs no branches, on machines without any gather too.
            bits = builder.zext(builder.bitcast(mask, _I16), _I32)
            spread = _broadcast(builder, bits)
            below = ir.Constant(_vector(_I32), [(1 << lane) - 1 for lane in range(WIDTH)])
            rank = self.call("llvm.ctpop.v16i32", _vector(_I32), [builder.and_(spread, below)])
            pair = self.gather(self.address(words, position, _I16), rank, _I16)
            fresh = builder.and_(pair, _splat(_I32, 0xFFFF))
        joined = builder.or_(builder.shl(state, _splat(_I32, 16)), fresh)
        return builder.select(mask, joined, state), position

    def loop(
        self,
        states: Any,
        steps: Any,
        position: Any,
        backwards: bool,
        bounded: bool,
        step: Callable[[Any, Any, Any], tuple[Any, Any]],
    ) -> Any:
        """Run `step(state, index, position)` on all vectors of all steps; returns the position.

        With `bounded`, stops at a step that may read before the first word, and returns -1.
        """
        builder = self.builder
        held = []
        for v in range(VECTORS):
            slot = _cgutils.alloca_once(builder, _vector(_I32))
            builder.store(self.load(states, ir.Constant(_I64, v * WIDTH), _I32), slot)
            held.append(slot)
        at = _cgutils.alloca_once_value(builder, position)
        with _cgutils.for_range(builder, steps, intp=_I64) as body:
            number = body.index
            if backwards:
                number = builder.sub(builder.sub(steps, ir.Constant(_I64, 1)), number)
            start = builder.mul(number, ir.Constant(_I64, LANES))
            if bounded:
                short = builder.icmp_signed("<", builder.load(at), ir.Constant(_I64, STEP_WORDS))
                with builder.if_then(short, likely=False):
                    builder.store(ir.Constant(_I64, -1), at)
                    body.do_break()
            place = builder.load(at)
            order = reversed(range(VECTORS)) if backwards else range(VECTORS)
            for v in order:
                index = builder.add(start, ir.Constant(_I64, v * WIDTH))
                state, place = step(builder.load(held[v]), index, place)
                builder.store(state, held[v])
            builder.store(place, at)
        for v, slot in enumerate(held):
            self.store(builder.load(slot), states, ir.Constant(_I64, v * WIDTH), _I32)
        return builder.load(at)


def _broadcast(builder: Any, scalar: Any) -> Any:
    """A vector with `scalar` in every lane."""
    first = builder.insert_element(
        ir.Constant(_vector(scalar.type), ir.Undefined), scalar, ir.Constant(_I32, 0)
    )
    zeros = ir.Constant(ir.VectorType(_I32, WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(first, ir.Constant(first.type, ir.Undefined), zeros)


def _bits_of(argument: Any) -> int:
    """The value of a literal int argument: how many bits frequencies have in this call."""
    return int(argument.literal_value)


@_intrinsic(prefer_literal=True)
def push_symbols(
    typing: Any,
    bits: Any,
    states: Any,
    index: Any,
    table: Any,
    words: Any,
    at: Any,
    steps: Any,
) -> Any:
    """What `lanes.push_exact` and `push_coarse` are for frequencies of 2^bits."""
    scale = _bits_of(bits)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder, signature, args)
        _, states, index, table, words, at, steps = lanes.pointers

        def step(state: Any, i: Any, place: Any) -> tuple[Any, Any]:
            entry = lanes.gather(table, lanes.load(index, i, _I16))
            freq = builder.lshr(entry, _splat(_I32, 16))
            start = builder.and_(entry, _splat(_I32, 0xFFFF))
            # A frequency of 2^scale shifts to 0, minus one is the largest state: never emits.
            limit = builder.sub(builder.shl(freq, _splat(_I32, 32 - scale)), _splat(_I32, 1))
            full = builder.icmp_unsigned(">", state, limit)
            state, place = lanes.emit(state, full, words, place)
            # The quotient is below 2^(32 - scale), so float32 division is off by one at most; the
            # remainder shows which way, and the result is exact on every machine.
            real = _vector(_F32)
            quotient = builder.fptosi(
                builder.fdiv(builder.uitofp(state, real), builder.sitofp(freq, real)),
                _vector(_I32),
            )
            rest = builder.sub(state, builder.mul(quotient, freq))
            low = builder.icmp_signed("<", rest, _splat(_I32, 0))
            quotient = builder.select(low, builder.sub(quotient, _splat(_I32, 1)), quotient)
            rest = builder.select(low, builder.add(rest, freq), rest)
            high = builder.icmp_signed(">=", rest, freq)
            quotient = builder.select(high, builder.add(quotient, _splat(_I32, 1)), quotient)
            rest = builder.select(high, builder.sub(rest, freq), rest)
            state = builder.shl(quotient, _splat(_I32, scale))
            return builder.add(builder.add(state, rest), start), place

        return lanes.loop(states, steps, at, True, False, step)

    return types.int64(bits, states, index, table, words, at, steps), codegen


@_intrinsic(prefer_literal=True)
def pull_symbols(
    typing: Any,
    bits: Any,
    states: Any,
    rows: Any,
    table: Any,
    words: Any,
    at: Any,
    steps: Any,
    out: Any,
) -> Any:
    """What `lanes.pull_exact` and `pull_coarse` are for frequencies of 2^bits."""
    scale = _bits_of(bits)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder, signature, args)
        _, states, rows, table, words, at, steps, out = lanes.pointers
        slots = _splat(_I32, (1 << scale) - 1)

        def step(state: Any, i: Any, place: Any) -> tuple[Any, Any]:
            row = builder.shl(lanes.load(rows, i, _I8), _splat(_I32, scale))
            entry = lanes.gather(table, builder.or_(row, builder.and_(state, slots)))
            lanes.store(entry, out, i, _I8)
            freq = builder.add(builder.lshr(entry, _splat(_I32, 8 + scale)), _splat(_I32, 1))
            rest = builder.and_(builder.lshr(entry, _splat(_I32, 8)), slots)
            state = builder.lshr(state, _splat(_I32, scale))
            state = builder.add(builder.mul(state, freq), rest)
            return lanes.refill(state, words, place)

        return lanes.loop(states, steps, at, False, True, step)

    return types.int64(bits, states, rows, table, words, at, steps, out), codegen


@_intrinsic(prefer_literal=False)
def push_bits(
    typing: Any, states: Any, values: Any, counts: Any, words: Any, at: Any, steps: Any
) -> Any:
    """Encode the low `counts[i]` (uint8, at most 16) bits of each value, as `push_exact` does.

    `values` (uint16) must be below 2^count.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder, signature, args)
        states, values, counts, words, at, steps = lanes.pointers

        def step(state: Any, i: Any, place: Any) -> tuple[Any, Any]:
            count = lanes.load(counts, i, _I8)
            limit = builder.lshr(_splat(_I32, 0xFFFFFFFF), count)
            full = builder.icmp_unsigned(">", state, limit)
            state, place = lanes.emit(state, full, words, place)
            state = builder.or_(builder.shl(state, count), lanes.load(values, i, _I16))
            return state, place

        return lanes.loop(states, steps, at, True, False, step)

    return types.int64(states, values, counts, words, at, steps), codegen


@_intrinsic(prefer_literal=False)
def pull_bits(
    typing: Any, states: Any, counts: Any, words: Any, at: Any, steps: Any, out: Any
) -> Any:
    """Decode `counts[i]` (uint8, at most 16) bits into `out` (uint16), as `pull_exact` does."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder, signature, args)
        states, counts, words, at, steps, out = lanes.pointers

        def step(state: Any, i: Any, place: Any) -> tuple[Any, Any]:
            count = lanes.load(counts, i, _I8)
            ones = builder.sub(builder.shl(_splat(_I32, 1), count), _splat(_I32, 1))
            lanes.store(builder.and_(state, ones), out, i, _I16)
            return lanes.refill(builder.lshr(state, count), words, place)

        return lanes.loop(states, steps, at, False, True, step)

    return types.int64(states, counts, words, at, steps, out), codegen
