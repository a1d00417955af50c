"""What of a repository lies on another disk: a setting of its owner's, not a link.

A repository may have been prepared by somebody else, so where it says that its packs are is
believed only of a directory that says so too: it names this repository, and where that is.
docs/format.md, "On another disk".
"""

import os
import re
import stat
from pathlib import Path

from msgspec import Struct

from mergepipe.bytestore.untrusted import open_plain, status_of
from mergepipe.errors import NotMounted, UnsafeRepository
from mergepipe.names import quoted

POINTER = "elsewhere"
"""In a repository: its id, and the directories of other disks that it uses."""
MARKER = "mergepipe-store"
"""In such a directory: the repository whose it is."""
LARGE = ("packs", "tmp", "incoming", "quarantine", "promised", "cache", "unfinished")
"""What lies where packs do; unfinished packs too, as they become packs by a rename."""
INDEXES = ("index", "remotes")
"""What LMDB maps, and lies where the index does; of `incoming/` its `index/`."""

_MOST_BYTES = 64 << 10
_ID = re.compile(rb"[0-9a-f]{32}")


class Elsewhere(Struct, frozen=True):
    """Directories for packs and for the index; None for what lies in the repository's own."""

    repository: str = ""
    packs: Path | None = None
    index: Path | None = None

    def places(self) -> set[Path]:
        """The directories of other disks."""
        return {place for place in (self.packs, self.index) if place is not None}

    def encode(self) -> bytes:
        """The text of the file that says so."""
        lines = [b"repository " + self.repository.encode()]
        for name, path in (("packs", self.packs), ("index", self.index)):
            if path is not None:
                lines.append(f"{name} ".encode() + os.fsencode(path))
        return b"\n".join(lines) + b"\n"


def read_elsewhere(root: Path) -> Elsewhere:
    """What the repository at `root` has elsewhere, checked.

    Raises NotMounted, UnsafeRepository for a directory that does not say the same.
    """
    said = parse_pointer(root)
    for place in said.places():
        check_place(root, said.repository, place)
    return said


def parse_pointer(root: Path) -> Elsewhere:
    """What a repository says of itself, whether or not it is so. Raises UnsafeRepository."""
    path = root / POINTER
    try:
        values = _lines(path)
    except FileNotFoundError:
        return Elsewhere()
    repository = values.pop(b"repository", b"")
    places = {
        name.decode("ascii", "replace"): Path(os.fsdecode(each)) for name, each in values.items()
    }
    known = places.keys() <= {"packs", "index"}
    if not (known and _ID.fullmatch(repository) and all(map(Path.is_absolute, places.values()))):
        raise UnsafeRepository(
            f"{quoted(str(path))} does not say where packs or the index are",
            "if you know that they are in the repository itself, remove it",
        )
    return Elsewhere(repository.decode(), places.get("packs"), places.get("index"))


def check_place(root: Path, repository: str, place: Path) -> None:
    """Raise NotMounted or UnsafeRepository unless a directory is that repository's, and there."""
    require(place)
    named, at = read_marker(place)
    if named != repository:
        raise UnsafeRepository(
            f"{quoted(str(place))} belongs to another repository than {quoted(str(root))}",
            "trust nothing in there if you do not know where it is from",
        )
    here = os.path.realpath(root)
    if os.fsdecode(at) != here:
        raise UnsafeRepository(
            f"{quoted(str(place))} belongs to the repository at {quoted(os.fsdecode(at))}, "
            f"not to {quoted(here)}",
            "a copy has no packs of its own: mp clone that one; if it was moved, "
            f"mp config store.packs {quoted(str(place))} (or store.index) here says so",
        )
    if os.lstat(place).st_uid != os.lstat(here).st_uid:
        raise UnsafeRepository(
            f"{quoted(str(place))} belongs to another user than {quoted(here)}, and is not used",
            "trust nothing in there if you do not know where it is from",
        )


def read_marker(place: Path) -> tuple[str, bytes]:
    """Whose a directory is: the id of a repository, and the path of it. Empty if it has no say.

    Raises UnsafeRepository, FileNotFoundError.
    """
    values = _lines(place / MARKER)
    return values.get(b"repository", b"").decode("ascii", "replace"), values.get(b"at", b"")


def marker(root: Path, repository: str) -> bytes:
    """The text of the file that makes a directory one of the repository at `root`."""
    return b"repository %s\nat %s\n" % (repository.encode(), os.fsencode(os.path.realpath(root)))


def require(place: Path) -> None:
    """Raise NotMounted unless a directory of another disk is there. Cheap, so asked often."""
    status = status_of(place / MARKER)
    if status is None or not stat.S_ISREG(status.st_mode):
        raise NotMounted(
            f"{quoted(str(place))} is not there, and parts of this repository are: "
            f"it has no {MARKER}",
            "mount its disk; if it is mounted elsewhere now, mp config store.packs DIR "
            "(or store.index) says where; an index is made again: mp config --unset store.index",
        )


def located(root: Path, key: str) -> Path:
    """The path of a key of the repository at `root`. Raises as `read_elsewhere`."""
    return base_of(read_elsewhere(root), root, key) / key


def base_of(elsewhere: Elsewhere, root: Path, key: str) -> Path:
    """The directory below which a key lies."""
    folder = key.split("/", 1)[0]
    if elsewhere.packs is not None and folder in LARGE:
        return elsewhere.packs
    if elsewhere.index is not None and folder in INDEXES:
        return elsewhere.index
    return root


def _lines(path: Path) -> dict[bytes, bytes]:
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        text = file.read(_MOST_BYTES + 1)
    values: dict[bytes, bytes] = {}
    for line in text.splitlines():
        name, _, value = line.partition(b" ")
        if name in values or len(text) > _MOST_BYTES:
            raise UnsafeRepository(
                f"{quoted(str(path))} is not as mergepipe writes it",
                "trust nothing in there if you do not know where it is from",
            )
        values[name] = value
    return values
