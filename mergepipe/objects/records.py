"""The immutable objects of a repository, as docs/format.md lists them.

Fields are encoded by position: never reorder or remove one, add only with a new version.
"""

import itertools
from collections.abc import Container, Iterator
from typing import Annotated, ClassVar, TypeAlias

import msgspec

from mergepipe.ids import ID_BYTES, BlockId, ObjectId
from mergepipe.objects import limits
from mergepipe.reprs import brief_repr

# What a decoder lets through: a wrong length would surface much later, as an index error.
Id: TypeAlias = Annotated[ObjectId, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Author: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.MAX_AUTHOR)]
Message: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.MAX_MESSAGE)]
Parents: TypeAlias = Annotated[tuple[Id, ...], msgspec.Meta(max_length=limits.MAX_PARENTS)]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what objects are made of."""

    __repr__ = brief_repr


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every object: `KIND` and `VERSION` stand in its first line."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int]
    EARLIER: ClassVar[tuple[type["Record"], ...]] = ()
    """Versions before this one that are still read, and still written where they say it all."""

    __repr__ = brief_repr

    def as_written(self) -> "Record":
        """The same value in the version that it is written in."""
        return self

    def as_read(self) -> "Record":
        """The same value in the version that the rest of the code knows.

        Raises ValueError for what no type can refuse.
        """
        return self

    def check_limits(self) -> None:
        """Raise UsageError for a field that is longer than a reader takes."""


class Tensor(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One tensor's dtype, shape and blocks, in order; nameless."""

    KIND: ClassVar[str] = "tensor"
    VERSION: ClassVar[int] = 1

    dtype: str
    shape: Annotated[tuple[Size, ...], msgspec.Meta(max_length=limits.MAX_DIMENSIONS)]
    block_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
    blocks: Annotated[bytes, msgspec.Meta(max_length=limits.MAX_BLOCKS * ID_BYTES)]

    def check_limits(self) -> None:
        """Raise UsageError for too many blocks or dimensions."""
        limits.check_count("dimensions of a tensor", len(self.shape), limits.MAX_DIMENSIONS)
        limits.check_count("blocks of a tensor", len(self.blocks) // ID_BYTES, limits.MAX_BLOCKS)

    def as_read(self) -> "Tensor":
        """The tensor. Raises ValueError if the ids of its blocks are cut short."""
        if len(self.blocks) % ID_BYTES:
            raise ValueError(f"a tensor's list of blocks has {len(self.blocks)} bytes")
        return self

    def block_ids(self) -> list[BlockId]:
        """The ids of its blocks, in order."""
        return [
            BlockId(self.blocks[at : at + ID_BYTES]) for at in range(0, len(self.blocks), ID_BYTES)
        ]


class Blob(Part, frozen=True, array_like=True, forbid_unknown_fields=True, tag="blob"):
    """A file of opaque bytes, stored as a U8 tensor."""

    data: Id


class TensorEntry(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A named tensor of a safetensors file."""

    name: str
    tensor: Id


class Safetensors(
    Part, frozen=True, array_like=True, forbid_unknown_fields=True, tag="safetensors"
):
    """A safetensors file: its header verbatim (a U8 tensor), its tensors in the order of data."""

    header: Id
    tensors: Annotated[tuple[TensorEntry, ...], msgspec.Meta(max_length=limits.MAX_FILE_TENSORS)]


Content: TypeAlias = Blob | Safetensors


class FileEntry(Part, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file of a snapshot. `path` is relative, with forward slashes; `size` is in bytes."""

    path: str
    executable: bool
    size: Size
    content: Content

    def tensor_ids(self) -> Iterator[ObjectId]:
        """The tensors whose bytes, one after the other, are the file's: headers included."""
        if isinstance(self.content, Blob):
            yield self.content.data
        else:
            yield self.content.header
            for entry in self.content.tensors:
                yield entry.tensor


class Snapshot(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All files of a model, sorted by the UTF-8 bytes of their paths."""

    KIND: ClassVar[str] = "snapshot"
    VERSION: ClassVar[int] = 1

    files: Annotated[tuple[FileEntry, ...], msgspec.Meta(max_length=limits.MAX_FILES)]

    def tensor_ids(self) -> Iterator[ObjectId]:
        """The tensors of all files, headers and opaque files included, in order."""
        for file in self.files:
            yield from file.tensor_ids()

    def named_tensors(self) -> "Iterator[tuple[FileEntry, TensorEntry]]":
        """Every tensor that has a name, and the file that it is in, in order."""
        for file in self.files:
            if isinstance(file.content, Safetensors):
                for entry in file.content.tensors:
                    yield file, entry

    def check_limits(self) -> None:
        """Raise UsageError for too many files."""
        limits.check_count("files of a snapshot", len(self.files), limits.MAX_FILES)


class CommitOne(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A commit as it is written where nobody said what its model was trained from."""

    KIND: ClassVar[str] = "commit"
    VERSION: ClassVar[int] = 1

    snapshot: Id
    parents: Parents
    leans_on: Id | None
    author: Author
    time: int
    utc_offset: int
    message: Message
    profile: Id | None
    manifest: Id | None

    def as_read(self) -> "Commit":
        """The commit."""
        return Commit(*(getattr(self, name) for name in self.__struct_fields__))


class Commit(Record, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A snapshot with its place in history. `time` is Unix seconds, `utc_offset` minutes.

    leans_on      the commit whose blocks this one's are encoded against: storage's choice
    trained_from  the commit that this model is a fine-tune of, as somebody said: the base of
                  merges; None where nobody did
    profile       against `trained_from` if there is one, else against `leans_on`
    """

    KIND: ClassVar[str] = "commit"
    VERSION: ClassVar[int] = 2
    EARLIER: ClassVar[tuple[type[Record], ...]] = (CommitOne,)

    snapshot: Id
    parents: Parents
    leans_on: Id | None
    author: Author
    time: int
    utc_offset: int
    message: Message
    profile: Id | None = None
    manifest: Id | None = None
    trained_from: Id | None = None

    @property
    def needed(self) -> tuple[ObjectId, ...]:
        """The commits that have to be where this one is: its parents, and the models under it."""
        under = (commit for commit in (self.leans_on, self.trained_from) if commit is not None)
        return tuple(dict.fromkeys((*self.parents, *under)))

    @property
    def lineage(self) -> tuple[ObjectId, ...]:
        """What this model came from: its parents, and what it was trained from."""
        above = () if self.trained_from is None else (self.trained_from,)
        return tuple(dict.fromkeys((*self.parents, *above)))

    def without(self, absent: Container[ObjectId]) -> "Commit":
        """The commit as it reads where some commits are done without.

        Parents count up to the first that is absent, so that the first one stays what it is.
        """
        if not any(each in absent for each in self.needed):
            return self
        parents = tuple(itertools.takewhile(lambda each: each not in absent, self.parents))
        return msgspec.structs.replace(
            self,
            parents=parents,
            leans_on=None if self.leans_on in absent else self.leans_on,
            trained_from=None if self.trained_from in absent else self.trained_from,
        )

    def check_limits(self) -> None:
        """Raise UsageError for an author, a message or parents that are too many."""
        limits.check_count("characters of an author", len(self.author), limits.MAX_AUTHOR)
        limits.check_count("characters of a message", len(self.message), limits.MAX_MESSAGE)
        limits.check_count("parents of a commit", len(self.parents), limits.MAX_PARENTS)

    def as_written(self) -> Record:
        """Version 1 where it says everything: such a commit keeps the id that it always had."""
        if self.trained_from is not None:
            return self
        return CommitOne(*(getattr(self, name) for name in CommitOne.__struct_fields__))
