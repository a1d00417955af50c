"""The files of an index: mapped, emptied, and told apart from what others may have put there."""

import shutil
from pathlib import Path

import lmdb

from mergepipe.bytestore.sharing import share
from mergepipe.bytestore.untrusted import is_real_directory, plain_status, status_of
from mergepipe.errors import MergepipeError, NoSpace
from mergepipe.packs import index_check

DATA, _READERS = "data.mdb", "lock.mdb"  # what LMDB calls its files
_FIRST_MAP_BYTES = 16 << 30
_SMALLEST_MAP_BYTES = 256 << 20  # under `ulimit -v` the first size may not be had
_LEAST_FREE_BYTES = 1 << 20


def map_files(path: Path) -> lmdb.Environment:
    """Open LMDB's files in a folder, in as large a map as can be had. Raises MergepipeError."""
    map_bytes = _FIRST_MAP_BYTES
    while True:
        try:
            opened = lmdb.open(
                str(path), map_size=map_bytes, max_dbs=8, max_readers=512, metasync=True, mode=0o777
            )
        except (lmdb.MemoryError, MemoryError) as error:
            map_bytes //= 4
            if map_bytes < _SMALLEST_MAP_BYTES:
                raise MergepipeError(
                    f"the index at {path} cannot be mapped",
                    "raise the address space limit (ulimit -v)",
                ) from error
            continue
        for name in (DATA, _READERS):
            share(path / name)
        return opened


def empty(path: Path) -> None:
    """Remove LMDB's two files and our stamp, and never anything else that may lie beside them."""
    for name in (DATA, _READERS, index_check.STAMP):
        (path / name).unlink(missing_ok=True)


def check_plain(path: Path) -> None:
    """Raise UnsafeRepository unless LMDB, which follows links, finds its own files or none."""
    if is_real_directory(path):
        for name in (DATA, _READERS):
            if status_of(path / name) is not None:
                plain_status(path / name)


def leave_other_names(path: Path) -> None:
    """Drop a file that has a second name (a hard link): the index is made again, that one stays."""
    for name in (DATA, _READERS):
        status = status_of(path / name)
        if status is not None and status.st_nlink > 1:
            empty(path)
            break


def write_error(path: Path, error: lmdb.Error) -> MergepipeError:
    """NoSpace, where the disk is full: LMDB says so, or reports a short write as an I/O error."""
    full = shutil.disk_usage(path).free < _LEAST_FREE_BYTES
    if isinstance(error, lmdb.MapFullError) or "No space" in str(error) or full:
        return NoSpace(
            f"no space left for the index at {path}",
            "free some disk space (mp gc drops what no branch or tag needs) and try again",
        )
    return MergepipeError(f"the index at {path} cannot be used: {error}")
