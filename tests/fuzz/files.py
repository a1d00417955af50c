"""Parsers of files: checkpoints that come from anywhere, packs, objects and the index."""

import contextlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import torch

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.codecs import frames
from mergepipe.errors import Corruption
from mergepipe.formats.adapter_config import read_config
from mergepipe.formats.config_json import parse_config
from mergepipe.formats.huggingface import parse_index
from mergepipe.formats.safetensors import is_lfs_pointer, parse_header
from mergepipe.formats.torch_pickle import read_pickle
from mergepipe.formats.tree import scan_file
from mergepipe.ids import ObjectId, PackId, digest
from mergepipe.lazy.promised_pack import PromisedPack, promised_key
from mergepipe.objects.encoding import decode, encode, kind_of
from mergepipe.objects.records import (
    Blob,
    Commit,
    FileEntry,
    Record,
    Safetensors,
    Snapshot,
    Tensor,
    TensorEntry,
)
from mergepipe.packs.format import TRAILER_BYTES, parse_trailer
from mergepipe.packs.index_check import DamagedPages
from mergepipe.packs.index_pages import check_pages
from mergepipe.packs.reader import pack_key, read_footer, salvage_records
from mergepipe.vocabularies.sentencepiece import read_pieces
from mergepipe.vocabularies.tokenizer_reading import read_vocabulary
from tests.packs.test_packs import PAYLOADS, write_pack

from .parser import Feed, Parser, plain

_HEADER = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F4", "shape": [2, 4], "data_offsets": [4, 8]},
    }
).encode()
_TOKENIZER = json.dumps(
    {
        "added_tokens": [{"id": 3, "content": "<s>", "special": True, "lstrip": False}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    }
).encode()
_ADAPTER = json.dumps(
    {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"q_.*": 4},
        "alpha_pattern": {"v": 2},
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
    }
).encode()


def _pickle(folder: Path) -> tuple[Feed, list[bytes]]:
    path = folder / "x.bin"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        read_pickle(scan_file(path))

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2).bfloat16()}
    torch.save({"model": tensors}, path)
    return feed, [path.read_bytes()]


def _pickled_state(folder: Path) -> tuple[Feed, list[bytes]]:
    """The pickle alone, in an archive that is sound."""
    path = folder / "x.bin"
    feed_file, (whole,) = _pickle(folder)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    state = next(name for name in members if name.endswith("data.pkl"))

    def feed(data: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, data if name == state else content)
        feed_file(path.read_bytes())

    return feed, [members[state]]


def _pack(
    name: str, key_of: Callable[[PackId], str], read: Callable[[MemoryByteStore, PackId], object]
) -> Parser:
    def ready(_: Path) -> tuple[Feed, list[bytes]]:
        written = MemoryByteStore()
        pack = write_pack(written, [payload[:120] for payload in PAYLOADS])
        seed = written.get(pack_key(pack)) or b""

        def feed(data: bytes) -> None:
            # Under the name that its footer has: a forged pack is called so.
            store, identity = MemoryByteStore(), _name_of(data) or pack
            store.put(key_of(identity), data)
            read(store, identity)

        return feed, [seed]

    return Parser(name, ready)


def _name_of(data: bytes) -> PackId | None:
    try:
        length, _ = parse_trailer(data[-TRAILER_BYTES:], "it")
    except Corruption:
        return None
    return PackId(digest(data[:-TRAILER_BYTES][-length:]))


def _salvage(store: MemoryByteStore, pack: PackId) -> None:
    list(salvage_records(store, pack))


def _promised(store: MemoryByteStore, pack: PackId) -> None:
    promised = PromisedPack.load(store, pack)
    list(promised.records(0, promised.size))


def _index(folder: Path) -> tuple[Feed, list[bytes]]:
    with lmdb.open(str(folder), map_size=1 << 20, max_dbs=4) as environment:
        blocks = environment.open_db(b"blocks", dupsort=True)
        cache = environment.open_db(b"cache")
        with environment.begin(write=True) as transaction:
            for number in range(60):
                transaction.put(digest(bytes([number])), b"x" * 29, db=blocks)
                transaction.put(b"same", bytes([number]) * 29, db=blocks)
            transaction.put(b"long", bytes(9000), db=cache)
    path = folder / "data.mdb"
    seed = path.read_bytes().rstrip(b"\0")

    def feed(data: bytes) -> None:
        path.write_bytes(data + bytes(-len(data) % 4096))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            check_pages(descriptor, {b"blocks": True, b"cache": False})
        finally:
            os.close(descriptor)

    return feed, [seed]


def _objects(data: bytes) -> None:
    kind_of(data)
    for kind in (Commit, Snapshot, Tensor):
        with contextlib.suppress(Corruption):
            decode(data, kind, "it")


def _records() -> tuple[Record, ...]:
    one, two, three, four = (ObjectId(digest(bytes([number]))) for number in range(4))
    shards = Safetensors(one, (TensorEntry("a.weight", two), TensorEntry("b", three)))
    return (
        Tensor("BF16", (2, 3), 4096, two + three),
        Snapshot(
            (FileEntry("config.json", False, 5, Blob(one)), FileEntry("m", True, 99, shards)),
        ),
        Commit(one, (two, three), None, "A <a@b>", 1_700_000_000, 60, "why", trained_from=four),
    )


def _codec(data: bytes) -> None:
    frames.decompress(data, 4096)


PARSERS = (
    plain(
        "a safetensors header",
        lambda data: parse_header(data, 8, name="x"),
        struct.pack("<Q", len(_HEADER)) + _HEADER,
    ),
    plain(
        "the text of a safetensors header",
        lambda data: parse_header(struct.pack("<Q", len(data)) + data, 8, name="x"),
        _HEADER,
    ),
    plain(
        "a pointer of git-lfs",
        is_lfs_pointer,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 12\n" % (b"a" * 64),
    ),
    plain(
        "an index of weights",
        lambda data: parse_index(data, "x"),
        b'{"metadata": {"total_size": 8}, "weight_map": {"a": "m-1.safetensors", "b": "m-2"}}',
    ),
    plain("a config of an adapter", lambda data: read_config(data, "x"), _ADAPTER),
    plain(
        "a config of a model",
        parse_config,
        b'{"model_type": "llama", "num_hidden_layers": 2, "text_config": {"a": [1, null, 1.5]}}',
    ),
    plain(
        "a tokenizer",
        lambda data: read_vocabulary({"tokenizer.json": data}, "x"),
        _TOKENIZER,
    ),
    plain(
        "a tokenizer's config",
        lambda data: read_vocabulary(
            {"tokenizer.json": _TOKENIZER, "tokenizer_config.json": data}, "x"
        ),
        b'{"bos_token": "<s>", "added_tokens_decoder": {"3": {"content": "<s>"}}}',
    ),
    plain(
        "pieces of sentencepiece",
        lambda data: read_pieces(data, "x"),
        b"\x0a\x0a\x0a\x03<s>\x15\0\0\0\0\x0a\x05\x0a\x01a\x18\x01",
    ),
    Parser("an archive of torch", _pickle),
    Parser("a pickle of torch", _pickled_state),
    _pack("a pack", pack_key, read_footer),
    _pack("a damaged pack", pack_key, _salvage),
    _pack("a promised pack", promised_key, _promised),
    plain("an object", _objects, *(encode(record) for record in _records())),
    plain("a compressed frame", _codec, frames.compress(bytes(range(256)) * 16, 3)),
    Parser("pages of the index", _index, (DamagedPages,)),
)
