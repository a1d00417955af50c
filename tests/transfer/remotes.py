"""Two repositories and what may lie between them, for tests of what passes."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mergepipe.api import Repository
from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.protocol import ByteStore, ByteWriter
from mergepipe.objects.records import Commit
from mergepipe.packs.transaction import Transaction
from mergepipe.repository.layout import initialise
from mergepipe.transfer.push import Pushed, push
from mergepipe.transfer.push_refs import PushOptions, wanted_refs
from mergepipe.transfer.source import Source
from tests.repository.checkpoints import WHO, bf16, new_repository, write_model

ORIGIN = "refs/remotes/origin/"
CHANCE = np.random.default_rng(11)


def weights(rows: int = 256, columns: int = 512) -> np.ndarray:
    return CHANCE.normal(scale=0.02, size=(rows, columns)).astype(np.float32)


def tuned(values: np.ndarray, rate: float = 1e-3) -> np.ndarray:
    """A fine-tune: every weight moved a little."""
    return (values + CHANCE.normal(scale=rate, size=values.shape)).astype(np.float32)


class Family:
    """A base of bf16 tensors and its fine-tunes, committed as delta-coded blocks."""

    def __init__(self, folder: Path, layers: int = 4, codec: str = "auto") -> None:
        self.folder = folder
        self.repo = new_repository(folder / "here", 256 << 10, codec)
        self.base = {f"layer.{number}": weights() for number in range(layers)}
        self.commit("main", self.base)

    def write(self, name: str, tensors: dict[str, np.ndarray]) -> Path:
        raw = {key: bf16(value) for key, value in tensors.items()}
        return write_model(self.folder / name, raw, config_json=f'{{"name": "{name}"}}')

    def commit(self, branch: str, tensors: dict[str, np.ndarray], base: str | None = None) -> int:
        """Commit a model; returns what it added to the store, in bytes."""
        path = self.write(f"model-{branch}-{CHANCE.integers(1 << 40)}", tensors)
        result = self.repo.commit(path, message=branch, branch=branch, base=base)
        return result.stored_bytes

    def tune(self, branch: str, base: str = "main") -> int:
        """One more fine-tune of the base; returns what it added to the store."""
        return self.commit(branch, {key: tuned(w) for key, w in self.base.items()}, base)

    def orphan(self, branch: str, revision: str) -> None:
        """The model of a revision on a branch that has no other history, and no base."""
        snapshot = self.repo.commit_of(revision)[1].snapshot
        with self.repo.writing(), Transaction(self.repo.storage) as transaction:
            commit = Commit(snapshot, (), None, WHO.author, WHO.time, 0, branch)
            identity = self.repo.objects.put(commit, transaction)
            transaction.publish()
        ref = f"refs/heads/{branch}"
        self.repo.refs.update(ref, identity, expected=None, who=WHO, why="orphan")

    def push(self, store: ByteStore, *refs: str, remote: str = "", **options: object) -> Pushed:
        asked = PushOptions(refs, **options)  # type: ignore[arg-type]
        wanted = wanted_refs(asked, self.repo.refs, self.repo.objects, remote)
        return push(self.source(), store, wanted)

    def source(self, **more: Any) -> Source:
        repo = self.repo
        return Source(
            repo.storage, repo.objects, repo.blocks, effort=repo.config.store.codec, **more
        )


class Interposed(ForwardingStore):
    """A byte store behind another one, that may do something before it acts, and closes it."""

    @property
    def inner(self) -> ByteStore:
        return self._store

    @inner.setter
    def inner(self, store: ByteStore) -> None:
        self._store = store

    def close(self) -> None:
        self.inner.close()


class Line(Interposed):
    """Counts what is published, and breaks after so many packs."""

    def __init__(self, inner: ByteStore, breaks_after: int | None = None) -> None:
        super().__init__(inner)
        self.breaks_after = breaks_after
        self.packs: list[str] = []
        self._lock = threading.Lock()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        with self._lock:
            if self.breaks_after is not None and len(self.packs) >= self.breaks_after:
                raise ConnectionResetError("the line broke")
            self.packs += [key for _, key in values]
            self.inner.publish(values)


class HoldingLine(Line):
    """The same for a store that can tell what it holds."""

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        found: list[bool] = self.inner.holds(ids)  # type: ignore[attr-defined]
        return found


def same_models(a: Repository, b: Repository, folder: Path, *revisions: str) -> bool:
    """Whether revisions check out as the same files, byte for byte."""
    for revision in revisions:
        here, there = folder / f"a-{revision}", folder / f"b-{revision}"
        a.checkout(revision, to=here)
        b.checkout(revision, to=there)
        files = {path.name: path.read_bytes() for path in here.iterdir()}
        if not files or files != {path.name: path.read_bytes() for path in there.iterdir()}:
            return False
    return True


@contextmanager
def copied(store: ByteStore, folder: Path) -> Iterator[Repository]:
    """A repository of what a store without code of its own holds."""
    directory = initialise(folder)
    for prefix in ("packs/", "refs/"):
        for key in store.list(prefix):
            path = directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(key) or b"")
    with Repository.open(folder, who=WHO) as repo:
        yield repo


def clone_of(family: Family, tmp_path: Path, **options: object) -> Repository:
    Repository.clone(str(family.folder / "here"), tmp_path / "clone", who=WHO, **options)  # type: ignore[arg-type]
    return Repository.open(tmp_path / "clone", who=WHO)
