"""64 interleaved rANS states as vectors: symbols and raw bits pushed to and pulled from one stream.

rANS (Duda, arXiv:1311.2540) with 32-bit states and 16-bit words. Weight i belongs to lane i % 64,
so one step moves 64 neighbouring weights at once: four vectors of 16 lanes. LLVM's loop
vectoriser cannot compact the words that some lanes emit, so these loops are written as LLVM
vector code directly. It is generic vector code: LLVM lowers it to AVX-512, AVX2, NEON or plain
instructions, and every one of them gives the same bytes, since all arithmetic is exact.

Encoding goes backwards (last step first) and writes words forwards; decoding goes forwards and
reads words backwards. A step of decoding pulls at most 64 words, so `STEP_WORDS` words of slack
before the first word make it safe to check the position once a step.

The kernels trust their callers for array lengths (a multiple of 64 elements) and contexts;
nothing that comes from a payload is used as an index except through tables the caller built.
"""

from typing import Any

from mergepipe.kernels.declared import deferred, kernel
from mergepipe.kernels.signatures import int64, read_only, uint8, uint16, uint32

WIDTH = 16
VECTORS = 4
LANES = WIDTH * VECTORS
STEP_WORDS = LANES
SLACK_WORDS = 32  # after the last word: reads of 16 lanes may reach that far
INITIAL_STATE = 1 << 16
EXACT_BITS = 11
COARSE_BITS = 12

_CODE = "mergepipe.codecs.lane_code"
_push_symbols = deferred(_CODE, "push_symbols")
_pull_symbols = deferred(_CODE, "pull_symbols")
push_bits = deferred(_CODE, "push_bits")
pull_bits = deferred(_CODE, "pull_bits")


@kernel()
def push_exact(states: Any, index: Any, table: Any, words: Any, at: Any, steps: Any) -> Any:
    """Encode `steps * 64` symbols, last first; returns the position after the words written.

    states  uint32[64], changed       index  uint16: entry of `table` for each symbol
    table   uint32: frequency << 16 | start, of 2^EXACT_BITS
    words   uint16, written from `at`; needs room for steps * 64 + 16 words
    """
    return _push_symbols(EXACT_BITS, states, index, table, words, at, steps)


@kernel(
    int64(uint32[::1], read_only(uint16[::1]), read_only(uint32[::1]), uint16[::1], int64, int64)
)
def push_coarse(states: Any, index: Any, table: Any, words: Any, at: Any, steps: Any) -> Any:
    """`push_exact` with frequencies of 2^COARSE_BITS."""
    return _push_symbols(COARSE_BITS, states, index, table, words, at, steps)


@kernel()
def pull_exact(
    states: Any, rows: Any, table: Any, words: Any, at: Any, steps: Any, out: Any
) -> Any:
    """Decode `steps * 64` symbols; returns the new position, or -1 if the words run out.

    rows    uint8: row of `table` for each symbol
    table   uint32[rows << EXACT_BITS]: frequency - 1, slot - start, symbol (high to low; 8 bits)
    words   uint16, read backwards from `at`, STEP_WORDS before the first and SLACK_WORDS after
    out     uint8
    """
    return _pull_symbols(EXACT_BITS, states, rows, table, words, at, steps, out)


@kernel(
    int64(
        uint32[::1],
        read_only(uint8[::1]),
        read_only(uint32[::1]),
        read_only(uint16[::1]),
        int64,
        int64,
        uint8[::1],
    )
)
def pull_coarse(
    states: Any, rows: Any, table: Any, words: Any, at: Any, steps: Any, out: Any
) -> Any:
    """`pull_exact` with frequencies of 2^COARSE_BITS."""
    return _pull_symbols(COARSE_BITS, states, rows, table, words, at, steps, out)
