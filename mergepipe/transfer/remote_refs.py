"""The refs of another repository: what its byte store says, checked before it is believed."""

import re
from collections.abc import Mapping

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import InvalidRefName, RemoteRefused
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.repository.refnames import HEADS, REMOTES, TAGS, check_ref_name

MOST_REFS = 4_000_000
_FOLDER = "refs/"
_ID_LINE = re.compile(rb"[0-9a-f]{64}\n?")
_HEAD = "HEAD"
_SYMBOLIC = b"ref: "
_LONGEST_HEAD = 4096


class RemoteRefs(Struct, frozen=True):
    """Branches and tags by full name, and the branch its HEAD is on (None: unborn or detached).

    `raw`: the bytes of each ref as they stand there, which a compare-and-swap has to name.
    """

    values: Mapping[str, ObjectId]
    raw: Mapping[str, bytes]
    head: str | None

    @property
    def branches(self) -> dict[str, ObjectId]:
        """`refs/heads/*`."""
        return {name: at for name, at in self.values.items() if name.startswith(HEADS)}

    @property
    def tags(self) -> dict[str, ObjectId]:
        """`refs/tags/*`."""
        return {name: at for name, at in self.values.items() if name.startswith(TAGS)}


def read_refs(store: ByteStore) -> RemoteRefs:
    """Branches, tags and HEAD of the other side; what else it lists is ignored.

    Raises RemoteRefused for names and values that are none, and for absurdly many.
    """
    refs: dict[str, ObjectId] = {}
    raw: dict[str, bytes] = {}
    for name, value in store.values(_FOLDER).items():
        if not name.startswith((HEADS, TAGS)):
            continue
        if len(refs) >= MOST_REFS:
            raise RemoteRefused(f"the remote lists more than {MOST_REFS:,} refs")
        refs[_checked(name)] = parse_ref(name, value)
        raw[name] = value
    return RemoteRefs(refs, raw, _head(store))


def parse_ref(name: str, value: bytes) -> ObjectId:
    """The commit id that a ref's value is. Raises RemoteRefused."""
    if _ID_LINE.fullmatch(value) is None:
        raise RemoteRefused(f"{name} of the remote is no commit id: {value[:40]!r}")
    return ObjectId(bytes.fromhex(value[:64].decode()))


def ref_value(commit: ObjectId | None) -> bytes | None:
    """What stands in a ref that is at `commit`."""
    return None if commit is None else commit.hex().encode() + b"\n"


def tracking_ref(remote: str, name: str) -> str | None:
    """Where we note what `remote` has in the branch `name` (full ref name); None for tags."""
    return f"{REMOTES}{remote}/{name.removeprefix(HEADS)}" if name.startswith(HEADS) else None


def _head(store: ByteStore) -> str | None:
    value = store.get(_HEAD)
    if value is None or not value.startswith(_SYMBOLIC) or len(value) > _LONGEST_HEAD:
        return None
    try:
        branch = value.removeprefix(_SYMBOLIC).decode().strip()
    except UnicodeDecodeError:
        return None
    return _checked(branch) if branch.startswith(HEADS) else None


def _checked(name: str) -> str:
    try:
        return check_ref_name(name)
    except InvalidRefName as error:
        raise RemoteRefused(f"the remote has a ref called {quoted(name)}") from error
