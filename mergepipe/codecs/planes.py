# How blocks are encoded

A block is the raw little-endian bytes of a piece of one tensor. A codec turns it into one payload
per layer; the pack record around a payload (format.md) holds the codec's tag and version, the
block's raw length and its base block, so payloads repeat none of that. A block's identity is the
hash of its raw bytes, never of a payload: codecs can change without changing history.

| tag | name | layers | base | for |
|---|---|---|---|---|
| 0 | `raw` | 1 | no | anything; never expands |
| 1 | `zstd` | 1 | no | data that repeats |
| 2 | `bitx` | 1 | yes | 16-bit floats, as ZipLLM stores them; to measure against |
| 3 | `residual` | 2 | yes | fine-tunes in bf16, fp16, float32 |
| 4 | `split` | 1 | no | floats and 8-bit types without a base |
| 5 | `planes` | 1 | no | any width |
| 6 | `delta` | 1 | yes | any width: integers, fp8, float64 |

Rules for all of them:

* A tag is never given to another codec. A release decodes every `(tag, version)` ever written
  (`tests/codecs/golden` holds payloads of each); an unknown pair is an error that says so. All
  versions are 1 now.
* Numbers are little-endian. A decoder knows the block's length before it begins, and checks what a
  payload declares against that before it allocates anything. A payload that does not fit exactly
  (too short, bytes left over, a stream that does not end where it began) is a `CodecError`.
* The same block, base and codec give the same bytes on every CPU and thread: all arithmetic that
  reaches a payload is in integers, or in single float operations that IEEE 754 defines exactly.
  (Frames are as deterministic as the zstd library that makes them.)

## The stream: 64 rANS states

`residual` and `split` code symbols with rANS (Duda, arXiv:1311.2540): 32-bit states, 16-bit words,
tables that are fixed within a payload. Weight *i* belongs to state *i* mod 64, so that vector code
moves 64 neighbours at once. A stream in a payload is the 64 states the encoder ended with (256
bytes) and then its words in the order they were written. The decoder takes words from the end, one
step of 64 weights after the other. Within a step the four sixteens of states follow each other,
states 0 to 15 first: those of a sixteen that are below 2^16 after their symbol, *k* of them, take
the last *k* words that are left, the lowest state the first of these. The stream must end before
its first word with every state at 65536, which is where the encoder began: almost all damage is
caught here.

Raw bits travel in the same stream: pulling *n* bits (n <= 16) from a state is taking its low *n*
bits and shifting it.

A frequency table is described in nibbles. Each symbol's frequency, scaled to 2^11 (2^12 in
`split`), is kept to four significant bits and becomes a code: 0..15 stand for themselves, then
eight codes an octave for the middle of their range. A nibble 0..13 is the difference to the code
before, minus 7; 14 is followed by the code itself in two nibbles, high one first; 15 ends the row,
and the rest of it is 0. Both sides scale what was read to the total again (`tables.normalise`), so
that they have the same table. Nibbles are packed two to a byte, the first in the low half.

## residual, layer 0: coarse

For every weight one trit: 0, or the sign of its change where the change (float32, weight minus
base) is among the block's largest 0.35. What "large" means is a threshold on the upper 16 bits of
the change's size, the one nearest to that share.

    u8   layout, 1                      u8   1 if trits follow, 0 if all are 0
    f32  magnitude                      f32  threshold
    u16  x 24                           for classes 1..4: bytes with 0..5 non-zero trits, of 65535
    u32  length of the next             zstd frame: classes of two chunks a byte, 5 * first + second
    u32  x 64, u16 x n                  stream

The estimate of a weight's change is 0, minus or plus the magnitude: the mean size of the block's
large changes. A payload whose second byte is 0 ends after the threshold.

Trits are packed five to a byte in base 3. A chunk is 160 weights and 32 bytes; byte *j* holds the
trits of weights *j*, 32 + *j*, ... 128 + *j* of the chunk, the first in the units. Chunks come in
pairs (64 bytes, one step of the stream); weights past the end of the block have trit 0. Every chunk
has a density class by its number of non-zero trits: none, 1..13, 14..40, 41..80, 81..160. The class
chooses the table (2^12) of its bytes; in class 0 every byte is 0 and costs nothing. A table follows
from six numbers: the share of bytes with *k* non-zero trits, divided evenly among the bytes that
have as many.

## residual, layer 1: exact

    u8   format: 1 bf16, 2 fp16, 3 float32     u8   flags: 1 split tables, 2 stored
    u8   pivot exponent                        u8   bytes after the last whole weight
    u32  nibbles of tables                     u32 x 2  lengths of the two low byte planes
    nibbles; stream; low planes; the bytes after the last whole weight

With flag 2 the block itself follows the fourth byte and layer 0 is not needed.

(Exponents here are the stored, biased ones, and 1 for denormals.) The upper 16 bits of weight and
base become integers that grow with the value. From the pivot
exponent up, an integer is the bit pattern less (pivot - 1) << mantissa bits. Below the pivot it is
the value divided by the spacing of floats at the pivot, cut to a whole number. (The pivot is the
exponent at which that spacing is the magnitude / 8, rounded down to a power of two.) The sign makes
it negative.

The *distance* is the difference of weight's and base's integer. The symbol is 0 if the 16 bits are
the base's; distance + 1 up to distance 15; above, 17 + 8 * (octave - 4) + the next three bits of
the distance, whose remaining octave - 3 bits are raw. Where the trit is 0 and the symbol above 1,
one more raw bit, above those, says whether the weight is below its base; else the trit says it. A
second field of raw bits holds what the cut lost: the low (pivot - exponent) bits of a weight whose
exponent is below the pivot, all 16 of one that the cut made 0, none if the symbol is 0.

The table (2^11, 128 symbols a row) has a row for each of twelve kinds: the base's exponent above
the pivot (0 to 5, at most), and 6 more if the trit is not 0. With flag 1 there are twelve for each
density class, in order of class. The encoder takes the smaller.

The stream is in tiles of 5,120 weights: the symbols of a tile, then its first, then its second raw
field, each padded to whole pairs of chunks with what costs nothing.

float32: the above is done to the upper halves; the lower two bytes are XORed with the base's and
kept as two planes, byte 0 first, each a zstd frame if that is shorter.

## split

    u8   kind: 1 bytes, 2 bf16, 3 fp16, 4 float32       u8   bit k: plane k is a frame
    u16  nibbles                                        u32  length of each plane (0, 1, 1, 3 of them)
    nibbles; states; planes; words; the bytes after the last whole element

Symbols (one table of 2^12): the exponent of bf16 and float32, the upper byte of fp16, the byte of
8-bit types. Planes: sign and upper seven mantissa bits of bf16 and float32, then float32's middle
and low byte; the low byte of fp16. A plane is a frame only if that saves a twentieth: most are
noise, and copying is faster.

## bitx, planes, delta, zstd

`zstd` is one frame that declares its size. `bitx`: u32 length of the first frame, the frame of bits
7..14 of the XOR with the base, the frame of bit 15 and bits 0..6 (bit 15 on top), the odd last
byte.

`planes` and `delta`: u8 (low half: 0 no base, 1 difference of floats, 2 of integers, 3 XOR; high
half: bytes of an element, less 1), u32 length of each plane, the planes (plane *k* is byte *k* of
every element, a zstd frame or, at its own length, as it is), the bytes after the last whole
element. Differences are zigzagged; floats are first mapped from sign and magnitude to two's
complement.
