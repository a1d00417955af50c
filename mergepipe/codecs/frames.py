"""zstd frames of a known length: the only place that calls python-zstandard."""

import threading

import zstandard

from mergepipe.codecs.protocol import Buffer
from mergepipe.errors import CodecError

# A zstandard context may be used by one thread at a time, and costs more to make than to use on a
# small block, so each thread keeps its own.
_contexts = threading.local()
_LARGEST_WINDOW_BYTES = 128 << 20


def compress(data: Buffer, level: int) -> bytes:
    """One zstd frame that declares its content size."""
    compressors: dict[int, zstandard.ZstdCompressor] = _contexts.__dict__.setdefault(
        "compressors", {}
    )
    compressor = compressors.get(level)
    if compressor is None:
        compressor = compressors[level] = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False
        )
    return compressor.compress(data)


def start(frame: Buffer, count: int) -> bytes:
    """The first bytes, at most `count`, of a frame that may be cut short. Raises CodecError."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW_BYTES)
    try:
        with decompressor.stream_reader(frame) as reader:
            return reader.read(count)
    except zstandard.ZstdError as error:
        raise CodecError(f"damaged zstd frame: {error}") from error


def decompress(frame: Buffer, length: int) -> bytes:
    """The `length` bytes of a frame. Raises CodecError for any other frame.

    python-zstandard ignores `max_output_size` when a frame declares its size, and allocates what
    it declares: hence the size is checked first, and a frame that declares none is refused.
    """
    try:
        declared = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as error:
        raise CodecError(f"not a zstd frame: {error}") from error
    if declared != length:
        raise CodecError(f"a zstd frame declares {declared} bytes, the block needs {length}")
    decompressor: zstandard.ZstdDecompressor | None = _contexts.__dict__.get("decompressor")
    if decompressor is None:
        decompressor = _contexts.decompressor = zstandard.ZstdDecompressor()
    try:
        data = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"damaged zstd frame: {error}") from error
    if len(data) != length:
        raise CodecError(f"a zstd frame held {len(data)} bytes, the block needs {length}")
    return data
