"""The refs of another repository: what its byte store says, checked before it is believed."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore, Picking, pick
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
_FEW_NAMES = 33  # and HEAD: that are asked for one by one, where they must be


class RemoteRefs(Struct, frozen=True):
    """Branches and tags by full name, and the branch its HEAD is on (None: unborn or detached).

    All of them, or those that were asked for. `raw`: the bytes of each ref as they stand there,
    which a compare-and-swap has to name.
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
    return _parsed(store.values(_FOLDER), store.get(_HEAD))


def read_some_refs(store: ByteStore, names: Iterable[str], *, tags: bool = False) -> RemoteRefs:
    """HEAD, and those of some branches and tags that are there; with `tags`, all of these.

    Of a hub with a million refs nothing else is looked at. Raises as `read_refs`.
    """
    asked = [_HEAD, *dict.fromkeys(names)]
    if len(asked) > _FEW_NAMES and not isinstance(store, Picking):
        whole = read_refs(store)  # a request for each takes longer
        kept = {it: at for it, at in whole.values.items() if it in asked or it.startswith(TAGS)}
        return RemoteRefs(kept, {it: whole.raw[it] for it in kept}, whole.head)
    values = pick(store, asked)
    head = values.pop(_HEAD, None)
    if tags:
        values |= store.values(TAGS)
    return _parsed(values, head)


def first_branches(store: ByteStore, count: int) -> list[str]:
    """Names of some branches there, in full: to say what there is."""
    names = (name for name in store.list(HEADS) if name.startswith(HEADS))
    return [_checked(name) for name in islice(names, count)]


def _parsed(values: Mapping[str, bytes], head: bytes | None) -> RemoteRefs:
    refs: dict[str, ObjectId] = {}
    raw: dict[str, bytes] = {}
    for name, value in values.items():
        if not name.startswith((HEADS, TAGS)):
            continue
        if len(refs) >= MOST_REFS:
            raise RemoteRefused(f"the remote lists more than {MOST_REFS:,} refs")
        refs[_checked(name)] = parse_ref(name, value)
        raw[name] = value
    return RemoteRefs(refs, raw, _head(head))


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


def _head(value: bytes | None) -> str | None:
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
