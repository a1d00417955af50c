"""Places of stores, as values: a worker opens them where it is."""

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.bytestore.ahead import AheadStore
from mergepipe.bytestore.cloud import open_bucket
from mergepipe.bytestore.elsewhere import located
from mergepipe.bytestore.local import LocalByteStore, LocalWriter
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError
from mergepipe.packs.reader import pack_key
from mergepipe.packs.written import WrittenPack


class FilesPlace(Struct, frozen=True):
    """A repository's directory, on a file system that workers see under the same path.

    session  a folder in it that is there while the coordinator writes: so a worker knows that it
             sees the same directory, and not its own machine's of that name
    """

    path: str
    session: str = "packs"

    def open(self) -> ByteStore:
        """Its files. Raises MergepipeError where they are not seen from here."""
        root = Path(self.path)
        if not located(root, self.session).is_dir():
            raise MergepipeError(
                f"the worker does not see the repository at {self.path}",
                "put it on a file system that every machine of the cluster mounts there, "
                "or use a bucket (docs/cluster.md)",
            )
        return LocalByteStore(root)

    def settle(self, store: ByteStore, packs: Sequence[WrittenPack], /) -> tuple[WrittenPack, ...]:
        """Make packs durable where they are; the coordinator moves them."""
        settled = []
        for pack in packs:
            assert isinstance(store, LocalByteStore) and isinstance(pack.writer, LocalWriter)
            pack.writer.sync()
            settled.append(replace(pack, key=store.key_of(pack.writer), writer=None))
        return tuple(settled)


class BucketPlace(Struct, frozen=True):
    """A repository in a bucket, at `scheme://bucket/prefix`, as a remote is.

    Credentials are those of the environment, profile or role where it is opened; none travel.
    """

    scheme: str
    bucket: str
    prefix: str

    def open(self) -> ByteStore:
        """The bucket, read ahead. Raises UsageError (no obstore there), AuthenticationError."""
        return AheadStore(open_bucket(self.scheme, self.bucket, self.prefix, os.environ))

    def settle(self, store: ByteStore, packs: Sequence[WrittenPack], /) -> tuple[WrittenPack, ...]:
        """Send packs to where they belong: nothing names them until the commit does."""
        settled = []
        for pack in packs:
            assert pack.writer is not None
            key = pack_key(pack.entry.id)
            store.publish([(pack.writer, key)])
            settled.append(replace(pack, key=key, writer=None))
        return tuple(settled)
