"""Looking over an LMDB file before LMDB does, which trusts it.

LMDB maps the file and follows what stands in it: a page number, an offset or a length that is
nonsense ends the process by SIGABRT (its assertions) or SIGSEGV, which no caller can catch. So a
file that others may have touched is walked first: every page that its newest meta page leads to,
every offset on them, the trees' depths and entries, and the list of free pages, which LMDB writes
to. (How many pages a tree says it has is not compared: LMDB only reports it.) Layouts are those of
`mdb.c` of LMDB 0.9 (MDB_meta, MDB_db; pages and nodes: index_nodes.py) on a 64-bit little-endian
machine. Damage to keys and values that leads nowhere wrong is not seen here: readers find it by
hash.
"""

import struct
from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct

from mergepipe.bytestore.whole_calls import fill_at, read_at
from mergepipe.packs import index_nodes
from mergepipe.packs.index_check import DamagedPages
from mergepipe.packs.index_nodes import (
    BIG,
    DUPLICATES,
    OVERFLOW,
    PAGE_HEADER,
    TREE,
    Bytes,
    Nodes,
    Numbers,
)

_META = struct.Struct("<IIQQ")  # magic, version, address, map size; two trees follow
_TREE = struct.Struct("<IHHQQQQQ")  # MDB_db
_TAIL = struct.Struct("<QQ")  # last page, transaction
_OVERFLOW = struct.Struct("<QHHI")  # number, padding, flags, how many pages
_META_BYTES = PAGE_HEADER + _META.size + 2 * _TREE.size + _TAIL.size
_META_PAGE, _MAGIC, _VERSION = 8, 0xBEEFC0DE, 1
_INTEGER_KEYS, _DUPSORT = 8, 4
_NO_PAGE = (1 << 64) - 1
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
_DEEPEST = 30  # LMDB's cursors have a stack of 32
_LARGEST_MAP_BYTES = 1 << 44
_LAST_TRANSACTION = 1 << 56
_BATCH_PAGES = 2048


class _Tree(Struct, frozen=True):
    """An MDB_db: a tree of pages. `root` is _NO_PAGE where it is empty."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int

    @classmethod
    def parse(cls, data: bytes) -> "_Tree":
        return cls(*_TREE.unpack(data))


class _Meta(Struct, frozen=True):
    """A meta page: where the trees begin, and how much of the file is in use."""

    transaction: int
    page_bytes: int
    last_page: int
    free: _Tree
    main: _Tree

    @classmethod
    def read(cls, descriptor: int) -> "_Meta":
        """The one that LMDB will go by: of two sound ones, the newer. Raises DamagedPages."""
        first = cls._parse(read_at(descriptor, _META_BYTES, 0), 0)
        second = cls._parse(read_at(descriptor, _META_BYTES, first.page_bytes), 1)
        newest = second if first.transaction < second.transaction else first
        if second.page_bytes != first.page_bytes:
            raise DamagedPages("its two meta pages differ in page size")
        return newest

    @classmethod
    def _parse(cls, data: bytes, number: int) -> "_Meta":
        if len(data) < _META_BYTES:
            raise DamagedPages("it is cut short")
        page, _, flags, _ = _OVERFLOW.unpack_from(data)
        magic, version, _, map_bytes = _META.unpack_from(data, PAGE_HEADER)
        at = PAGE_HEADER + _META.size
        free = _Tree.parse(data[at : at + _TREE.size])
        main = _Tree.parse(data[at + _TREE.size : at + 2 * _TREE.size])
        last_page, transaction = _TAIL.unpack_from(data, at + 2 * _TREE.size)
        sound = (
            (page, flags, magic, version) == (number, _META_PAGE, _MAGIC, _VERSION)
            and (free.flags, main.flags, main.pad) == (_INTEGER_KEYS, 0, 0)
            and free.pad in _PAGE_SIZES
            and last_page >= 1
            and last_page * free.pad < map_bytes <= _LARGEST_MAP_BYTES
            and transaction < _LAST_TRANSACTION
        )
        if not sound:
            raise DamagedPages(f"meta page {number} makes no sense")
        return cls(transaction, free.pad, last_page, free, main)


def check_pages(descriptor: int, tables: Mapping[bytes, bool]) -> None:
    """Walk an LMDB file, open for reading.

    `tables`: the named trees that there may be, and whether each holds several values for a key
    (dupsort). Reads every page in use once; memory: a byte a page, and some 50 MiB. Raises
    DamagedPages, OSError. A writer of another process may get ahead of the walk and reuse pages
    under it: what fails is then tried again.
    """
    while True:
        meta = _Meta.read(descriptor)
        try:
            _Walk(descriptor, meta, tables).run()
            return
        except DamagedPages:
            if _Meta.read(descriptor).transaction == meta.transaction:
                raise


class _Walk:
    """One walk from one meta page."""

    def __init__(self, descriptor: int, meta: _Meta, tables: Mapping[bytes, bool]) -> None:
        self._descriptor = descriptor
        self._meta = meta
        self._tables = tables
        self._page_bytes = meta.page_bytes
        self._used = np.zeros(meta.last_page + 1, dtype=bool)
        self._used[:2] = True

    def run(self) -> None:
        trees: list[_Tree] = []
        for nodes in self._leaves(self._meta.main):
            trees += [self._table(nodes, index) for index in range(len(nodes.key))]
        for tree in trees:
            self._follow(tree)
        self._follow_free()

    def _table(self, nodes: Nodes, index: int) -> _Tree:
        if nodes.flags[index] != TREE or nodes.value_bytes[index] != _TREE.size:
            raise DamagedPages("a table without a tree")
        name, tree = nodes.keyed(index), _Tree.parse(nodes.valued(index))
        if name not in self._tables or tree.flags != _DUPSORT * self._tables[name]:
            raise DamagedPages(f"an unknown table {name[:16].hex()}")
        return tree

    def _follow(self, tree: _Tree) -> None:
        """All of a table; of a key with several values, the page or tree that holds them."""
        several = tree.flags == _DUPSORT
        allowed = (0, DUPLICATES, DUPLICATES | TREE) if several else (0, BIG)
        entries = 0
        for nodes in self._leaves(tree):
            if not np.isin(nodes.flags, allowed).all():
                raise DamagedPages("a node of a kind that its table has not")
            entries += int(np.count_nonzero(nodes.flags & DUPLICATES == 0))
            inside = nodes.of_kind(DUPLICATES)
            if len(inside):
                entries += len(index_nodes.inner_leaves(nodes, inside).key)
            for index in nodes.of_kind(DUPLICATES | TREE):
                entries += self._values(nodes, int(index))
            for index in nodes.of_kind(BIG):
                self._overflow(nodes, int(index))
        _agree((entries,), (tree.entries,))

    def _values(self, nodes: Nodes, index: int) -> int:
        """The tree of one key's values, which are its keys; returns how many."""
        if nodes.value_bytes[index] != _TREE.size:
            raise DamagedPages("a key without the tree of its values")
        tree = _Tree.parse(nodes.valued(index))
        if tree.flags or tree.root == _NO_PAGE:
            raise DamagedPages("a key without the tree of its values")
        entries = 0
        for leaf in self._leaves(tree):
            if leaf.flags.any() or leaf.value_bytes.any():
                raise DamagedPages("values that have values")
            entries += len(leaf.key)
        _agree((entries,), (tree.entries,))
        return entries

    def _follow_free(self) -> None:
        """The tree of free pages: for each transaction, how many it gave up, and which."""
        tree = self._meta.free
        entries = 0
        for nodes in self._leaves(tree, least=0):
            if not np.isin(nodes.flags, (0, BIG)).all() or (nodes.key_bytes != 8).any():
                raise DamagedPages("the list of free pages")
            entries += len(nodes.key)
            for index in range(len(nodes.key)):
                big = nodes.flags[index] == BIG
                value = self._overflow(nodes, index, keep=True) if big else nodes.valued(index)
                self._free(int.from_bytes(nodes.keyed(index), "little"), value)
        _agree((entries,), (tree.entries,))

    def _free(self, transaction: int, value: bytes) -> None:
        if len(value) < 8 or len(value) % 8 or transaction > self._meta.transaction:
            raise DamagedPages("the list of free pages")
        words = np.frombuffer(value, "<u8")
        count, last = int(words[0]), self._meta.last_page
        if count >= len(words) or (words[1 : 1 + count] > last).any():
            raise DamagedPages("the list of free pages")
        pages = words[1 : 1 + count].astype(np.int64)
        if (pages[:-1] <= pages[1:]).any():
            raise DamagedPages("the list of free pages is not sorted")
        self._use(pages)

    def _leaves(self, tree: _Tree, least: int = 1) -> Iterator[Nodes]:
        """Down a tree level by level; the nodes of its leaves, some thousand pages at a time."""
        if tree.root == _NO_PAGE:
            _agree((tree.depth, tree.entries), (0, 0))
            return
        if not 1 <= tree.depth <= _DEEPEST or (tree.pad and tree is not self._meta.free):
            raise DamagedPages("a tree of absurd depth")
        if tree.root > self._meta.last_page:
            raise DamagedPages("a page beyond the end")
        level = np.array([tree.root], dtype=np.int64)
        for _ in range(tree.depth - 1):
            below = [
                index_nodes.children(self._read(batch), batch, self._page_bytes, 1 + least)
                for batch in _batches(level)
            ]
            level = np.concatenate(below)
        for batch in _batches(level):
            yield index_nodes.leaves(self._read(batch), batch, self._page_bytes, least)

    def _read(self, pages: Numbers) -> Bytes:
        """Pages in the order given, one after the other; from now on they are in use."""
        self._use(pages)
        data = bytearray(len(pages) * self._page_bytes)
        view = memoryview(data)
        # Neighbours come in one call: most pages of a tree were written in order.
        ends = np.flatnonzero(np.diff(pages) != 1) + 1
        for begin, end in zip([0, *ends.tolist()], [*ends.tolist(), len(pages)], strict=True):
            part = view[begin * self._page_bytes : end * self._page_bytes]
            if fill_at(self._descriptor, part, int(pages[begin]) * self._page_bytes) < len(part):
                raise DamagedPages("it is cut short")
        return np.frombuffer(data, np.uint8)

    def _overflow(self, nodes: Nodes, index: int, *, keep: bool = False) -> bytes:
        """Look at the pages of a long value, and read it if it is to `keep`."""
        length = int(nodes.value_bytes[index])
        first = int.from_bytes(nodes.valued(index, 8), "little")
        if first > self._meta.last_page:
            raise DamagedPages("a page beyond the end")
        wanted = PAGE_HEADER + (length if keep else 0)
        data = read_at(self._descriptor, wanted, first * self._page_bytes)
        if len(data) < wanted:
            raise DamagedPages("it is cut short")
        number, _, flags, count = _OVERFLOW.unpack_from(data)
        # A shorter value may have been written over a longer one.
        least = (PAGE_HEADER - 1 + length) // self._page_bytes + 1
        if (number, flags) != (first, OVERFLOW) or not least <= count <= self._meta.last_page:
            raise DamagedPages("a long value is not where it should be")
        self._use(np.arange(first, first + count))
        return data[PAGE_HEADER:]

    def _use(self, pages: Numbers) -> None:
        """Note that pages are in use, which each of them may be once."""
        if len(pages) == 0:
            return
        if pages.min() < 2 or pages.max() > self._meta.last_page:
            raise DamagedPages("a page beyond the end")
        if self._used[pages].any() or len(np.unique(pages)) < len(pages):
            raise DamagedPages("a page in two places")
        self._used[pages] = True


def _batches(pages: Numbers) -> Iterator[Numbers]:
    for first in range(0, len(pages), _BATCH_PAGES):
        yield pages[first : first + _BATCH_PAGES]


def _agree(counted: tuple[int, ...], said: tuple[int, ...]) -> None:
    if counted != said:
        raise DamagedPages("a tree is not what its root says")
