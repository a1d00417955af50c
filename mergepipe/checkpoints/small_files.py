"""Small files of stored snapshots: configs, indexes."""

from mergepipe.errors import MalformedFile
from mergepipe.formats.huggingface import MAX_INDEX_BYTES
from mergepipe.names import quoted
from mergepipe.objects.records import Blob, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader


def read_stored_file(
    snapshot: Snapshot, path: str, objects: ObjectStore, reader: BlockReader
) -> bytes | None:
    """The bytes of a file that holds no tensors; None if there is none of this path.

    Raises MalformedFile if it is too large to be read as a whole.
    """
    entry = next((file for file in snapshot.files if file.path == path), None)
    if entry is None or not isinstance(entry.content, Blob):
        return None
    if entry.size > MAX_INDEX_BYTES:
        raise MalformedFile(f"{quoted(path)} has {entry.size} bytes; {MAX_INDEX_BYTES} are allowed")
    return b"".join(reader.read(objects.tensor(entry.content.data).block_ids()))
