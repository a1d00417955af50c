"""Footers as arrays, for who looks at all records: 136 bytes each, where headers take some 500."""

import numpy as np
from numpy.typing import NDArray

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.ids import PackId
from mergepipe.packs.format import FOOTER_ENTRY_BYTES, RECORD_HEADER_BYTES, Content
from mergepipe.packs.reader import check_frame, pack_key, read_frame

Table = NDArray[np.void]
"""One row for each record, in file order, with the columns of FOOTER."""

# As docs/format.md says ("Packs"), and packs/format.py writes it.
FOOTER = np.dtype(
    [
        ("magic", "S4"),
        ("kind", "u1"),
        ("codec", "u1"),
        ("version", "u1"),
        ("layer", "u1"),
        ("layers", "u1"),
        ("reserved", "V7"),
        ("raw_length", "<u8"),
        ("encoded_length", "<u8"),
        ("id", "S32"),
        ("base", "S32"),
        ("checksum", "V32"),
        ("offset", "<u8"),
    ]
)
assert FOOTER.itemsize == FOOTER_ENTRY_BYTES


def read_table(store: ByteStore, pack: PackId) -> tuple[Content, Table]:
    """What a pack holds, and its verified footer. Raises as `read_footer`."""
    content, footer = read_frame(store, pack)
    key = pack_key(pack)
    check_frame(content, footer, store.size(key) or 0, key)
    return content, np.frombuffer(footer, FOOTER)


def stored_bytes(table: Table) -> NDArray[np.int64]:
    """The length of each whole record."""
    return table["encoded_length"].astype(np.int64) + RECORD_HEADER_BYTES
