"""Where the files of a repository are, and who may write them: more than a line of its config."""

import os
from pathlib import Path

from mergepipe.bytestore.elsewhere import read_elsewhere
from mergepipe.bytestore.sharing import share_tree, unshare_tree
from mergepipe.progress import Progress
from mergepipe.repository import layout, relocation
from mergepipe.repository.patience import lock_timeout_of


def elsewhere(directory: Path) -> dict[str, str]:
    """Directories of other disks that hold packs and index, by setting; empty for neither."""
    said = read_elsewhere(directory)
    return {
        relocation.PACKS: "" if said.packs is None else str(said.packs),
        relocation.INDEX: "" if said.index is None else str(said.index),
    }


def relocate(path: Path, setting: str, target: Path | None, progress: Progress) -> None:
    """Move packs or index of the repository at or above `path`; see `relocation.relocate`."""
    directory = path if layout.has_packs(path) else layout.find(path)
    timeout_s = lock_timeout_of(directory, os.environ)
    relocation.relocate(directory, setting, target, lock_timeout_s=timeout_s, progress=progress)


def share(directory: Path, shared: bool) -> None:
    """Let the directory's unix group write everything there and on other disks, or no longer."""
    for place in {directory, *(Path(each) for each in elsewhere(directory).values() if each)}:
        if shared:
            share_tree(place, directory.stat().st_gid)
        else:
            unshare_tree(place)
