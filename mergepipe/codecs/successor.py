"""`successor`: a block as what changed since the version before, readable coarsely all the same.

Layer 0 (coarse_change.py) is the coarse layer over the block that both versions were trained from,
as its difference from that of the version before. Layer 1 is both layers of `residual` over the
version before, and the block is whole by it alone; no budget reads that coarse layer, so there is
no more of it than helps the exact one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.codecs.coarse import CoarseHead, coarse_symbols
from mergepipe.codecs.coarse_change import ANCHOR_BYTES, decode_change, encode_change
from mergepipe.codecs.exact import decode_exact
from mergepipe.codecs.floats import FORMATS
from mergepipe.codecs.marks import mark_block
from mergepipe.codecs.pieces import Pieces, octets
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.residual import LARGE_SHARE, encode_marked, survey, weights
from mergepipe.codecs.statistics import BlockStatistics
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.errors import CodecError

_LENGTH_BYTES = 4
# Trits know nothing of the base's exponent, which says best where a small step is none: with 0.35
# of them a day of 2% takes 1.28 times as much, and those of 10 to 100% the same within 0.7%.
_SHARE_IN_EXACT = 0.02


class Anchor(Struct, frozen=True):
    """The block that two versions were trained from: what to call it (32 bytes), and its bytes."""

    name: bytes
    raw: Buffer


class Successor:
    """Two layers: a coarse layer after another, and a whole difference from the version before."""

    name = "successor"
    tag = 7
    version = 1
    layers = 2
    needs_base = True

    def supports(self, dtype: DType) -> bool:
        """bf16, fp16 and float32."""
        return dtype in FORMATS

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """Both payloads for a version before that is itself what both were trained from."""
        if base is None:
            raise CodecError("successor needs the base block")
        anchor = Anchor(bytes(ANCHOR_BYTES), base)
        return self.encode_after(raw, base, anchor, dtype, workspace)[0]

    def encode_after(
        self, raw: Buffer, base: Buffer, anchor: Anchor, dtype: DType, workspace: Workspace
    ) -> tuple[tuple[Buffer, ...], BlockStatistics]:
        """Both payloads, and how the block differs from the anchor's.

        `base`: the version before, which is to have a coarse layer over the same anchor.
        """
        before = survey(base, anchor.raw, dtype, LARGE_SHARE, workspace, exactly=False).packed
        surveyed = survey(raw, anchor.raw, dtype, LARGE_SHARE, workspace, exactly=True)
        statistics = surveyed.statistics()  # before the workspace is used again
        head = CoarseHead(surveyed.magnitude, surveyed.threshold)
        layer = encode_change(head, anchor.name, before, surveyed.packed, workspace)
        # Nobody reads this coarse layer but its exact layer: what is large is decided quickly.
        changed = weights(raw, base, dtype, workspace)
        coarse, exact = encode_marked(mark_block(changed, _SHARE_IN_EXACT, workspace), workspace)
        whole = b"".join((len(coarse).to_bytes(_LENGTH_BYTES, "little"), coarse, exact))
        return (layer, whole), statistics

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Of both layers or the last. Raises CodecError for no block of `len(out)` bytes."""
        if not 1 <= len(layers) <= 2 or base is None:
            raise CodecError("successor needs its last layer and the base block")
        pieces = Pieces(layers[-1])
        coarse = pieces.take(pieces.number())
        decode_exact((coarse.data, pieces.rest().data), octets(base), octets(out), workspace)


def coarse_after(
    payloads: Sequence[Buffer], anchor: bytes, count: int, workspace: Workspace
) -> npt.NDArray[np.uint8]:
    """The packed trits (trits.py) of `count` weights by a chain of coarse layers, own first.

    The last is `residual`'s, over the block called `anchor`. Raises CodecError.
    """
    packed = coarse_symbols(payloads[-1], count, workspace)
    for payload in reversed(payloads[:-1]):
        packed = decode_change(payload, anchor, packed, workspace)
    return packed
