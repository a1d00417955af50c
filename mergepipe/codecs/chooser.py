"""Which codec a tensor gets: the smallest on a few samples, within the effort asked for.

`store.codec`: `raw` stores bytes as they are; `fast` takes the one codec that suits the dtype;
`auto` compares the fast ones; `small` also those that take longer. Nothing ever expands: a block
that its codec does not make smaller is stored raw (packs.encoded_blocks.encode_block).
"""

from collections.abc import Sequence

from mergepipe.codecs.protocol import Buffer, Codec, EstimatingCodec
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType

EFFORTS = ("auto", "fast", "small", "raw")
TRYING = ("auto", "small")  # these compare codecs
SAMPLE_BYTES = 64 << 10
# Coding that saves less than this is not worth its decoding on every read.
_WORTH = 0.97
_FLOATS = ("BF16", "F16", "F32")


def samples_of(raw: Buffer, base: Buffer | None) -> list[tuple[Buffer, Buffer | None]]:
    """Two pieces of a block (and of its base) to try codecs on; the whole block if it is short."""
    view = memoryview(raw)
    under = None if base is None else memoryview(base)
    if len(view) <= 2 * SAMPLE_BYTES:
        return [(view, under)]
    # Multiples of 16 bytes: no element is cut.
    starts = (0, (len(view) - SAMPLE_BYTES) // 32 * 16)
    return [
        (
            view[start : start + SAMPLE_BYTES],
            None if under is None else under[start : start + SAMPLE_BYTES],
        )
        for start in starts
    ]


def sampled_bytes(
    codec: Codec,
    dtype: DType,
    samples: Sequence[tuple[Buffer, Buffer | None]],
    workspace: Workspace,
) -> int:
    """What the samples take by a codec, or about that by one that can tell without coding them."""
    samples = [(sample, base) for sample, base in samples if len(sample)]
    if isinstance(codec, EstimatingCodec):
        pairs = [(sample, base) for sample, base in samples if base is not None]
        return codec.estimate(pairs, dtype, workspace) if pairs else 0
    if not codec.needs_base and len(samples) > 1:
        samples = [(b"".join(sample for sample, _ in samples), None)]  # as one: tables take time
    return sum(
        sum(len(payload) for payload in codec.encode(sample, base, dtype, workspace))
        for sample, base in samples
    )


def choose(
    effort: str,
    dtype: DType,
    samples: Sequence[tuple[Buffer, Buffer | None]],
    workspace: Workspace,
) -> Codec:
    """The codec for blocks like these samples (raw bytes, base bytes or None)."""
    raw = codec_named("raw")
    has_base = all(base is not None for _, base in samples)
    options = _options(effort, dtype, has_base)
    if effort == "fast" and options:
        options = options[:1]
    best, best_size = raw, _WORTH * sum(len(sample) for sample, _ in samples)
    for codec in options:
        size = sampled_bytes(codec, dtype, samples, workspace)
        if size < best_size:
            best, best_size = codec, size
    return best


def first_choice(effort: str, dtype: DType, *, has_base: bool) -> Codec:
    """The codec for blocks that there are no samples of: the preferred one."""
    return next(iter(_options(effort, dtype, has_base)), codec_named("raw"))


def _options(effort: str, dtype: DType, has_base: bool) -> list[Codec]:
    return [
        codec
        for name in _candidates(effort, dtype, has_base)
        if (codec := codec_named(name)).supports(dtype)
    ]


def _candidates(effort: str, dtype: DType, has_base: bool) -> list[str]:
    """Codec names, the preferred first."""
    if effort == "raw":
        return []
    names: list[str] = []
    if dtype.name in _FLOATS:
        names += ["residual"] if has_base else []
        # What became fp16 from bf16 has empty low bits, which byte planes find.
        names += ["delta"] if has_base and (dtype.name == "F16" or effort == "small") else []
        names += ["split"]
    else:
        names += ["delta"] if has_base else []
        names += ["planes"] if dtype.bits > 8 else []
    if dtype.name not in _FLOATS or effort == "small":
        names += ["zstd"]
    return names
