"""The remote behind a lazy clone: connected to when it is needed, and again after it was lost."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError, NoRepository, RemoteUnreachable

_CONNECTIONS = 8


class FarSide:
    """One remote, called `name`, that `connect` reaches. May be used from any thread."""

    def __init__(self, connect: Callable[[], ByteStore], name: str) -> None:
        self.name = name
        self._connect = connect
        self._lock = threading.Lock()
        self._store: ByteStore | None = None
        self._pool: ThreadPoolExecutor | None = None

    @contextlib.contextmanager
    def reached(self, what: str) -> Iterator[ByteStore]:
        """The remote's byte store, for `what`. Raises RemoteUnreachable naming both."""
        try:
            with self._lock:
                if self._store is None:
                    self._store = self._connect()
                store = self._store
            yield store
        except (RemoteUnreachable, NoRepository) as error:
            self._drop()
            raise RemoteUnreachable(
                f"{what} must come from {self.name}, which cannot be reached: {error.message}",
                "this clone is lazy: what was not read yet is there only; try again when it is up",
            ) from error

    def workers(self) -> ThreadPoolExecutor:
        """Threads for exchanges side by side."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="lazy")
            return self._pool

    def close(self) -> None:
        """Close the line and end the threads; the next use opens them again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        self._drop()

    def after_fork(self) -> None:
        """In the child: line and threads are the parent's."""
        self._lock = threading.Lock()
        self._store = None
        self._pool = None

    def _drop(self) -> None:
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(MergepipeError, OSError):
                store.close()
