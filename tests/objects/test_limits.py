"""Objects that claim too much are refused before they are decoded, and never written."""

from pathlib import Path

import msgspec
import pytest

from mergepipe.errors import Corruption, UsageError
from mergepipe.ids import ObjectId
from mergepipe.objects import limits
from mergepipe.objects.encoding import decode, encode
from mergepipe.objects.records import Blob, Commit, FileEntry, Record, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.transaction import Transaction
from tests.packs.delta_codec import open_storage

NONE = ObjectId(bytes(32))


def commit(author: str = "a", message: str = "m", parents: int = 0) -> Commit:
    return Commit(NONE, (NONE,) * parents, None, author, 0, 0, message)


LARGEST: list[Record] = [
    commit("a" * limits.MAX_AUTHOR, "m" * limits.MAX_MESSAGE, limits.MAX_PARENTS),
    Tensor("U8", (1,) * limits.MAX_DIMENSIONS, 4096, bytes(32 * 10)),
]
TOO_LARGE: list[Record] = [
    commit(author="a" * (limits.MAX_AUTHOR + 1)),
    commit(message="m" * (limits.MAX_MESSAGE + 1)),
    commit(parents=limits.MAX_PARENTS + 1),
    Tensor("U8", (1,) * (limits.MAX_DIMENSIONS + 1), 4096, b""),
    Tensor("U8", (), 4096, bytes(32 * (limits.MAX_BLOCKS + 1))),
]


@pytest.mark.parametrize("record", LARGEST)
def test_the_largest_are_written_and_read(record: Record) -> None:
    assert decode(encode(record), type(record), "it") == record


@pytest.mark.parametrize("record", TOO_LARGE)
def test_what_is_larger_is_neither(record: Record) -> None:
    with pytest.raises(UsageError, match="too many"):
        encode(record)
    written = record.as_written()
    head = f"{written.KIND} {written.VERSION}\n".encode()
    with pytest.raises(Corruption):
        decode(head + msgspec.msgpack.encode(written), type(record), "it")


def test_what_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Tensor("U8", (64,), 4096, bytes(64))
    assert encode(record)
    monkeypatch.setitem(limits.MAX_BYTES, "tensor", 50)
    with pytest.raises(UsageError):
        encode(record)


def test_too_many_files() -> None:
    entry = ["", False, 0, ["blob", NONE]]
    files = msgspec.msgpack.encode([[entry] * (limits.MAX_FILES + 1)])
    with pytest.raises(Corruption):
        decode(b"snapshot 1\n" + files, Snapshot, "it")
    assert FileEntry.__struct_fields__[0] == "path"


def test_too_many_tensors_of_a_file() -> None:
    entry = b"\x92\xa0" + msgspec.msgpack.encode(bytes(NONE))
    count = limits.MAX_FILE_TENSORS + 1
    tensors = b"\xdd" + count.to_bytes(4, "big") + entry * count
    content = b"\x93" + msgspec.msgpack.encode("safetensors") + entry[2:] + tensors
    file = b"\x94\xa0\xc2\x00" + content
    with pytest.raises(Corruption):
        decode(b"snapshot 1\n\x91\x91" + file, Snapshot, "it")
    few = file.replace(tensors, b"\x91" + entry)
    assert decode(b"snapshot 1\n\x91\x91" + few, Snapshot, "it").files


def test_an_id_is_no_longer_than_ids_are() -> None:
    canonical = encode(commit())
    assert decode(canonical, Commit, "it") == commit()
    longer = canonical.replace(b"\xc4\x20" + NONE, b"\xc4\x21" + NONE + b"\0", 1)
    with pytest.raises(Corruption):
        decode(longer, Commit, "it")


def test_too_many_files_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Snapshot(tuple(FileEntry(name, False, 0, Blob(NONE)) for name in "abc"))
    monkeypatch.setattr(limits, "MAX_FILES", 3)
    assert encode(record)
    monkeypatch.setattr(limits, "MAX_FILES", 2)
    with pytest.raises(UsageError, match="files of a snapshot"):
        encode(record)


@pytest.mark.parametrize("kind", ["commit", "snapshot", "tensor"])
def test_a_bomb_is_refused_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    # It is no object of its kind: who decoded it would say so, not how large it is.
    canonical = f"{kind} 1\n".encode() + bytes(limits.MAX_BYTES[kind] + 1)
    storage = open_storage(tmp_path)
    with Transaction(storage) as transaction:
        identity = transaction.add_object(canonical)
        transaction.publish()
    assert (
        sum(path.stat().st_size for path in (tmp_path / "packs").iterdir()) < len(canonical) // 100
    )
    with pytest.raises(Corruption, match=f"claims to be a {kind} of"):
        ObjectStore(storage).canonical(identity)
    storage.close()
