"""Packs, objects, refs and files, as docs/format.md has them; no index."""

import struct

import msgspec
from blake3 import blake3

from .codecs import DECODERS

NO_ID = bytes(32)


def digest(data):
    return blake3(data).digest()


class Repository:
    """The folder that is `.mergepipe` elsewhere."""

    def __init__(self, folder):
        self.folder = folder
        self.objects, self.records, self.blocks = {}, {}, {}
        for path in sorted((folder / "packs").glob("*.pack")):
            self._read_pack(path)

    def _read_pack(self, path):
        data = path.read_bytes()
        magic, version, content = struct.unpack_from("<8sII", data)
        assert (magic, version) == (b"MPPACK\r\n", 1)
        count, length, identity, end = struct.unpack("<QQ32s8s", data[-56:])
        assert (end, length) == (b"MPEND\r\n\0", 136 * count)
        footer = data[-56 - length : -56]
        assert digest(footer) == identity == bytes.fromhex(path.stem)
        at = 16
        for number in range(count):
            entry = footer[136 * number : 136 * number + 136]
            assert data[at : at + 128] == entry[:128]
            assert struct.unpack("<Q", entry[128:]) == (at,)
            head = struct.unpack("<4sBBBBB7sQQ32s32s32s", entry[:128])
            magic, kind, codec, version, layer, layers, zero, raw, size, name, base, check = head
            payload = data[at + 128 : at + 128 + size]
            assert (magic, kind, zero, version) == (b"MPR1", content, bytes(7), 1)
            assert digest(entry[:96] + digest(payload)) == check
            if kind == 1:
                canonical = DECODERS[codec]([payload], None, raw)
                assert digest(canonical) == name
                self.objects[name] = canonical
            else:
                key = (base, codec, layers, raw)
                self.records.setdefault(name, {}).setdefault(key, {})[layer] = payload
            at += 128 + size
        assert at == len(data) - 56 - length

    def block(self, name):
        """A block's bytes, by every encoding that it has."""
        if name not in self.blocks:
            for (base, codec, layers, length), payloads in self.records[name].items():
                if len(payloads) == layers:
                    under = None if base == NO_ID else self.block(base)
                    raw = DECODERS[codec]([payloads[k] for k in range(layers)], under, length)
                    assert digest(raw) == name
                    self.blocks[name] = raw
        return self.blocks[name]

    def object(self, name, kind):
        """The fields of an object; its bytes must be the canonical ones of these fields."""
        canonical = self.objects[name]
        head, _, body = canonical.partition(b"\n")
        assert head.decode() == kind
        fields = msgspec.msgpack.decode(body)
        assert canonical_bytes(kind, fields) == canonical
        return fields

    def tensor(self, name):
        """(dtype, shape, block_bytes, block ids, bytes)."""
        dtype, shape, size, blocks = self.object(name, "tensor 1")
        names = [blocks[at : at + 32] for at in range(0, len(blocks), 32)]
        raw = b"".join(self.block(one) for one in names)
        return dtype, shape, size, names, raw

    def commit(self, ref):
        """Its id and fields; version 2 has one more, what the model was trained from."""
        name = bytes.fromhex((self.folder / "refs" / ref).read_text().strip())
        version = 1 + self.objects[name].startswith(b"commit 2\n")
        fields = self.object(name, f"commit {version}")
        assert len(fields) == 8 + version
        return name, fields

    def files(self, snapshot):
        """Path and bytes of every file."""
        for path, _, size, content in self.object(snapshot, "snapshot 1")[0]:
            raw = self.tensor(content[1])[4]
            if content[0] == "safetensors":
                raw += b"".join(self.tensor(tensor)[4] for _, tensor in content[2])
            assert len(raw) == size
            yield path, raw

    def named(self, snapshot):
        """Name -> tensor id."""
        return {
            name: tensor
            for _, _, _, content in self.object(snapshot, "snapshot 1")[0]
            if content[0] == "safetensors"
            for name, tensor in content[2]
        }


def canonical_bytes(kind, fields):
    return kind.encode() + b"\n" + msgspec.msgpack.encode(fields)


def identity(kind, fields):
    return digest(canonical_bytes(kind, fields))
