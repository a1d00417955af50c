"""The quarantine's files: packs that others sent and that nothing here refers to (yet).

What they are and how they get into the store is for `transfer`; this is what upkeep needs.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mergepipe.bytestore.elsewhere import located
from mergepipe.bytestore.untrusted import is_real_directory, plain_status
from mergepipe.ids import PackId
from mergepipe.packs.reader import SUFFIX, parse_pack_name

FOLDER = "incoming/"
SESSIONS = ".incoming"
"""How the sessions in `tmp/` end whose files are packs on their way into quarantine."""
STALE_AFTER_S = 7 * 24 * 3600


def incoming_packs(directory: Path) -> Iterator[tuple[PackId, os.stat_result]]:
    """The quarantined packs of the repository at `directory`, with what their files are."""
    try:
        folder = located(directory, FOLDER.rstrip("/"))
        if not is_real_directory(folder):
            return
        with os.scandir(folder) as listing:
            entries = list(listing)
    except FileNotFoundError:
        return
    for entry in entries:
        pack = parse_pack_name(entry.name)
        if pack is not None:
            with contextlib.suppress(FileNotFoundError):  # admitted meanwhile
                yield pack, plain_status(Path(entry.path))


def stale_packs(directory: Path, now_s: float) -> list[tuple[PackId, int]]:
    """Those that nobody sent or asked for in the week before `now_s` (Unix), with their sizes."""
    return [
        (pack, status.st_size)
        for pack, status in incoming_packs(directory)
        if status.st_mtime < now_s - STALE_AFTER_S
    ]


def incoming_key(pack: PackId) -> str:
    """Where a quarantined pack lies."""
    return f"{FOLDER}{pack.hex()}{SUFFIX}"
