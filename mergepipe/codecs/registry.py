"""Which codecs there are, by name and by tag. Importing this loads no codec, numpy or numba.

A tag is written in every record and never given to another codec.
"""

from functools import cache
from importlib import import_module

from mergepipe.codecs.protocol import Codec
from mergepipe.errors import CodecError, UsageError

# name -> (tag, module, class)
_CODECS = {
    "raw": (0, "raw", "Raw"),
    "zstd": (1, "zstd", "Zstd"),
    "bitx": (2, "bitx", "BitX"),
    "residual": (3, "residual", "Residual"),
    "split": (4, "split", "Split"),
    "planes": (5, "planes", "Planes"),
    "delta": (6, "planes", "Delta"),
    "successor": (7, "successor", "Successor"),
}
NAMES = tuple(_CODECS)
TAGS = {name: tag for name, (tag, _, _) in _CODECS.items()}
# Tag and version of payloads that are the block itself: readers may take them as they are.
VERBATIM = (0, 1)
# Tags of codecs whose last layer makes the block whole without those before it: their layer 0 says
# how the coarse layer of the base became this block's.
SUCCESSORS = frozenset({TAGS["successor"]})
_NAME_OF_TAG = {tag: name for name, tag in TAGS.items()}


@cache
def codec_named(name: str) -> Codec:
    """The codec called `name`, with its default effort. Raises UsageError for an unknown one."""
    try:
        _, module, cls = _CODECS[name]
    except KeyError:
        raise UsageError(f"no codec is called {name!r}", f"codecs: {', '.join(NAMES)}") from None
    codec: Codec = getattr(import_module(f"mergepipe.codecs.{module}"), cls)()
    return codec


def codec_tagged(tag: int, version: int) -> Codec:
    """The codec that decodes records of this tag and version.

    Raises CodecError for a pair that this release cannot decode.
    """
    name = _NAME_OF_TAG.get(tag)
    if name is None:
        raise CodecError(f"unknown codec tag {tag}", "a newer mergepipe may have written this")
    codec = codec_named(name)
    if not 1 <= version <= codec.version:
        raise CodecError(
            f"unknown version {version} of codec {name}", "a newer mergepipe may have written this"
        )
    return codec
