"""What may hold blocks beside the packs: quarantines, merges cut short, and derived facts."""

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
from mergepipe.repository.layout import UNFINISHED

QUARANTINE = "quarantine/"
# Where a record's header has the id, see packs.format.
_ID_AT = 32
# Footers of packs, and what is known of damage: neither says anything of a model.
_KEPT = (b"f/", b"condemned", b"lacking")


def files_with(directory: Path, ids: Collection[bytes]) -> Iterator[str]:
    """Keys of files beside the packs that hold a record of one of `ids`, damaged ones too."""
    for folder in (INCOMING, QUARANTINE, *unfinished_runs(directory)):
        path = located(directory, folder.rstrip("/"))
        if not is_real_directory(path):
            continue
        with os.scandir(path) as entries:
            names = sorted(each.name for each in entries if each.is_file(follow_symlinks=False))
        for name in names:
            if _holds(read_plain(path / name), ids):
                yield folder + name


def unfinished_runs(directory: Path) -> list[str]:
    """Keys of folders (`unfinished/<plan>/`) with what a merge had done that died, or runs now."""
    path = located(directory, UNFINISHED)
    if not is_real_directory(path):
        return []
    with os.scandir(path) as entries:
        names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    return [f"{UNFINISHED}/{name}/" for name in sorted(names)]


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
