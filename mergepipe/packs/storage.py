"""One repository's packs and their index, kept in step."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import lmdb

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import PackId
from mergepipe.packs.format import PACK_HEADER_BYTES, Content, parse_pack_header
from mergepipe.packs.index import Index, PackEntry, View
from mergepipe.packs.reader import pack_ids, pack_key, read_footer, walk_records

Answer = TypeVar("Answer")


class Storage:
    """Packs in a byte store, found through an index that is repaired from them."""

    def __init__(self, store: ByteStore, index: Index) -> None:
        self.store = store
        self.index = index

    def close(self) -> None:
        """Close the index and the byte store."""
        self.index.close()
        self.store.close()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A consistent read of the index."""
        with self.index.view() as view:
            yield view

    def look_up(self, question: Callable[[View], Answer | None]) -> Answer | None:
        """Ask the index; before "not there" is believed, confirm it against the packs."""
        try:
            with self.view() as view:
                answer = question(view)
        except lmdb.Error:
            self.rebuild()
            answer = None
        if answer is None and self.refresh():
            with self.view() as view:
                answer = question(view)
        return answer

    def refresh(self) -> bool:
        """Bring the index in step with the packs that are there; True if anything changed."""
        present = set(pack_ids(self.store))
        with self.view() as view:
            indexed = set(view.packs())
        gone, new = indexed - present, present - indexed
        if gone:
            self.index.drop_packs(gone)
        entries = [entry for pack in sorted(new) if (entry := self._entry(pack)) is not None]
        if entries:
            self.index.add_packs(entries)
        return bool(gone or entries)

    def rebuild(self) -> None:
        """Make the index again from the packs."""
        self.index.reset()
        self.refresh()

    def _entry(self, pack: PackId) -> PackEntry | None:
        """What to index of a pack; of a damaged one, the records that can still be found."""
        key = pack_key(pack)
        size = self.store.size(key)
        if size is None:
            return None  # gc removed it since the listing
        try:
            content, records = read_footer(self.store, pack)
        except Corruption:
            head = bytearray(PACK_HEADER_BYTES)
            self.store.read_into(key, 0, memoryview(head))
            try:
                content = parse_pack_header(head, key)
            except Corruption:
                content = Content.BLOCKS
            records = list(walk_records(self.store, pack))
        return PackEntry(pack, size, content, records)
