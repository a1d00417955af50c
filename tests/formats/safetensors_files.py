"""Files for the header parser, and what it and the safetensors library read in them."""

import struct

import safetensors

from mergepipe.formats.safetensors import Header, parse_header

FIELDS = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'
GOOD = "{" + FIELDS + "}"


def file_of(text: str | bytes, data: int = 4) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


def parse(file: bytes, name: str = "m.safetensors") -> Header:
    header = file[: 8 + struct.unpack("<Q", file[:8])[0]]
    return parse_header(header, len(file) - len(header), name=name)


def library(file: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """What safetensors reads: name -> dtype, shape, data."""
    found = safetensors.deserialize(file)
    return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in found}


def ours(file: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        t.name: (t.dtype.name, list(t.shape), file[t.start : t.end]) for t in parse(file).tensors
    }
