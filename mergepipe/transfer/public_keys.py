"""Which keys of a repository others may read, and which they may write (docs/format-remote.md)."""

from mergepipe.bytestore.wire import WRITE_ID_BYTES
from mergepipe.errors import InvalidRefName, RemoteRefused
from mergepipe.names import quoted
from mergepipe.packs.reader import parse_pack_key
from mergepipe.repository import absent, pruned, tombstones
from mergepipe.repository.notes import parse_note_key
from mergepipe.repository.refnames import HEADS, TAGS, check_ref_name, is_shared_ref
from mergepipe.repository.refs import HEAD


def readable(key: str) -> str:
    """The key itself. Raises RemoteRefused for one that is not for others."""
    if key in (HEAD, pruned.KEY, tombstones.KEY, absent.KEY) or is_public(key):
        return key
    raise RemoteRefused(f"{quoted(key)} is not for others")


def is_public(key: str) -> bool:
    """Whether a key is listed: that of a pack, a branch, a tag or a note."""
    return parse_pack_key(key) is not None or is_shared_ref(key) or parse_note_key(key) is not None


def check_write(key: str, write_id: bytes) -> None:
    """Raise RemoteRefused for a key that is no branch or tag, or an id that identifies nothing."""
    if not key.startswith((HEADS, TAGS)):
        raise RemoteRefused(f"only branches and tags move: {quoted(key)}")
    try:
        check_ref_name(key)
    except InvalidRefName as error:
        raise RemoteRefused(error.message, error.hint) from error
    if len(write_id) != WRITE_ID_BYTES:
        raise RemoteRefused(f"a write id has {WRITE_ID_BYTES} bytes, not {len(write_id)}")
