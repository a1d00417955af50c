"""Whether the index on disk is as we left it; where it is not, its pages are looked over.

To walk an index takes a third of a second for each 100 MB, too long for every command. So beside it
lies a stamp: the size, inode and times of the file as it was when one of us last wrote it or found
it sound. Whoever else writes there changes a time, which cannot be set back (ctime). What a disk
changes by itself leaves no trace in these; `mp fsck` walks all pages, whatever the stamp says.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from mergepipe.bytestore.untrusted import open_plain, open_to_change, read_plain, status_of
from mergepipe.bytestore.whole_calls import write_all

STAMP = "checked"


class DamagedPages(Exception):
    """The file is no sound LMDB environment: says what."""


def check(data: Path, tables: Mapping[bytes, bool], *, trusting: bool = True) -> None:
    """Raise DamagedPages or OSError if LMDB had better not open the file `data`.

    `trusting`: what the stamp vouches for is not read. `tables` as for `check_pages`.
    """
    before = _state(data)
    if before is None or (trusting and before == _stamp(data)):
        return
    from mergepipe.packs.index_pages import check_pages  # numpy: only where it is needed

    descriptor = open_plain(data, os.O_RDONLY)
    try:
        check_pages(descriptor, tables)
    finally:
        os.close(descriptor)
    if before == _state(data):
        _write(data, before)


def is_ours(data: Path) -> bool:
    """Whether nobody wrote to the file since it was stamped."""
    state = _state(data)
    return state is not None and state == _stamp(data)


def stamp(data: Path) -> None:
    """Vouch for the file as it is now."""
    state = _state(data)
    if state is not None:
        _write(data, state)


def _state(data: Path) -> bytes | None:
    status = status_of(data)
    if status is None or status.st_size == 0:
        return None
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_ino} {status.st_size} {times}\n".encode()


def _stamp(data: Path) -> bytes | None:
    try:
        return read_plain(data.with_name(STAMP))
    except OSError:
        return None


def _write(data: Path, state: bytes) -> None:
    """No fsync: a stamp that is lost, or half there, costs a walk."""
    with contextlib.suppress(OSError):  # who may not write here walks again
        descriptor = open_to_change(data.with_name(STAMP), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        try:
            write_all(descriptor, state)
        finally:
            os.close(descriptor)
