"""The immutable objects of a repository, as docs/format.md lists them.

Fields are encoded by position: never reorder or remove one, add only with a new version.
"""

from typing import ClassVar, TypeAlias

import msgspec

from mergepipe.ids import ID_BYTES, BlockId, ObjectId


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every object: `KIND` and `VERSION` stand in its first line."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int]


class Tensor(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One tensor's dtype, shape and blocks, in order; nameless."""

    KIND: ClassVar[str] = "tensor"
    VERSION: ClassVar[int] = 1

    dtype: str
    shape: tuple[int, ...]
    block_bytes: int
    blocks: bytes

    def block_ids(self) -> list[BlockId]:
        """The ids of its blocks, in order."""
        return [
            BlockId(self.blocks[at : at + ID_BYTES]) for at in range(0, len(self.blocks), ID_BYTES)
        ]


class Blob(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="blob"):
    """A file of opaque bytes, stored as a U8 tensor."""

    data: ObjectId


class TensorEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A named tensor of a safetensors file."""

    name: str
    tensor: ObjectId


class Safetensors(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="safetensors"
):
    """A safetensors file: its header verbatim (a U8 tensor), its tensors in the order of data."""

    header: ObjectId
    tensors: tuple[TensorEntry, ...]


Content: TypeAlias = Blob | Safetensors


class FileEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file of a snapshot. `path` is relative, with forward slashes; `size` is in bytes."""

    path: str
    executable: bool
    size: int
    content: Content


class Snapshot(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All files of a model, sorted by the UTF-8 bytes of their paths."""

    KIND: ClassVar[str] = "snapshot"
    VERSION: ClassVar[int] = 1

    files: tuple[FileEntry, ...]


class Commit(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A snapshot with its place in history. `time` is Unix seconds, `utc_offset` minutes."""

    KIND: ClassVar[str] = "commit"
    VERSION: ClassVar[int] = 1

    snapshot: ObjectId
    parents: tuple[ObjectId, ...]
    base: ObjectId | None
    author: str
    time: int
    utc_offset: int
    message: str
    profile: ObjectId | None = None
    manifest: ObjectId | None = None
