"""Names that xet gives to chunks and xorbs: BLAKE3 with a key, and a tree of such.

Hexadecimal is of four numbers of 64 bits, least byte first (Xet protocol, Hashing).
"""

from collections.abc import Sequence

from blake3 import blake3

from mergepipe.bytestore.protocol import Buffer

_CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_WIDTH = 4
"""Children of a node, as a mean; it has two at least, and twice this and one at most."""


def chunk_hash(data: Buffer) -> bytes:
    """The name of a chunk, 32 bytes."""
    return blake3(data, key=_CHUNK_KEY).digest()


def xorb_hash(chunks: Sequence[tuple[bytes, int]]) -> bytes:
    """The name of a xorb of chunks, each by its name and its size in bytes."""
    nodes = list(chunks)
    while len(nodes) > 1:
        above = []
        at = 0
        while at < len(nodes):
            end = at + _cut(nodes[at : at + 2 * _WIDTH + 1])
            text = "".join(f"{to_hex(name)} : {size}\n" for name, size in nodes[at:end])
            total = sum(size for _, size in nodes[at:end])
            above.append((blake3(text.encode(), key=_NODE_KEY).digest(), total))
            at = end
        nodes = above
    return nodes[0][0] if nodes else bytes(32)


def _cut(nodes: Sequence[tuple[bytes, int]]) -> int:
    """How many of these, which could be one node's children, are."""
    for at in range(2, len(nodes)):
        if nodes[at][0][24] % _WIDTH == 0:
            return at + 1
    return len(nodes)


def to_hex(name: bytes) -> str:
    """A name as it is written."""
    return "".join(name[at : at + 8][::-1].hex() for at in range(0, 32, 8))


def from_hex(text: str) -> bytes:
    """The name that is written so: 64 hexadecimal digits."""
    raw = bytes.fromhex(text)
    return b"".join(raw[at : at + 8][::-1] for at in range(0, 32, 8))
