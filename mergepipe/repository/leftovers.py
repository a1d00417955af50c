"""What may hold blocks beside the packs: quarantines of pushes and repairs, and derived facts."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from mergepipe.bytestore.elsewhere import located
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.untrusted import is_real_directory, read_plain
from mergepipe.ids import ID_BYTES
from mergepipe.packs.format import RECORD_MAGIC
from mergepipe.packs.index import Index
from mergepipe.repository.incoming import FOLDER as INCOMING

QUARANTINE = "quarantine/"
# Where a record's header has the id, see packs.format.
_ID_AT = 32
# Footers of packs, and what is known of damage: neither says anything of a model.
_KEPT = (b"f/", b"condemned", b"lacking")


def files_with(directory: Path, ids: Collection[bytes]) -> Iterator[str]:
    """Keys of files in the quarantines that hold a record of one of `ids`, damaged ones too."""
    for folder in (INCOMING, QUARANTINE):
        path = located(directory, folder.rstrip("/"))
        if not is_real_directory(path):
            continue
        with os.scandir(path) as entries:
            names = sorted(each.name for each in entries if each.is_file(follow_symlinks=False))
        for name in names:
            if _holds(read_plain(path / name), ids):
                yield folder + name


def remove_leftovers(files: LocalByteStore, ids: Collection[bytes]) -> tuple[str, ...]:
    """Remove the files that hold a record of one of `ids`; returns their keys."""
    keys = tuple(files_with(files.root, ids))
    for key in keys:
        files.delete(key)
    return keys


def forget_facts(index: Index, ids: Collection[bytes]) -> None:
    """Drop what the index derived from any of `ids`, or that leads to them."""

    def unwanted(key: bytes, value: bytes) -> bool:
        if key.startswith(_KEPT):
            return False
        named = any(key[at : at + ID_BYTES] in ids for at in range(len(key) - ID_BYTES + 1))
        return named or any(
            value[at : at + ID_BYTES] in ids for at in range(0, len(value), ID_BYTES)
        )

    index.uncache(unwanted)


def _holds(data: bytes, ids: Collection[bytes]) -> bool:
    at = data.find(RECORD_MAGIC)
    while at >= 0:
        if data[at + _ID_AT : at + _ID_AT + ID_BYTES] in ids:
            return True
        at = data.find(RECORD_MAGIC, at + 1)
    return False
