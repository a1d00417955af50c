"""A repository and a lazy clone of it, over a remote that counts and can be cut off."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import RemoteUnreachable
from mergepipe.ids import PackId
from mergepipe.lazy.frames import bring_frames
from mergepipe.lazy.store import LazyByteStore
from mergepipe.objects.records import Safetensors
from mergepipe.packs.format import Content
from mergepipe.packs.keeping import OwnKeeper
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from tests.repository.checkpoints import WHO, bf16, commit, new_repository, write_model


class CountingRemote(LocalByteStore):
    """A remote that notes what is read of it, and can be cut off."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int, int]] = []
        self.reachable = True
        self.spoilt: set[int] = set()
        self.gate: threading.Event | None = None

    @property
    def bytes(self) -> int:
        return sum(length for _, _, length in self.reads)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        if not self.reachable:
            raise RemoteUnreachable("no answer")
        if self.gate is not None:
            self.gate.wait()
        count = super().read_into(key, offset, out)
        self.reads.append((key, offset, len(out)))
        for at in self.spoilt:
            if offset <= at < offset + count:
                out[at - offset] ^= 1
        return count

    def forget_files(self) -> None:
        """Open files would go on to be read after they were removed."""
        self._files.close()

    def list(self, prefix: str) -> Iterator[str]:
        if not self.reachable:
            raise RemoteUnreachable("no answer")
        return super().list(prefix)


class Clone:
    """A repository, and a lazy clone of it over a remote that counts."""

    def __init__(self, folder: Path) -> None:
        self.origin = folder / "origin/.mergepipe"
        self.directory = folder / "clone/.mergepipe"
        self.remote = CountingRemote(self.origin)
        self.connections = 0
        shutil.copytree(self.origin, self.directory)
        shutil.rmtree(self.directory / "index")
        with LocalByteStore(self.directory) as store:
            for pack in block_packs(store):
                store.delete(pack_key(pack))
            bring_frames(self.remote, store)
        self.remote.reads.clear()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Repository]:
        with self.store() as store, Repository(self.directory, who=WHO) as repository:
            repository.store = repository.storage.store = store
            repository.storage.promises = store
            repository.storage._keeper = OwnKeeper(store, repository.storage.index, store)
            yield repository

    def store(self) -> LazyByteStore:
        def connect() -> CountingRemote:
            self.connections += 1
            if not self.remote.reachable:
                raise RemoteUnreachable("no answer")
            return self.remote

        return LazyByteStore(LocalByteStore(self.directory), connect, "origin")


def block_packs(store: LocalByteStore) -> list[PackId]:
    return [one for one in pack_ids(store) if read_footer(store, one)[0] is Content.BLOCKS]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }


def largest(store: LocalByteStore) -> tuple[PackId, list]:
    pack = max(block_packs(store), key=lambda one: store.size(pack_key(one)) or 0)
    return pack, read_footer(store, pack)[1]


def clone_of_two_models(folder: Path) -> Clone:
    """Branches `main` and `tuned`, a fine-tuned copy; their files lie beside, under these names."""
    random = np.random.default_rng(1)
    base = {f"t{number}": random.standard_normal((64, 256)) for number in range(8)}
    tuned = {name: value + random.standard_normal(value.shape) / 99 for name, value in base.items()}
    with new_repository(folder / "origin", 16384, "auto") as repository:
        for branch, values, under in (("main", base, None), ("tuned", tuned, "main")):
            tensors = {name: bf16(value) for name, value in values.items()}
            commit(repository, write_model(folder / branch, tensors), branch, under)
    return Clone(folder)


def records_of(repository: Repository, revision: str, name: str) -> list[tuple[str, int, int]]:
    """Where the records are that reading a tensor takes: (key, offset, length)."""
    for file in repository.snapshot_of(revision).files:
        if isinstance(file.content, Safetensors):
            for entry in file.content.tensors:
                if entry.name == name:
                    blocks = repository.objects.tensor(entry.tensor).block_ids()
                    chosen = repository.blocks.resolve(blocks)
                    return sorted(
                        {
                            (pack_key(at.pack), at.offset, at.stored_bytes)
                            for encoding in chosen.values()
                            for at in encoding.layers
                        }
                    )
    raise AssertionError(name)
