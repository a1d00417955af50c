"""A block from the payloads of its records, over its base: the one place that decodes any."""

from collections.abc import Callable, Sequence

from mergepipe.codecs.registry import VERBATIM, codec_tagged
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError, Corruption
from mergepipe.packs.format import RecordHeader
from mergepipe.parallel import Scratch


def decode_block(
    header: RecordHeader,
    layers: Sequence[memoryview],
    base: memoryview | None,
    memory: Callable[[int], memoryview],
    workspace: Workspace,
) -> memoryview:
    """What the payloads of a block's records decode to; its id is the caller's to compare.

    `header` is that of any of them. `memory` gives writable bytes of a length; what is stored
    verbatim is not copied. Raises Corruption, CodecError, naming the block.
    """
    block, length = header.id.hex(), header.raw_length
    if base is not None and len(base) != length:
        raise Corruption(f"block {block} and its base differ in length")
    if (header.codec, header.version) == VERBATIM:
        if len(layers) != 1 or len(layers[0]) != length:
            raise Corruption(f"block {block}: a raw record of the wrong length")
        return layers[0]
    out = memory(length)
    try:
        codec_tagged(header.codec, header.version).decode_into(layers, base, out, workspace)
    except CodecError as error:
        raise CodecError(f"block {block}: {error.message}", error.hint) from error
    return out


def memory_for(scratch: Scratch | None) -> Callable[[int], memoryview]:
    """Memory of the thread that is used again, or fresh memory."""
    return _fresh if scratch is None else scratch.take


def _fresh(length: int) -> memoryview:
    return memoryview(bytearray(length))
