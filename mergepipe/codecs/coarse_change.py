"""Layer 0 of `successor`: a coarse layer as its difference from that of the version before.

Payload, little-endian (docs/format-codecs.md):

    u8   version of the layout, 2        u8   1 if changes follow, 0 if every trit is as before
    f32  magnitude                       f32  threshold
    32 bytes: the id of the block that both coarse layers lie over
    4 x 3 u16  for classes 1..4: what appears, vanishes, turns, of 65535
    u32  length of the class frame       zstd frame: two chunks' classes a byte, 5 * first + second
    64 u32  rANS states                  u16  words, to the end
"""

import numpy as np
import numpy.typing as npt

from mergepipe.codecs import lanes
from mergepipe.codecs.change_tables import (
    ROWS,
    SHARES,
    change_decoder,
    change_into,
    changes,
    changes_into,
    model_changes,
    rows_into,
)
from mergepipe.codecs.coarse import (
    CoarseHead,
    read_classes,
    read_coded,
    read_head,
    write_coded,
    write_head,
)
from mergepipe.codecs.coarse_tables import ROW
from mergepipe.codecs.pieces import Pieces
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.trits import STRIPE
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError

LAYOUT = 2
ANCHOR_BYTES = 32


def encode_change(
    head: CoarseHead,
    anchor: bytes,
    before: npt.NDArray[np.uint8],
    packed: npt.NDArray[np.uint8],
    workspace: Workspace,
) -> bytes:
    """The payload.

    anchor         ANCHOR_BYTES that say what both lie over; a reader compares them
    before, packed  as in trits.py: the version before, and this one
    """
    table = changes()
    symbols = workspace.array("change symbols", packed.size, np.uint8)
    classes = np.empty(packed.size // STRIPE, np.uint8)
    changes_into(before, packed, table.symbols, symbols, classes)
    if not classes.any():
        return write_head(head, LAYOUT, 0) + anchor
    rows = workspace.array("rows", packed.size, np.uint8)
    rows_into(before, classes, table.kinds, rows)
    index = workspace.array("index", packed.size, np.uint16)
    shares = np.empty(SHARES, np.uint16)
    entries = np.empty(ROWS * ROW, np.uint32)
    model_changes(symbols, rows, index, shares, entries)
    begin = write_head(head, LAYOUT, 1) + anchor
    return write_coded(begin, shares, classes, index, entries, workspace)


def decode_change(
    payload: Buffer, anchor: bytes, before: npt.NDArray[np.uint8], workspace: Workspace
) -> npt.NDArray[np.uint8]:
    """The packed trits (trits.py) after those of the version before. Raises CodecError."""
    pieces = Pieces(payload)
    _, coded = read_head(pieces, LAYOUT)
    if pieces.take(ANCHOR_BYTES).tobytes() != anchor:
        raise CodecError("a coarse layer lies over another block than the one under it")
    if not coded:
        if pieces.rest().size:
            raise CodecError("a coarse payload without changes has bytes left over")
        return before.copy()
    shares = pieces.take(2 * SHARES).copy().view(np.uint16)
    classes, rows = read_classes(pieces, before.size // STRIPE)
    table = changes()
    rows_into(before, classes, table.kinds, rows)
    decoder = workspace.array("change table", ROWS << lanes.COARSE_BITS, np.uint32)
    if not change_decoder(shares, decoder):
        raise CodecError("a coarse payload has shares past the whole")
    symbols = workspace.array("change symbols", before.size, np.uint8)
    read_coded(pieces, rows, decoder, symbols, workspace)
    packed = np.empty(before.size, np.uint8)
    change_into(before, symbols, table.results, packed)
    return packed
