"""Files of `torch.save`: the tensors in them, found without running anything of theirs.

A pickle is a program, so it is never handed to `pickle` as it is: the unpickler here knows the
handful of names that a state dict is made of, builds inert values of them, and refuses the rest.
What it yields are places in the file: since torch 1.6 that is a zip archive that stores every
storage as it is, so no weight is read to know what there is (torch/serialization.py).
"""

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, BinaryIO, NoReturn, cast

from msgspec import Struct

from mergepipe.dtypes import DTYPES, DType
from mergepipe.errors import MalformedFile
from mergepipe.formats.tree import SourceFile, StableReader, open_stable
from mergepipe.names import quoted

_MAX_PICKLE_BYTES = 256 << 20
_MAX_DIMENSIONS = 64
_NOTES = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_LOCAL_HEADER = 30
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16",
    "half": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL", "complex64": "C64", "uint16": "U16", "uint32": "U32",
    "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
# What zipfile makes of archives that are none.
_BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError),
)
# Where training scripts put the weights in what they save.
_INNER = ("state_dict", "model_state_dict", "model", "module")


class PickledTensor(Struct, frozen=True):
    """A tensor in a file: its elements begin at byte `start`, `strides` apart (in elements)."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int

    @property
    def contiguous(self) -> bool:
        """Whether the elements stand in the order of safetensors, without gaps."""
        step = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length > 1 and stride != step:
                return False
            step *= length
        return True

    @property
    def span_bytes(self) -> int:
        """From the first element to the end of the last."""
        return _span(self.shape, self.strides) * self.dtype.bits // 8


def read_pickle(source: SourceFile) -> dict[str, PickledTensor]:
    """The tensors of a state dict by name, in its order.

    Raises MalformedFile for what is no archive of torch, is damaged, or holds anything but numbers,
    texts, collections and tensors.
    """
    with open_stable(source) as reader:
        file = cast(BinaryIO, io.BufferedReader(_Raw(reader)))
        try:
            with zipfile.ZipFile(file) as archive:
                tensors = _Archive(archive, reader, source).load()
        except _BROKEN as error:
            raise MalformedFile(
                f"{quoted(source.path)} is no archive of torch: {error}",
                "files from before torch 1.6 are not read: load it with "
                "torch.load(PATH, weights_only=True) and save it with safetensors.torch.save_file",
            ) from error
    return _tensors(tensors, source.path)


def _tensors(found: object, path: str) -> dict[str, PickledTensor]:
    """The tensors of what was saved: a dictionary of them, perhaps inside of one."""
    inner = found
    for _ in range(3):
        if not isinstance(inner, Mapping):
            break
        tensors = {
            name: tensor
            for name, tensor in inner.items()
            if isinstance(name, str) and isinstance(tensor, PickledTensor)
        }
        if tensors:
            return tensors
        inner = next((inner[key] for key in _INNER if isinstance(inner.get(key), Mapping)), None)
    raise MalformedFile(
        f"{quoted(path)} holds no dictionary of tensors", "save the model's state_dict()"
    )


class _Storage(Struct, frozen=True):
    dtype: DType | None
    start: int
    size: int


class _Archive:
    """One archive; `load` gives what its pickle makes."""

    def __init__(self, archive: zipfile.ZipFile, reader: StableReader, source: SourceFile) -> None:
        self._archive = archive
        self._reader = reader
        self._source = source
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        self._known: dict[str, tuple[int, int]] = {}

    def load(self) -> object:
        name = next((name for name in self._entries if name.endswith("/data.pkl")), None)
        if name is None:
            self._refuse("it has no data.pkl")
        self._prefix = name.removesuffix("data.pkl")
        order = self._entries.get(self._prefix + "byteorder")
        if order is not None and self._archive.read(order) != b"little":
            self._refuse("its numbers are not little-endian")
        if self._entries[name].file_size > _MAX_PICKLE_BYTES:
            self._refuse(f"its pickle has {self._entries[name].file_size} bytes")
        state = self._archive.read(name)
        try:
            self._check_notes(state)
            return _Unpickler(io.BytesIO(state), self._storage, self._refuse).load()
        except MalformedFile:
            raise
        # Whatever a broken pickle leads to; nothing of it runs but the values above.
        except Exception as error:
            raise MalformedFile(f"{quoted(self._source.path)} is damaged: {error}") from error

    def _check_notes(self, state: bytes) -> None:
        """Refuse a number under which a value is noted that no count of values leads to.

        The standard library makes a table as long as the largest: ten bytes would take 32 GiB.
        """
        for operation, argument, _ in pickletools.genops(state):
            if operation.name in _NOTES and int(argument or 0) > len(state):
                self._refuse("its pickle asks for a table that is larger than itself")

    def _storage(self, dtype: DType | None, key: str) -> _Storage:
        if key not in self._known:
            entry = self._entries.get(f"{self._prefix}data/{key}")
            if entry is None:
                self._refuse(f"it lacks the storage {quoted(key)}")
            if entry.compress_type != zipfile.ZIP_STORED:
                self._refuse("its storages are compressed")
            if not 0 <= entry.header_offset <= self._source.size - _LOCAL_HEADER:
                self._refuse(f"the storage {quoted(key)} lies outside of it")
            header = bytearray(_LOCAL_HEADER)
            self._reader.read_into(entry.header_offset, memoryview(header))
            lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            start = entry.header_offset + _LOCAL_HEADER + sum(lengths)
            if start + entry.file_size > self._source.size:
                self._refuse(f"the storage {quoted(key)} is cut short")
            self._known[key] = start, entry.file_size
        return _Storage(dtype, *self._known[key])

    def _refuse(self, problem: str) -> NoReturn:
        raise MalformedFile(
            f"{quoted(self._source.path)} is no file of tensors alone: {problem}",
            "only tensors are read, never code: load the model where you trust the file, and save "
            "it with save_pretrained",
        )


class _Unpickler(pickle.Unpickler):
    """Knows the names in a state dict, and builds inert values of them."""

    def __init__(
        self,
        file: io.BytesIO,
        storage: Callable[[DType | None, str], _Storage],
        refuse: Callable[[str], NoReturn],
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._refuse = refuse

    def find_class(self, module: str, name: str, /) -> Any:
        """One of the names that are known. Raises MalformedFile."""
        if module in ("torch", "torch.storage"):
            if name in _STORAGES:
                return DTYPES[_STORAGES[name]]
            if name == "UntypedStorage":
                return None
            if name in _DTYPES:
                return DTYPES[_DTYPES[name]]
            if name == "Size":
                return tuple
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("builtins", "set"), ("__builtin__", "set")):
            return set
        rebuild = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._typed_tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }.get((module, name))
        if rebuild is None:
            self._refuse(f"it needs {module}.{name}")
        return rebuild

    def persistent_load(self, pid: Any, /) -> _Storage:
        """A storage of the archive."""
        if not (isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage"):
            self._refuse("it refers to something outside of it")
        return self._storage(pid[1], str(pid[2]))

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
    ) -> PickledTensor:
        return self._typed_tensor(storage, offset, shape, strides, False, None, storage.dtype)

    def _typed_tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any,
        *___: Any,
    ) -> PickledTensor:  # fmt: skip
        numbers = (offset, *shape, *strides)
        sound = (
            isinstance(storage, _Storage)
            and isinstance(dtype, DType)
            and all(type(number) is int and 0 <= number < 1 << 60 for number in numbers)
            and len(shape) == len(strides) <= _MAX_DIMENSIONS
        )
        if not sound:
            self._refuse("a tensor in it makes no sense")
        tensor = PickledTensor(
            dtype, tuple(shape), tuple(strides), storage.start + offset * dtype.bits // 8
        )
        if tensor.start + tensor.span_bytes > storage.start + storage.size:
            self._refuse("a tensor in it reaches beyond its storage")
        # A stride of 0 repeats elements: a few bytes would stand for terabytes.
        if prod(shape) * dtype.bits // 8 > max(storage.size, 1 << 20):
            self._refuse("a tensor in it is larger than its storage")
        return tensor


def _parameter(tensor: object, *_: object) -> object:
    return tensor


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last, both counted."""
    if not prod(shape):
        return 0
    return 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))


class _Raw(io.RawIOBase):
    """A source file as zipfile wants one."""

    def __init__(self, reader: StableReader) -> None:
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, self._reader.source.size)
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, out: Any, /) -> int:
        """Read as much as fits."""
        view = memoryview(out).cast("B")
        size = min(len(view), max(0, self._reader.source.size - self._at))
        self._reader.read_into(self._at, view[:size])
        self._at += size
        return size
