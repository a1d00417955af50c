"""A store with tensors in it, and no repository around it."""

from contextlib import contextmanager

import numpy as np

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import DTYPES
from mergepipe.ids import block_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import block_bytes, spans
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.index import Index
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction


def to_raw(values, dtype):
    """float64 to raw bytes of a dtype, any rounding."""
    if dtype == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1"}[dtype]).tobytes()


class Shelf:
    """Tensors by id."""

    def __init__(self, directory, block_size=16384):
        directory.mkdir(parents=True)
        self.storage = Storage(LocalByteStore(directory), Index(directory / "index"))
        self.objects = ObjectStore(self.storage)
        self.blocks = BlockReader(self.storage)
        self.block_size = block_size

    def put(self, values, dtype):
        """Store an array, its blocks raw; returns the tensor's id."""
        raw, kind = to_raw(values, dtype), DTYPES[dtype]
        limit = block_bytes(kind, values.shape, self.block_size)
        ids = []
        with Transaction(self.storage) as transaction:
            for begin, end in spans(len(raw), limit):
                ids.append(block_id(raw[begin:end]))
                block = encode_block(ids[-1], raw[begin:end], kind, codec_named("raw"))
                transaction.add_block(block)
            tensor = Tensor(dtype, values.shape, limit, b"".join(ids))
            identity = transaction.add_object(encode(tensor))
            transaction.publish()
        return identity

    def get(self, identity):
        """A tensor's record and bytes."""
        tensor = self.objects.tensor(identity)
        return tensor, b"".join(self.blocks.read(tensor.block_ids()))


@contextmanager
def shelf(directory, **options):
    found = Shelf(directory, **options)
    try:
        yield found
    finally:
        found.storage.close()
