"""What a transfer needs of the repository on this side; `api.opened.OpenRepository` has it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.repository.config import Config
from mergepipe.repository.hooks import Hooks
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refs import RefStore


class Home(Protocol):
    """An open repository of this machine."""

    storage: Storage
    objects: ObjectStore
    refs: RefStore

    guard: Callable[[], None]
    """Asked before anything is written; it raises if it is not to be."""

    @property
    def directory(self) -> Path:
        """Where it lies."""
        ...

    @property
    def config(self) -> Config:
        """Its settings."""
        ...

    @property
    def lock_timeout_s(self) -> float:
        """How long to wait for other processes."""
        ...

    @property
    def threads(self) -> int:
        """Threads that work on blocks."""
        ...

    @property
    def hooks(self) -> Hooks:
        """Its owner's programs."""
        ...

    def signature(self) -> Signature:
        """Who acts, at this moment."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Hold off gc while there is in the store what nothing names yet. Raises Locked."""
        ...
