"""Receiving repositories behind real servers, and how other processes reach them."""

import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import msgspec
import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.retries import Retries
from mergepipe.bytestore.ssh import ssh_store
from mergepipe.ids import ObjectId
from mergepipe.repository.layout import DIRECTORY
from mergepipe.transfer.connect import file_remote
from mergepipe.transfer.remote_refs import read_refs
from tests.repository.checkpoints import WHO
from tests.transfer.remotes import copied

from .children import Child, serve_in_child

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits for a silent server, and how often it tries again."""

    idle_s: float = IDLE_S
    retries: Retries | None = None


CALM = Patience()
HASTY = (Patience(0.5, Retries(3, 0.01, 0.1)), Patience(0.5, Retries(0)))
"""One that rides out most faults, and one that gives up at the first."""


@dataclass(frozen=True, slots=True)
class Place:
    """A receiving repository and its server's port; `line` is where clients go instead.

    `bucket` is where there is no repository: `folder` is then for copies of what it holds.
    """

    scheme: str
    folder: Path
    port: int = 0
    line: int = 0
    ssh: str = ""
    program: str = ""
    bucket: str = ""

    def connect(self, patience: Patience = CALM) -> ByteStore:
        """What a client uses."""
        port = self.line or self.port
        idle_s, retries = patience.idle_s, patience.retries
        if self.scheme == "http":
            return HttpByteStore(f"http://127.0.0.1:{port}", idle_s=idle_s, retries=retries)
        if self.scheme == "ssh":
            return ssh_store(
                "127.0.0.1",
                str(self.folder),
                port=port,
                command=f"{self.ssh} -o HostKeyAlias=[127.0.0.1]:{self.port}",
                program=self.program,
                idle_s=max(idle_s, 3.0),  # a server in Python has to start
                patience_s=max(idle_s, 8.0),
                retries=retries,
            )
        if self.scheme == "s3":
            from mergepipe.bytestore.cloud import open_bucket

            environment = self._s3().Bucket(self.port, self.bucket).environment(port)
            return open_bucket("s3", self.bucket, self.folder.name, environment, idle_s=idle_s)
        return file_remote(Repository.open(self.folder, who=WHO))

    def direct(self) -> "Place":
        """The same, without a line that breaks."""
        return replace(self, line=0)

    def refs(self) -> dict[str, ObjectId | None]:
        """Branches and tags as they are."""
        if not self.bucket:
            with Repository.open(self.folder) as repo:
                return dict(repo.refs.list())
        with self.direct().connect() as store:
            return dict(read_refs(store).values)

    def packs(self) -> set[str]:
        """Keys of packs that arrived whole, taken in or not."""
        if not self.bucket:
            folder = self.folder / DIRECTORY
            found = [*folder.glob("packs/*.pack"), *folder.glob("incoming/*.pack")]
            return {f"packs/{path.name}" for path in found}
        with self.direct().connect() as store:
            return set(store.list("packs/"))

    @contextmanager
    def opened(self) -> Iterator[Repository]:
        """The repository; of a bucket, a copy of all that it holds."""
        if not self.bucket:
            with Repository.open(self.folder, who=WHO) as repo:
                yield repo
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with self.direct().connect() as store, copied(store, self.folder) as repo:
            yield repo

    @staticmethod
    def _s3() -> ModuleType:
        from tests.bytestore import s3

        return s3


Make: TypeAlias = Callable[[Path], Place]
"""Makes an empty receiving repository in a new folder, and has it served."""


def _init(folder: Path) -> None:
    with Repository.init(folder, who=WHO) as repository:
        # Whoever races may wait for the others as long as a machine is slow.
        repository.configure("core.lock_timeout", "600")


@contextmanager
def file_places() -> Iterator[Make]:
    """Repositories on this machine."""

    def make(folder: Path) -> Place:
        _init(folder)
        return Place("file", folder)

    yield make


@contextmanager
def http_places() -> Iterator[Make]:
    """Each behind an `mp serve` of its own; the one before is stopped."""
    running: list[subprocess.Popen[bytes]] = []

    def make(folder: Path) -> Place:
        stop()
        _init(folder)
        process, port = start_server(folder)
        running.append(process)
        return Place("http", folder, port)

    def stop() -> None:
        while running:
            running[-1].kill()
            running.pop().communicate()

    try:
        yield make
    finally:
        stop()


@contextmanager
def forked_places() -> Iterator[Make]:
    """The same code, in processes that start in no time."""
    running: list[Child] = []

    def make(folder: Path) -> Place:
        stop()
        _init(folder)
        running.append(Child(serve_in_child, folder))
        return Place("http", folder, int(str(running[-1].wait_until_it_begins())))

    def stop() -> None:
        while running:
            running[-1].kill()
            running.pop().finish()

    try:
        yield make
    finally:
        stop()


def start_server(folder: Path, port: int = 0) -> tuple["subprocess.Popen[bytes]", int]:
    """`mp serve`, once it listens, and its port."""
    command = [sys.executable, "-m", "mergepipe", "serve", "--json", "--port", str(port)]
    process = subprocess.Popen([*command, folder], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    url = msgspec.json.decode(process.stdout.readline())["url"]
    return process, int(url.rpartition(":")[2])


@contextmanager
def ssh_places(folder: Path) -> Iterator[Make]:
    """Behind one sshd, which runs `mp serve --stdio` for every client."""
    from tests.bytestore import sshd

    if sshd.SSHD is None:
        pytest.skip("no sshd here")
    folder.mkdir()
    program = folder / "mp"
    program.write_text(
        textwrap.dedent(f"""\
            #!/bin/sh
            PYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -m mergepipe "$@"
        """)
    )
    program.chmod(0o755)
    with sshd.running(folder / "sshd") as server:

        def make(folder: Path) -> Place:
            _init(folder)
            return Place("ssh", folder, server.port, ssh=server.command, program=str(program))

        yield make


@contextmanager
def s3_places() -> Iterator[Make]:
    """Buckets of one moto server."""
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    from tests.bytestore import s3

    with s3.serving() as new_bucket:

        def make(folder: Path) -> Place:
            bucket = new_bucket()
            return Place("s3", folder, bucket.port, bucket=bucket.name)

        yield make


@contextmanager
def places(scheme: str, folder: Path) -> Iterator[Make]:
    """What makes receiving repositories of a scheme; `forked` is http without the time it takes."""
    kinds = {"file": file_places, "http": http_places, "forked": forked_places, "s3": s3_places}
    with ssh_places(folder / "ssh") if scheme == "ssh" else kinds[scheme]() as make:
        yield make
