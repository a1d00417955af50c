"""`residual`: a block as its distance from the base block, in two layers.

Layer 0 (coarse.py) says of every weight whether its change is among the block's largest, and which
way: a merge under a budget reads that alone. Layer 1 (exact.py) is all that is left.
"""

from collections.abc import Sequence

from mergepipe.codecs.coarse import CoarseHead, encode_coarse
from mergepipe.codecs.estimates import residual_bytes
from mergepipe.codecs.exact import decode_exact, encode_exact
from mergepipe.codecs.floats import FORMATS, float_format
from mergepipe.codecs.marks import Marks
from mergepipe.codecs.pieces import octets
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.statistics import BlockStatistics, Survey, survey_block
from mergepipe.codecs.weights import Weights, weights_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.errors import CodecError

__all__ = ["LARGE_SHARE", "BlockStatistics", "Residual", "analyse"]

# docs/design/coarse-layer.md: at 0.35 a tenth of the bytes keeps nine tenths of a merge's gain.
LARGE_SHARE = 0.35


def analyse(
    raw: Buffer,
    base: Buffer,
    dtype: DType,
    workspace: Workspace,
    large_share: float = LARGE_SHARE,
) -> BlockStatistics:
    """The statistics of a block against a base without encoding it; bf16, fp16 and float32."""
    return survey(raw, base, dtype, large_share, workspace, exactly=True).statistics()


def survey(
    raw: Buffer,
    base: Buffer,
    dtype: DType,
    large_share: float,
    workspace: Workspace,
    *,
    exactly: bool,
) -> Survey:
    """The first pass over a block and its base; `exactly` as `survey_block`. Raises CodecError."""
    return survey_block(weights(raw, base, dtype, workspace), large_share, exactly, workspace)


def weights(raw: Buffer, base: Buffer, dtype: DType, workspace: Workspace) -> Weights:
    """A block and its base as whole weights. Raises CodecError if their lengths differ."""
    x, b = octets(raw), octets(base)
    if x.size != b.size:
        raise CodecError(f"a block of {x.size} bytes and a base of {b.size}")
    return weights_of(x, b, float_format(dtype), workspace)


def encode_marked(marks: Marks, workspace: Workspace) -> tuple[bytes, bytes]:
    """Coarse and exact payload of a block with its large changes marked."""
    head = CoarseHead(marks.magnitude, marks.threshold)
    coarse = encode_coarse(head, marks.packed, marks.classes, workspace)
    return coarse, encode_exact(marks, workspace)


class Residual:
    """Two layers: large changes by their sign, then the rest of every weight."""

    name = "residual"
    tag = 3
    version = 1
    layers = 2
    needs_base = True

    def __init__(self, large_share: float = LARGE_SHARE) -> None:
        self.large_share = large_share

    def supports(self, dtype: DType) -> bool:
        """bf16, fp16 and float32."""
        return dtype in FORMATS

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """Coarse and exact payload."""
        return self._encode(raw, base, dtype, workspace, exactly=False)[0]

    def encode_with_statistics(
        self, raw: Buffer, base: Buffer, dtype: DType, workspace: Workspace
    ) -> tuple[tuple[Buffer, ...], BlockStatistics]:
        """What `encode` returns, and the statistics that the same passes give."""
        layers, surveyed = self._encode(raw, base, dtype, workspace, exactly=True)
        return layers, surveyed.statistics()

    def estimate(
        self, samples: Sequence[tuple[Buffer, Buffer]], dtype: DType, workspace: Workspace
    ) -> int:
        """About how many bytes both payloads take (estimates.py)."""
        return residual_bytes(samples, dtype, workspace)

    def _encode(
        self,
        raw: Buffer,
        base: Buffer | None,
        dtype: DType,
        workspace: Workspace,
        *,
        exactly: bool,
    ) -> tuple[tuple[Buffer, ...], Survey]:
        if base is None:
            raise CodecError("residual needs the base block")
        surveyed = survey(raw, base, dtype, self.large_share, workspace, exactly=exactly)
        return encode_marked(surveyed, workspace), surveyed

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Raises CodecError for payloads that are not a block of `len(out)` bytes."""
        if len(layers) != 2 or base is None:
            raise CodecError("residual needs two layers and the base block")
        decode_exact(layers, octets(base), octets(out), workspace)
