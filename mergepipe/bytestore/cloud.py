"""A byte store in a bucket: S3 and what speaks its protocol; gs:// and az:// by the same library.

obstore (https://developmentseed.org/obstore) does the requests. Google's and Azure's stores have
not been tried by this project: what holds for them is what obstore says of them.

What a bucket promises: an object is replaced as a whole, and reads and listings see what was
written before (https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel);
a write can be made to fail if the object is there (If-None-Match) or is another (If-Match). What it
does not: a removal under a condition that all of them know. So a value that is swapped to None is
replaced by an empty object, under the same condition as any swap, and an empty object is no value.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.protocol import Buffer, ByteWriter, Turn
from mergepipe.bytestore.spool import SpoolWriter
from mergepipe.closing import Closing
from mergepipe.errors import (
    AuthenticationError,
    MergepipeError,
    RemoteRefused,
    RemoteUnreachable,
    UsageError,
)
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from obstore.store import ObjectStore

WRITES = "mergepipe-writes"
"""Key of an object's metadata: the ids of the writes that made it what it is, newest first."""
_WRITES_KEPT = 16
# In a storm of writers each round has a winner, so this many means that many others went ahead.
_MOST_ROUNDS = 64
_WRITES_REPEATED = 3

_LARGEST_VALUE = 128 << 20
_MOST_KEYS = 4_000_000
_MOST_VALUES = 4_000_000
_MOST_VALUE_BYTES = 1 << 30
_VALUES_AT_ONCE = 16
# Above this an upload goes in parts: six of 8 MiB or so are in memory at once.
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 4

_CLIENT = {
    "connect_timeout": timedelta(seconds=10),
    "timeout": timedelta(minutes=15),
    "user_agent": "mergepipe",
}
_RETRIES = {
    "max_retries": 4,
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
    "retry_timeout": timedelta(minutes=2),
}
_SHOWN = 300


class Dated(NamedTuple):
    """Of a value: its size in bytes, and when it was written (Unix seconds, the bucket's clock)."""

    size: int
    at_s: float


class CloudByteStore(Closing):
    """Keys are objects of a bucket, below a prefix. `shown` names the place in messages."""

    def __init__(self, store: "ObjectStore", shown: str) -> None:
        self._store = store
        self.shown = shown

    def close(self) -> None:
        """Connections are closed when they have been idle."""

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        answer = self._read(key)
        return None if answer is None else answer[0]

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value, in one request."""
        if not len(out):
            return 0
        import obstore

        with self._failing(key):
            try:
                piece = obstore.get_range(self._store, _checked(key), start=offset, length=len(out))
            except obstore.exceptions.GenericError:
                # Past the end is an error to a bucket (416): looked at only where there is one.
                size = self.size(key)
                if size is None:
                    raise FileNotFoundError(key) from None
                if offset < size:
                    raise
                return 0
        view = memoryview(piece)
        out[: len(view)] = view
        return len(view)

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        import obstore

        try:
            with self._failing(key):
                return int(obstore.head(self._store, _checked(key))["size"]) or None
        except FileNotFoundError:
            return None

    def modified(self, key: str) -> float | None:
        """When the value was last written, in Unix seconds by the bucket's clock; None: none is."""
        import obstore

        try:
            with self._failing(key):
                meta = obstore.head(self._store, _checked(key))
                return meta["last_modified"].timestamp() if meta["size"] else None
        except FileNotFoundError:
            return None

    def dated(self, prefix: str) -> dict[str, Dated]:
        """Every value under the folder `prefix`: how large it is, and when it was written."""
        return self._listed(prefix, _MOST_KEYS)

    def writing(self, command: str) -> Turn:
        """The turn of a writer, as `bucket_turns` has it. Raises Locked while gc is at work."""
        from mergepipe.bytestore.bucket_turns import Writing

        return Writing(self, command)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted. Raises RemoteRefused for absurdly many."""
        return iter(sorted(self._listed(prefix, _MOST_KEYS)))

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder, read side by side. Raises RemoteRefused for absurdly many."""
        sizes = self._listed(prefix, _MOST_VALUES)
        if sum(one.size for one in sizes.values()) > _MOST_VALUE_BYTES:
            raise RemoteRefused(f"{self.shown} has more than {_MOST_VALUE_BYTES} bytes in {prefix}")
        keys = sorted(sizes)
        with ThreadPoolExecutor(_VALUES_AT_ONCE, thread_name_prefix="values") as pool:
            contents = pool.map(self.get, keys)
            return {
                key: value for key, value in zip(keys, contents, strict=True) if value is not None
            }

    def create(self) -> SpoolWriter:
        """Begin a value."""
        return SpoolWriter()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Upload values one after the other, large ones in parts; what is there is not sent."""
        import obstore

        for writer, key in values:
            assert isinstance(writer, SpoolWriter)
            if self.size(key) != writer.size:
                with self._failing(key):
                    obstore.put(
                        self._store,
                        _checked(key),
                        map(bytes, writer.pieces(_PART_BYTES)),
                        use_multipart=writer.size > _PART_BYTES,
                        chunk_size=_PART_BYTES,
                        max_concurrency=_PARTS_AT_ONCE,
                    )
            writer.abort()

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value."""
        import obstore

        with self._failing(key):
            obstore.put(self._store, _checked(key), bytes(value))

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace `old` by `new` on the condition that the object is the one that was looked at.

        Every write is signed with an id that stays in the object's metadata while the next 15 are
        made. So one whose answer was lost, or that was refused when the library sent it a second
        time, is recognised as ours. New values must not be empty.
        """
        import obstore

        write = os.urandom(16).hex()
        broken = 0
        for _ in range(_MOST_ROUNDS):
            answer = self._read(key)
            value, version, writes = (None, None, ()) if answer is None else answer
            if write in writes:
                return True
            if value != old:
                return False
            if value is None and new is None:
                return True
            try:
                with self._failing(key):
                    obstore.put(
                        self._store,
                        _checked(key),
                        new or b"",
                        mode="create" if version is None else version,
                        attributes={WRITES: ",".join((write, *writes)[:_WRITES_KEPT])},
                        use_multipart=False,
                    )
                    return True
            except _Conflict:
                continue
            except RemoteUnreachable:
                # It may have been done, may be about to be, or not: the same write once more is
                # refused or found in the two first cases.
                broken += 1
                if broken > _WRITES_REPEATED:
                    raise
        raise RemoteUnreachable(f"{key} at {self.shown} changes too fast to be swapped")

    def delete(self, key: str) -> None:
        """Remove the object."""
        import obstore

        with self._failing(key), suppress(FileNotFoundError):
            obstore.delete(self._store, _checked(key))

    def _read(self, key: str) -> tuple[bytes | None, Any, tuple[str, ...]] | None:
        """Value (None: removed by a swap), version for a condition, and ids of the last writes."""
        import obstore

        try:
            with self._failing(key):
                answer = obstore.get(self._store, _checked(key))
        except FileNotFoundError:
            return None
        with self._failing(key):
            meta = answer.meta
            if meta["size"] > _LARGEST_VALUE:
                raise RemoteRefused(f"{key} at {self.shown} is absurdly large for a value")
            value = bytes(answer.bytes())
            writes = answer.attributes.get(WRITES, "")
            version = {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
        return value or None, version, tuple(writes.split(",")[:_WRITES_KEPT] if writes else ())

    def _listed(self, prefix: str, most: int) -> dict[str, Dated]:
        """Sizes and times of the values in a folder, by key."""
        import obstore

        sizes: dict[str, Dated] = {}
        with self._failing(prefix):
            for page in obstore.list(self._store, prefix.rstrip("/") or None):
                # A bucket has no folders: `refs` may be a key beside `refs/x`.
                sizes |= {
                    each["path"]: Dated(each["size"], each["last_modified"].timestamp())
                    for each in page
                    if each["size"] and each["path"].startswith(prefix)
                }
                if len(sizes) > most:
                    raise RemoteRefused(f"{self.shown} lists more than {most} keys in {prefix}")
        return sizes

    @contextmanager
    def _failing(self, key: str) -> Iterator[None]:
        """Errors of the library as ours; FileNotFoundError stays what it is."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError) as error:
            raise AuthenticationError(
                f"{self.shown} does not let us at {key or 'it'}: {_words(error)}",
                "check AWS_ACCESS_KEY_ID or AWS_PROFILE, and what they may do there",
            ) from error
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise _Conflict from error
        except FileNotFoundError as error:
            self._check_bucket(error)
            raise
        except (exceptions.BaseError, ValueError) as error:
            self._check_bucket(error)
            if "/latest/" in _words(error):  # the metadata service of AWS, the last one to be asked
                raise AuthenticationError(
                    f"there are no keys for {self.shown}",
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                ) from error
            raise RemoteUnreachable(
                f"{self.shown} cannot be used: {_words(error)}",
                "check the endpoint (AWS_ENDPOINT_URL), the region and the keys",
            ) from error

    def _check_bucket(self, error: Exception) -> None:
        """A bucket that is not there is no empty one, though both are a 404."""
        if any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound")):
            raise RemoteRefused(f"there is no bucket at {self.shown}") from error


class _Conflict(Exception):
    """The object is not the one that a write was made for."""


def open_bucket(
    scheme: str,
    bucket: str,
    prefix: str,
    environment: Mapping[str, str],
    *,
    idle_s: float = IDLE_S,
) -> CloudByteStore:
    """The store at `s3://bucket/prefix` (gs, az), with credentials found as its own tools do.

    Raises UsageError if the extra is not installed, AuthenticationError.
    """
    try:
        import obstore.store as stores
        from obstore.exceptions import BaseError
    except ImportError as error:
        raise UsageError(
            f"{scheme}:// needs obstore, which is not installed", "pip install 'mergepipe[cloud]'"
        ) from error
    from mergepipe.bytestore.aws_profile import s3_settings

    shown = f"{scheme}://{bucket}" + (f"/{prefix}" if prefix else "")
    shared: dict[str, Any] = {"prefix": prefix or None, "retry_config": _RETRIES}
    # `read_timeout` is for a connection that is idle, `timeout` for a request in all.
    client: dict[str, Any] = {**_CLIENT, "read_timeout": timedelta(seconds=idle_s)}
    make: Any
    if scheme == "s3":
        shared |= s3_settings(environment)
        # An endpoint is typed by the user: `http://` there says that it has no TLS.
        client["allow_http"] = shared.get("endpoint", "").startswith("http://")
        make = stores.S3Store
    else:
        make = stores.GCSStore if scheme == "gs" else stores.AzureStore
    try:
        return CloudByteStore(make(bucket, client_options=client, **shared), shown)
    except (BaseError, ValueError) as error:
        raise AuthenticationError(f"{shown} cannot be used: {_words(error)}") from error


def _checked(key: str) -> str:
    """The library would make `a//b` and `a/../b` other keys without a word."""
    if any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
        raise MergepipeError(f"not a key: {key!r}")
    return key


def _words(error: Exception) -> str:
    """What the library says, without the trace behind it."""
    return escape_for_terminal(str(error).split("\n\nDebug source", 1)[0].strip(), _SHOWN)
