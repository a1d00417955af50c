"""The output snapshot: the layout's files with the merged tensors in them.

Headers are kept verbatim while no dtype changes, so that a merge that changes nothing reproduces
the layout's files bit for bit. When the dtype changes, headers are built again, and the two places
where Hugging Face checkpoints write down what changed are brought in line.
"""

import json
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from mergepipe.dtypes import U8, dtype_of
from mergepipe.engine.encoding import OutputEncoder
from mergepipe.formats.config_json import TORCH_NAMES
from mergepipe.formats.safetensors import build_header, parse_header
from mergepipe.ids import BlockId, ObjectId, block_id
from mergepipe.objects.encoding import decode, encode
from mergepipe.objects.grid import spans, tensor_bytes
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.sink import Sink

_DTYPE = re.compile(rb'("(?:torch_)?dtype"\s*:\s*)"(?:bfloat16|float16|float32|float64)"')
_TOTAL_SIZE = re.compile(rb'("total_size"\s*:\s*)\d+(?:\.\d+)?')


class OutputFiles(Struct, frozen=True):
    """Writes the files of an output into a sink. `reader` reads small files of the layout."""

    objects: ObjectStore
    reader: BlockReader
    sink: Sink
    encoder: OutputEncoder

    def snapshot(self, layout: ObjectId, tensors: Mapping[tuple[str, str], ObjectId]) -> Snapshot:
        """The layout's snapshot with these tensors, by file and name."""
        old = self.objects.snapshot(layout)
        files = tuple(self._file(file, tensors) for file in old.files)
        changes = [
            (before, after)
            for before, after in zip(old.files, files, strict=True)
            if isinstance(before.content, Safetensors) and before.content != after.content
        ]
        dtype = self._new_dtype(changes)
        if dtype is not None:
            total = sum(
                self._tensor_bytes(entry.tensor) for _, entry in Snapshot(files).named_tensors()
            )
            files = tuple(self._in_line(file, dtype, total) for file in files)
        return Snapshot(files)

    def _file(self, file: FileEntry, tensors: Mapping[tuple[str, str], ObjectId]) -> FileEntry:
        if not isinstance(file.content, Safetensors):
            return file
        entries = tuple(
            TensorEntry(entry.name, tensors[file.path, entry.name])
            for entry in file.content.tensors
        )
        if entries == file.content.tensors:
            return file
        before = [self._tensor(entry.tensor) for entry in file.content.tensors]
        after = [self._tensor(entry.tensor) for entry in entries]
        if [(t.dtype, t.shape) for t in before] == [(t.dtype, t.shape) for t in after]:
            content = Safetensors(file.content.header, entries)
            return FileEntry(file.path, file.executable, file.size, content)
        raw = self._read(file.content.header)
        data_bytes = file.size - len(raw)
        metadata = parse_header(raw, data_bytes, name=file.path).metadata
        header = build_header(
            [
                (entry.name, dtype_of(tensor.dtype), tensor.shape)
                for entry, tensor in zip(entries, after, strict=True)
            ],
            metadata,
        )
        size = len(header) + sum(self._tensor_bytes(entry.tensor) for entry in entries)
        limit = self._tensor(file.content.header).block_bytes
        content = Safetensors(self._write(header, limit), entries)
        return FileEntry(file.path, file.executable, size, content)

    def _new_dtype(self, changes: Sequence[tuple[FileEntry, FileEntry]]) -> str | None:
        """The dtype that most changed bytes took on; None if no tensor changed its dtype."""
        sizes: dict[str, int] = {}
        for before, after in changes:
            assert isinstance(before.content, Safetensors)
            assert isinstance(after.content, Safetensors)
            for old, new in zip(before.content.tensors, after.content.tensors, strict=True):
                if old.tensor != new.tensor:
                    dtype = self._tensor(new.tensor).dtype
                    if self._tensor(old.tensor).dtype != dtype:
                        sizes[dtype] = sizes.get(dtype, 0) + self._tensor_bytes(new.tensor)
        return max(sizes, key=lambda name: (sizes[name], name)) if sizes else None

    def _in_line(self, file: FileEntry, dtype: str, total_bytes: int) -> FileEntry:
        """A config or shard index that says what the output is; any other file as it is."""
        if not isinstance(file.content, Blob):
            return file
        name = file.path.rpartition("/")[2]
        if name == "config.json" and dtype in TORCH_NAMES:
            new = b'\\1"%s"' % TORCH_NAMES[dtype].encode()
            return self._substitute(file, _DTYPE, new)
        if name.endswith(".safetensors.index.json"):
            return self._substitute(file, _TOTAL_SIZE, b"\\g<1>%d" % total_bytes)
        return file

    def _substitute(self, file: FileEntry, pattern: re.Pattern[bytes], new: bytes) -> FileEntry:
        assert isinstance(file.content, Blob)
        old = self._read(file.content.data)
        text = pattern.sub(new, old)
        if text == old or not _is_json(text):
            return file
        limit = self._tensor(file.content.data).block_bytes
        return FileEntry(file.path, file.executable, len(text), Blob(self._write(text, limit)))

    def _tensor(self, identity: ObjectId) -> Tensor:
        pending = self.sink.pending_object(identity)
        if pending is not None:
            return decode(pending, Tensor, f"object {identity.hex()[:12]}")
        return self.objects.tensor(identity)

    def _tensor_bytes(self, identity: ObjectId) -> int:
        return tensor_bytes(self._tensor(identity))

    def _read(self, identity: ObjectId) -> bytes:
        return b"".join(self.reader.read(self._tensor(identity).block_ids()))

    def _write(self, data: bytes, limit: int) -> ObjectId:
        """Bytes as a U8 tensor cut at `limit`, in the sink."""
        ids: list[BlockId] = []
        for begin, end in spans(len(data), limit):
            piece = memoryview(data)[begin:end]
            identity = block_id(piece)
            if not self.sink.has_block(identity):
                self.sink.add_block(self.encoder.encode(identity, piece, U8, None))
            ids.append(identity)
        return self.sink.add_object(encode(Tensor(U8.name, (len(data),), limit, b"".join(ids))))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
