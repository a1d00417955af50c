"""The nodes on pages of an LMDB tree, many pages at once, checked to lie where they say.

MDB_page: number (8 bytes), padding (2), flags (2), `lower` and `upper` (2 each), then the offset
of each node (2 each). Nodes fill a page from `upper` to its end without gaps. MDB_node: two halves
of a length or page number, flags, key size (2 each), key, value. A page inside a node, of the
further values of one key, looks the same.
"""

from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mergepipe.packs.index_check import DamagedPages

Bytes: TypeAlias = NDArray[np.uint8]
Numbers: TypeAlias = NDArray[np.int64]

PAGE_HEADER = 16
NODE_HEADER = 8
LARGEST_KEY = 511
BRANCH, LEAF, OVERFLOW = 1, 2, 4
_INNER_LEAF = 0x42  # P_SUBP | P_LEAF
_DIRTY = 0x10  # on pages inside nodes it stays set
BIG, TREE, DUPLICATES = 1, 2, 4


class Nodes(Struct, frozen=True):
    """Nodes of some pages, in order. All arrays have one number for each node.

    key, value   where they begin in `data`
    key_bytes    length of the key
    value_bytes  length of the value, which of a BIG one lies elsewhere
    flags        BIG, TREE, DUPLICATES
    """

    data: Bytes
    key: Numbers
    key_bytes: Numbers
    value: Numbers
    value_bytes: Numbers
    flags: Numbers

    def keyed(self, index: int) -> bytes:
        """The key of one node."""
        begin = int(self.key[index])
        return self.data[begin : begin + int(self.key_bytes[index])].tobytes()

    def valued(self, index: int, length: int | None = None) -> bytes:
        """The value of one node, as far as it lies on its page."""
        begin = int(self.value[index])
        length = int(self.value_bytes[index]) if length is None else length
        return self.data[begin : begin + length].tobytes()

    def of_kind(self, flags: int) -> Numbers:
        """Which nodes have exactly these flags."""
        return np.flatnonzero(self.flags == flags)


def children(data: Bytes, pages: Numbers, page_bytes: int, least: int) -> Numbers:
    """The pages that branch pages lead to; each has at least `least`. Raises DamagedPages.

    `data`: the pages one after the other; `pages`: their numbers.
    """
    starts = np.arange(len(pages), dtype=np.int64) * page_bytes
    _check_headers(data, starts, pages, BRANCH)
    counts, nodes, owners, lows = _offsets(data, starts, np.full(len(pages), page_bytes), least)
    size = NODE_HEADER + _half(data, nodes + 6)
    _check_tiling(nodes, size, starts[owners] + page_bytes, lows, counts)
    words = [_half(data, nodes + at) for at in (0, 2, 4)]
    return words[0] | words[1] << 16 | words[2] << 32


def leaves(data: Bytes, pages: Numbers, page_bytes: int, least: int) -> Nodes:
    """The nodes of leaf pages, each of at least `least`. Raises DamagedPages."""
    starts = np.arange(len(pages), dtype=np.int64) * page_bytes
    _check_headers(data, starts, pages, LEAF)
    return _leaf_nodes(data, starts, np.full(len(pages), page_bytes), least)


def inner_leaves(nodes: Nodes, chosen: Numbers) -> Nodes:
    """The nodes of pages that lie inside some nodes: further values of their keys, as keys."""
    chosen = chosen[np.argsort(nodes.value[chosen])]
    starts, sizes = nodes.value[chosen], nodes.value_bytes[chosen]
    if (sizes < PAGE_HEADER).any():
        raise DamagedPages("a page inside a node is too short")
    if ((_half(nodes.data, starts + 10) & ~_DIRTY) != _INNER_LEAF).any():
        raise DamagedPages("a page inside a node is of another kind")
    inner = _leaf_nodes(nodes.data, starts, sizes, 1)
    if inner.flags.any() or inner.value_bytes.any():
        raise DamagedPages("a page inside a node holds more than keys")
    return inner


def _leaf_nodes(data: Bytes, starts: Numbers, sizes: Numbers, least: int) -> Nodes:
    counts, nodes, owners, lows = _offsets(data, starts, sizes, least)
    flags, key_bytes = _half(data, nodes + 4), _half(data, nodes + 6)
    length = _half(data, nodes) | _half(data, nodes + 2) << 16
    here = np.where(flags & BIG, 8, length)
    if (key_bytes > LARGEST_KEY).any() or (length >= 1 << 31).any():
        raise DamagedPages("a key or value of absurd length")
    size = NODE_HEADER + key_bytes + here
    _check_tiling(nodes, size, starts[owners] + sizes[owners], lows, counts)
    key = nodes + NODE_HEADER
    return Nodes(
        data=data,
        key=key,
        key_bytes=key_bytes,
        value=key + key_bytes,
        value_bytes=length,
        flags=flags,
    )


def _check_headers(data: Bytes, starts: Numbers, pages: Numbers, kind: int) -> None:
    numbers = data.reshape(len(pages), -1)[:, :8].copy().view("<u8")[:, 0]
    wrong = (numbers != pages.astype(np.uint64)) | (_half(data, starts + 10) != kind)
    if wrong.any():
        raise DamagedPages(f"page {int(pages[np.argmax(wrong)])} is another, or of another kind")


def _offsets(
    data: Bytes, starts: Numbers, sizes: Numbers, least: int
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Of pages: how many nodes; of nodes: where it begins, its page, and that page's `upper`."""
    lower, upper = _half(data, starts + 12), _half(data, starts + 14)
    upper = np.where((upper == 0) & (sizes == 1 << 16), 1 << 16, upper)
    counts = (lower - PAGE_HEADER) >> 1
    wrong = (
        (counts < least) | (lower & 1) | (lower < PAGE_HEADER) | (lower > upper) | (upper > sizes)
    )
    if wrong.any():
        raise DamagedPages("a page whose bounds cannot be")
    owners = np.repeat(np.arange(len(starts)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    slots = starts[owners] + PAGE_HEADER + 2 * (np.arange(len(owners)) - before)
    offsets = _half(data, slots)
    if ((offsets < upper[owners]) | (offsets + NODE_HEADER > sizes[owners]) | (offsets & 1)).any():
        raise DamagedPages("a node outside of its page")
    return counts, starts[owners] + offsets, owners, (starts + upper)[owners]


def _check_tiling(
    nodes: Numbers, size: Numbers, ends: Numbers, lows: Numbers, counts: Numbers
) -> None:
    """Nodes fill their pages from `upper` to the end, each up to the next (sizes are even).

    The pages come in the order in which they lie in the data.
    """
    order = np.argsort(nodes, kind="stable")
    begin = nodes[order]
    end = begin + size[order] + (size[order] & 1)
    firsts = np.cumsum(counts) - counts
    firsts = firsts[counts > 0]
    expected = np.append(begin[1:], 0)
    lasts = np.append(firsts[1:], len(nodes)) - 1 if len(firsts) else firsts
    if len(nodes):
        expected[lasts] = ends[order][lasts]
    if (end != expected).any() or (begin[firsts] != lows[order][firsts]).any():
        raise DamagedPages("nodes that overlap, or leave gaps")


def _half(data: Bytes, at: Numbers) -> Numbers:
    """Little-endian 16-bit numbers, which pages inside nodes may have at odd places."""
    return data[at].astype(np.int64) | data[at + 1].astype(np.int64) << 8
