"""Sums that earlier merges had half way: what a merge need not read again when one expert changes.

Of methods that are plain sums, in the order of the recipe, the accumulator before the last inputs
is a function of the first ones alone. Kept, it stands for them bit for bit: it is the very float32
that the kernel would have, and goes in as one term of weight 1. A sum in another order would round
otherwise, so only the inputs before the first that changed are saved (docs/design/planning.md).

The room for them is `merge.cache`, nothing unless it is set; the oldest go first, and gc removes
all. They lie under `cache/sums/`, each with its hash, and losing one costs time, no more.
"""

import struct

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3
from msgspec import Struct, field
from msgspec.structs import replace

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.dtypes import F32
from mergepipe.engine.work import Input, Making, Step, Summed, Unchanged, Weights
from mergepipe.methods.sums import plain_divisor, weight_sum
from mergepipe.methods.terms import Delta, ExpertScalars, Full, Same, Term, Unit, view_bytes
from mergepipe.values import decode

SUMS = "cache/sums/"
_VERSION = b"mergepipe partial sum 1\0"
_HASH_BYTES = 32
_LEVEL = 1
_FEWEST = 2  # of one input, it is the input
_METHODS = ("linear", "task_arithmetic")
_PLAIN = ExpertScalars()
Floats = npt.NDArray[np.float32]


class PartialSums(Struct):
    """The sums of one repository; used from one thread. `room_bytes`: for all of them together."""

    files: LocalByteStore
    room_bytes: int
    _sizes: dict[str, int] = field(default_factory=dict)
    _oldest: list[str] = field(default_factory=list)
    read_bytes: int = 0

    def __post_init__(self) -> None:
        sizes = {key: self.files.size(key) or 0 for key in self.files.list(SUMS)}
        self._sizes = sizes
        self._oldest = sorted(sizes, key=lambda key: -(self.files.modified(key) or 0.0))

    def shortened(self, step: Step) -> Step:
        """A step that begins with the longest sum that is known, and says which are to be kept."""
        making = step.making
        if not is_plain_sum(making):
            return step
        most = len(making.inputs) - 1
        keys = {count: _key(making, count, step.length) for count in range(_FEWEST, most + 1)}
        for count in range(most, _FEWEST - 1, -1):
            data = self._get(keys[count], step.length)
            if data is not None:
                wanted = tuple((more, keys[more]) for more in range(count + 1, most + 1))
                return replace(step, making=_after(making, count, data), sums=wanted)
        return replace(step, sums=tuple(keys.items()))

    def put(self, key: str, stored: bytes) -> None:
        """Keep what `packed_sums` made, as far as there is room."""
        if key in self._sizes or not self._make_room(len(stored)):
            return
        self._sizes[key] = len(stored)
        self.files.put(key, stored)

    def _get(self, key: str, length: int) -> bytes | None:
        if key not in self._sizes:
            return None
        stored = self.files.get(key)
        if stored is None or blake3(stored[_HASH_BYTES:]).digest() != stored[:_HASH_BYTES]:
            return None
        try:
            planes = zstandard.ZstdDecompressor().decompress(
                stored[_HASH_BYTES:], max_output_size=4 * length
            )
        except zstandard.ZstdError:
            return None
        if len(planes) != 4 * length:
            return None
        self.read_bytes += len(stored)
        if key in self._oldest:
            self._oldest.remove(key)  # in use: not to make room for others
        return np.frombuffer(planes, np.uint8).reshape(4, length).T.tobytes()

    def _make_room(self, size: int) -> bool:
        while sum(self._sizes.values()) + size > self.room_bytes:
            if not self._oldest:
                return False
            oldest = self._oldest.pop()
            self._sizes.pop(oldest, None)
            self.files.delete(oldest)
        return True


def packed_sums(step: Step, unit: Unit) -> list[tuple[str, bytes]]:
    """The sums that are to be kept of a unit that is at hand: key, and what `PartialSums` keeps."""
    if not step.sums:
        return []
    first = step.making.inputs[0]
    done = first.count if isinstance(first, Summed) else 0
    deltas = step.task.method != "linear"
    base = None if unit.base is None else _values(unit.base)
    total = np.zeros(unit.length, np.float32)
    ends = dict(step.sums)
    kept = []
    pairs = list(zip(unit.terms, unit.scalars.experts, strict=True))
    # What overflows is told by the kernel's result.
    with np.errstate(all="ignore"):
        if done:
            total += _values(pairs.pop(0)[0])
        for term, expert in pairs:
            _add(total, term, expert.weight, base, deltas=deltas)
            done += 1
            if done in ends:
                kept.append((ends[done], _packed(total)))
    return kept


def _add(total: Floats, term: Term, weight: float, base: Floats | None, *, deltas: bool) -> None:
    """What the kernels do for one term, operation by operation."""
    if isinstance(term, Same) and deltas:
        return
    assert base is not None or isinstance(term, Full)
    values = base if isinstance(term, Same) else _values(term)
    assert values is not None
    if deltas:
        assert base is not None
        values = values - base
    total += values * np.float32(weight)


def _packed(total: Floats) -> bytes:
    # By byte planes: sums of 16-bit values end in zeros.
    planes = total.astype("<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(planes)
    return blake3(packed).digest() + packed


def is_plain_sum(making: Making) -> bool:
    """Whether a range is a sum of weights as they are stored, in float32, of three or more.

    No election, trim or mask, no estimate, no factors, no line under it, nothing of 64 bits.
    """
    task = making.task
    terms = [*making.inputs, *([] if making.base is None else [making.base])]
    return (
        task.method in _METHODS
        and len(making.inputs) > _FEWEST
        and task.dtype.bits <= F32.bits
        and not task.scalars.elect
        and all(replace(expert, weight=1.0) == _PLAIN for expert in task.scalars.experts)
        and all(_is_plain(term) for term in terms)
    )


def _is_plain(one: Input) -> bool:
    if isinstance(one, Weights):
        return not one.delta and one.dtype.bits <= F32.bits
    return isinstance(one, Unchanged)


def _after(making: Making, count: int, data: bytes) -> Making:
    """The same with one term for the first `count` inputs; the divisor stays that of all."""
    deltas = making.task.method != "linear"
    whole = making.task.scalars
    scalars = replace(
        whole,
        experts=(_PLAIN, *whole.experts[count:]),
        divisor=plain_divisor(whole) if deltas else weight_sum(whole),
    )
    task = replace(making.task, scalars=scalars)
    return Making(task, making.base, (Summed(data, count, deltas), *making.inputs[count:]))


def _key(making: Making, count: int, length: int) -> str:
    task = making.task
    parts = [_VERSION, task.method.encode(), b"\0", struct.pack("<QQ", count, length)]
    parts.append(_input(making.base))
    for expert, one in zip(task.scalars.experts[:count], making.inputs, strict=False):
        parts += [struct.pack("<f", expert.weight), _input(one)]
    name = blake3(b"".join(parts)).hexdigest()
    return f"{SUMS}{name[:2]}/{name}"


def _input(one: Input | None) -> bytes:
    if not isinstance(one, Weights):
        return b"-"  # nothing, or what adds no change of its own
    pieces = [struct.pack("<32sQQ", piece.block, piece.begin, piece.end) for piece in one.pieces]
    return one.dtype.name.encode() + len(pieces).to_bytes(8, "little") + b"".join(pieces)


def _values(term: Term) -> Floats:
    assert isinstance(term, Full | Delta)
    values = decode(term.dtype, view_bytes(term.data).data)
    return values.astype(np.float32, copy=False)
