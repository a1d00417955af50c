"""The numbers of a diff: sums over the elements of two tensors of equal shape, part by part."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from mergepipe.dtypes import DType, Kind, dtype_of
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId
from mergepipe.objects.records import Tensor
from mergepipe.packs.blocks import BlockReader
from mergepipe.values import decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Blocks of one part: enough for large reads, few enough for memory and balance.
_PART_BYTES = 4 << 20
# Elements brought to float64 at a time; a multiple of 8, so that sub-byte dtypes begin on a byte.
_STEP = 1 << 18


class Differences(Struct):
    """Sums over some elements of a and b. Squares and products are added exactly (math.fsum)."""

    elements: int = 0
    changed: int = 0
    nonfinite: int = 0
    bytes_differ: bool = False
    raw_bytes: int = 0
    max_abs: float | None = 0.0
    _squares_a: list[float] = field(default_factory=list)
    _squares_b: list[float] = field(default_factory=list)
    _products: list[float] = field(default_factory=list)
    _squares: list[float] = field(default_factory=list)

    def add(self, other: "Differences") -> None:
        """Add the sums of other elements."""
        self.elements += other.elements
        self.changed += other.changed
        self.nonfinite += other.nonfinite
        self.bytes_differ |= other.bytes_differ
        self.raw_bytes += other.raw_bytes
        self.note_largest(other.max_abs)
        self._squares_a += other._squares_a
        self._squares_b += other._squares_b
        self._products += other._products
        self._squares += other._squares

    def note(self, squares_a: float, squares_b: float, products: float, squares: float) -> None:
        """Add sums of a^2, b^2, ab and (b - a)^2."""
        self._squares_a.append(squares_a)
        self._squares_b.append(squares_b)
        self._products.append(products)
        self._squares.append(squares)

    def note_largest(self, max_abs: float | None) -> None:
        """Take note of a magnitude of b - a (None: beyond float64)."""
        if max_abs is None or self.max_abs is None or not math.isfinite(max_abs):
            self.max_abs = None
        else:
            self.max_abs = max(self.max_abs, max_abs)

    @property
    def changed_share(self) -> float:
        """Share of the elements that differ."""
        return self.changed / self.elements if self.elements else 0.0

    @property
    def l2(self) -> float | None:
        """Norm of b - a; None beyond float64."""
        return _root(self._squares)

    @property
    def relative_l2(self) -> float | None:
        """Norm of b - a over that of a; 0 for no difference, None where a is zero."""
        if self.changed == 0:
            return 0.0
        norm, of = self.l2, _root(self._squares_a)
        return None if norm is None or not of else norm / of

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between a and b; 1 for no difference, None where one is zero."""
        if self.changed == 0:
            return 1.0
        norm_a, norm_b = _root(self._squares_a), _root(self._squares_b)
        product = _sum(self._products)
        if not norm_a or not norm_b or product is None:
            return None
        return max(-1.0, min(1.0, product / norm_a / norm_b))


class Part(Struct, frozen=True):
    """Elements `begin` to `end` of two tensors of equal shape."""

    a: Tensor
    b: Tensor
    begin: int
    end: int


def comparable(a: Tensor, b: Tensor) -> bool:
    """Whether elements pair up."""
    return a.shape == b.shape


def parts(a: Tensor, b: Tensor) -> Iterator[Part]:
    """Two tensors of equal shape as parts that hold whole blocks of `a` where elements allow it."""
    bits = dtype_of(a.dtype).bits
    count = math.prod(a.shape)
    if bits % 8 == 0 and a.block_bytes * 8 % bits == 0:
        each = a.block_bytes * 8 // bits
        each *= max(1, _PART_BYTES // a.block_bytes)
    else:
        each = _PART_BYTES * 8 // bits // 8 * 8
    for begin in range(0, count, each):
        yield Part(a, b, begin, min(count, begin + each))


def count_blocks_changed(a: Tensor, b: Tensor) -> int:
    """How many blocks of `b` are not at the same place of `a`."""
    before, after = a.block_ids(), b.block_ids()
    if a.block_bytes != b.block_bytes:
        return len(after)
    return sum(
        number >= len(before) or before[number] != block for number, block in enumerate(after)
    )


def compare_part(part: Part, reader: BlockReader) -> Differences:
    """The sums of one part. Blocks that both sides hold, or lean on, are read and decoded once."""
    span_a, span_b = _blocks(part.a, part), _blocks(part.b, part)
    wanted = list(dict.fromkeys((*span_a.blocks, *span_b.blocks)))
    raws = dict(zip(wanted, reader.read(wanted), strict=True))
    dtype_a, dtype_b = dtype_of(part.a.dtype), dtype_of(part.b.dtype)
    differences = Differences(raw_bytes=span_a.length)
    for begin in range(part.begin, part.end, _STEP):
        end = min(part.end, begin + _STEP)
        raw_a, same_a = span_a.bytes_of(begin, end, raws)
        raw_b, same_b = span_b.bytes_of(begin, end, raws)
        equal = dtype_a == dtype_b and same_a == same_b
        _compare(raw_a, dtype_a, raw_b, dtype_b, equal, end - begin, differences)
    return differences


class _Span(Struct, frozen=True):
    """The blocks of one tensor that hold a part."""

    tensor: Tensor
    bits: int
    first: int
    blocks: tuple[BlockId, ...]
    length: int

    def bytes_of(
        self, begin: int, end: int, raws: dict[BlockId, memoryview]
    ) -> tuple[memoryview, tuple[object, ...]]:
        """Bytes of elements `begin` to `end`, and what tells the same bytes without looking."""
        start, stop = begin * self.bits // 8, -(-end * self.bits // 8)
        size = self.tensor.block_bytes
        pieces, marks = [], []
        at = start
        while at < stop:
            number = at // size
            block = self.blocks[number - self.first]
            low, high = at - number * size, min(stop - number * size, size)
            if len(raws[block]) < high:
                raise Corruption(f"block {block.hex()} is shorter than its tensor needs")
            pieces.append(raws[block][low:high])
            marks.append((block, low, high))
            at = number * size + high
        whole = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        return whole, tuple(marks)


def _blocks(tensor: Tensor, part: Part) -> _Span:
    bits = dtype_of(tensor.dtype).bits
    start, stop = part.begin * bits // 8, -(-part.end * bits // 8)
    first, last = start // tensor.block_bytes, -(-stop // tensor.block_bytes)
    blocks = tuple(tensor.block_ids()[first:last])
    if len(blocks) != last - first:
        raise Corruption(f"a tensor of shape {list(tensor.shape)} lacks blocks")
    return _Span(tensor, bits, first, blocks, stop - start)


def _compare(
    raw_a: memoryview,
    dtype_a: DType,
    raw_b: memoryview,
    dtype_b: DType,
    equal: bool,
    elements: int,
    found: Differences,
) -> None:
    import numpy as np

    found.elements += elements
    complex_ = Kind.COMPLEX in (dtype_a.kind, dtype_b.kind)
    a = _numbers(dtype_a, raw_a, elements, complex_)
    finite = np.isfinite(a)
    if equal:
        found.nonfinite += _lacking(finite, complex_)
        a = np.where(finite, a, 0.0)
        with np.errstate(over="ignore"):
            squares = float(np.sum(a * a))
        found.note(squares, squares, squares, 0.0)
        return
    b = _numbers(dtype_b, raw_b, elements, complex_)
    changed = _changed(raw_a, dtype_a, raw_b, dtype_b, a, b, elements)
    found.changed += changed
    found.bytes_differ |= changed > 0 or dtype_a != dtype_b
    finite = np.logical_and(finite, np.isfinite(b))
    if not finite.all():
        if complex_:  # both parts of a number, or neither
            finite = np.repeat(finite.reshape(-1, 2).all(axis=1), 2)
        found.nonfinite += _lacking(finite, complex_)
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = b - a
        found.note(
            float(np.sum(a * a)),
            float(np.sum(b * b)),
            float(np.sum(a * b)),
            float(np.sum(difference * difference)),
        )
        if complex_:
            difference = np.hypot(difference[0::2], difference[1::2])
        found.note_largest(float(np.max(np.abs(difference), initial=0.0)))


def _numbers(dtype: DType, raw: memoryview, elements: int, complex_: bool) -> "NDArray[np.float64]":
    """Elements as float64; complex ones as two of them each."""
    import numpy as np

    values: Any = decode(dtype, raw)[:elements]
    if complex_:
        with np.errstate(invalid="ignore"):  # a signalling NaN
            return values.astype(np.complex128).view(np.float64)  # type: ignore[no-any-return]
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64, copy=False)  # type: ignore[no-any-return]


def _lacking(finite: "NDArray[np.bool_]", complex_: bool) -> int:
    whole: Any = finite.reshape(-1, 2).all(axis=1) if complex_ else finite
    return int(whole.size - whole.sum())


def _changed(
    raw_a: memoryview,
    dtype_a: DType,
    raw_b: memoryview,
    dtype_b: DType,
    a: "NDArray[np.float64]",
    b: "NDArray[np.float64]",
    elements: int,
) -> int:
    """Elements whose bits differ; between two dtypes, whose values do (NaN equals NaN)."""
    import numpy as np

    if dtype_a == dtype_b and dtype_a.bits % 8 == 0:
        unsigned = np.dtype(f"<u{dtype_a.bits // 8}")
        return int(
            np.count_nonzero(np.frombuffer(raw_a, unsigned) != np.frombuffer(raw_b, unsigned))
        )
    if dtype_a == dtype_b:
        return int(np.count_nonzero(a.view(np.uint64) != b.view(np.uint64)))
    differs = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if differs.size != elements:
        differs = differs.reshape(-1, 2).any(axis=1)
    return int(np.count_nonzero(differs))


def _sum(terms: list[float]) -> float | None:
    try:
        total = math.fsum(terms)
    except (OverflowError, ValueError):
        return None
    return total if math.isfinite(total) else None


def _root(terms: list[float]) -> float | None:
    total = _sum(terms)
    return None if total is None else math.sqrt(total)
