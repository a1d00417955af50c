"""The header of a safetensors file: strict reading, and writing.

Layout (https://huggingface.co/docs/safetensors, version 0.8): 8 bytes little-endian length of the
JSON that follows, the JSON object, then data. The tensors cover the data without gap or overlap.

We read every file that safetensors itself writes. Stricter than safetensors 0.8, which accepts:
a tensor or metadata key declared twice (the last wins), unknown keys in a tensor's entry, an entry
written as a list, a dtype written as `{"F32": null}`, more than 64 dimensions or a million tensors.
"""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import NoReturn, Protocol

from msgspec import Struct

from mergepipe.bytestore.whole_calls import read_at
from mergepipe.dtypes import DTYPES, DType, byte_length
from mergepipe.errors import MalformedFile
from mergepipe.formats.header_grammar import (
    MAX_NUMBER,
    METADATA,
    Entry,
    GrammarError,
    Metadata,
    read_members,
)
from mergepipe.names import quoted

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_ALIGNMENT = 8
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_DAMAGED = "the file is damaged, incomplete, or no safetensors file; fetch it again"


class RangeReader(Protocol):
    """A file whose bytes can be read at any offset, from any thread."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill all of `out` from `offset`."""
        ...


class TensorInfo(Struct, frozen=True):
    """A tensor of a file; `start` and `end` are offsets from the beginning of the file."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


class Header(Struct, frozen=True):
    """A checked header.

    `raw` is verbatim: the length bytes, the JSON, its padding. `tensors` stand in the order of
    their data; empty ones at the same offset in the order of the header, before the tensor there.
    """

    raw: bytes
    metadata: dict[str, str]
    tensors: tuple[TensorInfo, ...]


def read_header(file: int | RangeReader, size: int, name: str) -> Header:
    """The header of a file of `size` bytes, open as a descriptor or reader; `name` is for messages.

    Reads nothing but the header, and allocates only what the file's size vouches for. Raises
    MalformedFile.
    """
    if size < LENGTH_BYTES:
        _refuse(name, f"truncated: {size} bytes, when the length of the header alone takes 8")
    prefix = _read(file, 0, min(size, len(_LFS_POINTER)), name)
    if is_lfs_pointer(prefix):
        raise MalformedFile(
            f"{quoted(name)} is a git-lfs pointer, not the weights", "run `git lfs pull` beside it"
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        _refuse(name, f"the header would take {length} bytes; {MAX_HEADER_BYTES} are allowed")
    if length > size - LENGTH_BYTES:
        _refuse(
            name, f"truncated: the header ends at byte {length + LENGTH_BYTES} of {size} there are"
        )
    raw = _read(file, 0, LENGTH_BYTES + length, name)
    return parse_header(raw, size - len(raw), name=name)


def parse_header(header: bytes, data_bytes: int, *, name: str) -> Header:
    """Check a header (with its 8 length bytes) against the `data_bytes` that follow it.

    Linear in the header; `name` is the file's, for messages. Raises MalformedFile.
    """
    if len(header) < LENGTH_BYTES:
        _refuse(
            name, f"truncated: {len(header)} bytes, when the length of the header alone takes 8"
        )
    length = int.from_bytes(header[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        _refuse(name, f"the header would take {length} bytes; {MAX_HEADER_BYTES} are allowed")
    if length != len(header) - LENGTH_BYTES:
        _refuse(name, f"the header declares {length} bytes and has {len(header) - LENGTH_BYTES}")
    metadata: dict[str, str] = {}
    entries: list[Entry] = []
    try:
        for member in read_members(header, LENGTH_BYTES):
            if isinstance(member, Metadata):
                metadata = member.texts
            else:
                entries.append(member)
    except GrammarError as error:
        _refuse(name, error.problem, error.tensor)
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    at = 0
    tensors = []
    for entry in entries:
        tensors.append(_checked(entry, at, data_bytes, len(header), name))
        at = entry.end
    if at != data_bytes:
        _refuse(name, f"{data_bytes - at} bytes too many: they belong to no tensor")
    return Header(header, metadata, tuple(tensors))


def build_header(
    tensors: Sequence[tuple[str, DType, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """A header for `tensors` whose data follow in the order given, padded to 8 bytes by spaces.

    The same bytes that safetensors writes for the same order. Raises MalformedFile for what no
    header can hold: a name twice, bits that fill no whole bytes, more than 100 MB.
    """
    members: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, shape in tensors:
        if name == METADATA or name in members:
            raise MalformedFile(f"two tensors cannot both be called {quoted(name)}")
        end = at + byte_length(dtype, shape)
        members[name] = {"dtype": dtype.name, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise MalformedFile(f"a header of {len(text)} bytes; {MAX_HEADER_BYTES} are allowed")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def is_lfs_pointer(beginning: bytes) -> bool:
    """Whether a file that begins so stands in for one that git-lfs did not fetch."""
    return beginning.startswith(_LFS_POINTER)


def _checked(entry: Entry, at: int, data_bytes: int, header_bytes: int, file: str) -> TensorInfo:
    """`entry` as a tensor whose data begin where the last one's ended, at `at`."""
    begin, end, name = entry.begin, entry.end, entry.name
    if begin > end:
        _refuse(file, f"begins at byte {begin} of the data and ends before it, at {end}", name)
    if begin != at:
        problem = "overlaps the tensor before it" if begin < at else "leaves a hole before it"
        _refuse(file, f"{problem}: its data begin at byte {begin}, not {at}", name)
    if end > data_bytes:
        _refuse(
            file,
            f"is truncated: its data end at byte {end} of {data_bytes} there are"
            " (an interrupted download?)",
            name,
        )
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        _refuse(file, f"has the unknown dtype {quoted(entry.dtype)}", name)
    elements = 1
    for length in entry.shape:
        elements *= length
        # Where safetensors would overflow we refuse as well, so that others can read what we keep.
        if elements > MAX_NUMBER:
            _refuse(file, f"has a shape beyond 64 bits: {list(entry.shape)}", name)
    if elements * dtype.bits != (end - begin) * 8:
        _refuse(
            file,
            f"takes {end - begin} bytes, which {dtype} of shape {list(entry.shape)} does not fill",
            name,
        )
    return TensorInfo(name, dtype, entry.shape, header_bytes + begin, header_bytes + end)


def _read(file: int | RangeReader, offset: int, size: int, name: str) -> bytes:
    if not isinstance(file, int):
        out = bytearray(size)
        file.read_into(offset, memoryview(out))
        return bytes(out)
    data = read_at(file, size, offset)
    if len(data) < size:
        ended = offset + len(data)
        _refuse(name, f"truncated: it ended at byte {ended} while the header was read")
    return data


def _refuse(file: str, problem: str, tensor: str | None = None) -> NoReturn:
    subject = quoted(file) if tensor is None else f"{quoted(file)}: tensor {quoted(tensor)}"
    raise MalformedFile(f"{subject}{':' if tensor is None else ''} {problem}", _DAMAGED)
