"""Where a user keeps the index of a repository that they may only read: in their own cache."""

import os
import stat
from pathlib import Path

from mergepipe.errors import MergepipeError
from mergepipe.ids import digest
from mergepipe.user_cache import user_cache

_HINT = "run any mp command there once as its owner, or set XDG_CACHE_HOME to a place of yours"


def private_index(path: Path) -> Path | None:
    """The directory for the index at `path`, which need not be there; None: there is no cache."""
    cache = user_cache()
    name = digest(os.fsencode(os.path.realpath(path))).hex()[:32]
    return None if cache is None else cache / "indexes" / name / "index"


def make_private(path: Path, place: Path | None) -> Path:
    """Make the directory for a private index, where only this user can look. Raises if it cannot.

    A cache that others may write to would let them say where records are; readers believe none
    of that without a hash, but nobody is to have a say.
    """
    if place is None:
        raise MergepipeError(f"the index at {path} may not be written", _HINT)
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = os.lstat(place.parent)
    except OSError as error:
        raise MergepipeError(
            f"the index at {path} may not be written, and there is no cache: {error}", _HINT
        ) from error
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        raise MergepipeError(f"{place.parent} is not this user's own", _HINT)
    return place
