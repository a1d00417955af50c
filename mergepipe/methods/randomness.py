"""Random masks as a function of (seed, tensor, expert, element index), the same everywhere.

The generator is counter-based, in the manner of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (SC'11): the element's index is encrypted, so any element's number is had without the ones
before it. The rounds are the 32-bit mixer "lowbias32" (multiplications and shifts that every vector
unit and torch have), twice, with key words before each:

    x = mix(mix(low32(index) ^ k0) ^ k1 ^ mix(high32(index) ^ k2));  keep where x < limit

where k0, k1, k2 come from splitmix64 of seed, tensor key and expert index, and limit is
density * 2^32 rounded. `eager.masks` and `fused.masks` hold the two implementations.
"""

from hashlib import blake2b

FIRST_MULTIPLIER = 0x7FEB352D
SECOND_MULTIPLIER = 0x846CA68B
KEEP_ALL = 1 << 32

_WORD = (1 << 64) - 1


def tensor_key(name: str) -> int:
    """64-bit key of a tensor's name, for `Unit.tensor_key`."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def mask_keys(seed: int, tensor_key: int, expert: int) -> tuple[int, int, int]:
    """The three 32-bit key words of one expert's mask over one tensor."""
    state = _splitmix(_splitmix(_splitmix(seed & _WORD) ^ (tensor_key & _WORD)) ^ expert)
    more = _splitmix(state)
    return state & 0xFFFFFFFF, state >> 32, more & 0xFFFFFFFF


def keep_limit(density: float) -> int:
    """Keep an element where its 32-bit number is below this; KEEP_ALL needs no mask."""
    return min(KEEP_ALL, max(0, round(density * KEEP_ALL)))


def mix32(x: int) -> int:
    """One 32-bit word through the mixer; bijective."""
    x ^= x >> 16
    x = x * FIRST_MULTIPLIER & 0xFFFFFFFF
    x ^= x >> 15
    x = x * SECOND_MULTIPLIER & 0xFFFFFFFF
    return x ^ x >> 16


def element_number(keys: tuple[int, int, int], index: int) -> int:
    """The 32-bit number of one element: the definition that the vector versions must equal."""
    inner = mix32(index & 0xFFFFFFFF ^ keys[0])
    return mix32(inner ^ keys[1] ^ mix32(index >> 32 & 0xFFFFFFFF ^ keys[2]))


def _splitmix(x: int) -> int:
    # Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA'14).
    x = x + 0x9E3779B97F4A7C15 & _WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _WORD
    return x ^ x >> 31
