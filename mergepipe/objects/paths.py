"""Which file paths a snapshot may hold: those that mean the same file, inside, on every system.

A path is relative, with forward slashes, UTF-8. Checked when files are committed and again before
they are written out, because a snapshot may come from somebody else.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from typing import NoReturn

from mergepipe.errors import Corruption, UnsafePath
from mergepipe.names import quoted
from mergepipe.objects.records import Snapshot

MAX_PATH_BYTES = 4095  # PATH_MAX of Linux, less its NUL
MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common file system
MAX_DEPTH = 128

_RESERVED = (".mergepipe", ".git")
# What FAT and NTFS call `.mergepipe` and `.git` where they keep short names.
_SHORT_NAME = re.compile(r"(?:mergep|git)~[0-9]+")
_DRIVE = re.compile(r"[A-Za-z]:")
# Most paths: nothing in them that any rule below is about. A snapshot may have 250,000.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PLAIN_BYTES = min(MAX_COMPONENT_BYTES, 2 * MAX_DEPTH - 1)


def check_path(path: str) -> str:
    """Return `path` if a snapshot may hold a file there. Raises UnsafePath."""
    if len(path) <= _PLAIN_BYTES and _PLAIN.fullmatch(path):
        return path
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(path, "is not UTF-8", "rename the file")
    if not path:
        _refuse(path, "is empty")
    if len(encoded) > MAX_PATH_BYTES:
        _refuse(path, f"is longer than {MAX_PATH_BYTES} bytes")
    if path.startswith("/") or _DRIVE.match(path):
        _refuse(path, "is absolute")
    if "\\" in path:
        _refuse(path, "contains a backslash, which separates directories on other systems")
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in path):
        _refuse(path, "contains a control character", "rename the file")
    components = path.split("/")
    if len(components) > MAX_DEPTH:
        _refuse(path, f"is more than {MAX_DEPTH} directories deep")
    for component in components:
        if component in ("", ".", ".."):
            _refuse(path, f"has the component {quoted(component)}")
        if len(component.encode("utf-8")) > MAX_COMPONENT_BYTES:
            _refuse(path, f"has a component longer than {MAX_COMPONENT_BYTES} bytes")
        if _is_reserved(component):
            _refuse(path, f"has the reserved component {quoted(component)}")
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Check each path, and that all can stand side by side on any file system.

    Raises UnsafePath for two paths, or two directories on the way to them, that differ only in
    letter case or Unicode normalisation (NFC, NFD), for a path given twice, and for a file where
    another path needs a directory.
    """
    claims: dict[str, tuple[str, bool]] = {}  # folded path -> path, whether it is a file
    for path in paths:
        at, is_file = check_path(path), True
        while at:
            key = _folded(at)
            other = claims.get(key)
            if other is None:
                claims[key] = (at, is_file)
            elif other == (at, False) and not is_file:
                break  # a directory that was checked with an earlier path, and all above it
            elif other[0] == at and is_file and other[1]:
                _refuse(path, "is there twice")
            elif other[0] == at:
                _refuse(at, "is both a file and a directory")
            else:
                _refuse(
                    path,
                    f"and {quoted(other[0])} are one path on some systems"
                    " (letter case or Unicode form)",
                    "rename one of them",
                )
            at, is_file = at.rpartition("/")[0], False


def _folded(path: str) -> str:
    """What case-insensitive, normalising file systems make of a path (Unicode 3.13, D145)."""
    if path.isascii():
        return path.lower()
    decomposed = unicodedata.normalize("NFD", path)
    return unicodedata.normalize("NFD", decomposed.casefold())


def _is_reserved(component: str) -> bool:
    """Whether some file system would take `component` for `.mergepipe` or `.git`.

    `.git` too, because a file in `.git/hooks` that a checkout wrote would be run by git. HFS+
    ignores invisible characters; NTFS ignores spaces and dots at the end, and what follows a colon.
    """
    folded = unicodedata.normalize("NFKC", component).casefold()
    visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    plain = visible.partition(":")[0].rstrip(" .")
    return plain in _RESERVED or _SHORT_NAME.fullmatch(plain) is not None


def check_files(snapshot: Snapshot, what: str) -> None:
    """Raise Corruption for a snapshot whose files are not sorted, or not where files may be."""
    paths = [file.path.encode(errors="surrogatepass") for file in snapshot.files]
    if any(earlier >= later for earlier, later in itertools.pairwise(paths)):
        raise Corruption(f"{what}: a snapshot's files are not sorted, or one is there twice")
    try:
        check_paths(file.path for file in snapshot.files)
    except UnsafePath as error:
        raise Corruption(f"{what}: {error.message}", error.hint) from error


def _refuse(path: str, problem: str, hint: str = "") -> NoReturn:
    raise UnsafePath(f"the path {quoted(path)} {problem}", hint)
