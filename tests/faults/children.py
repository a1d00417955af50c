"""Processes that may be killed, and cost milliseconds: forked from one that has all loaded."""

import contextlib
import functools
import multiprocessing
import multiprocessing.context
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from mergepipe.api import Repository
from tests.repository.checkpoints import WHO

from .limits import LIMIT_S


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.processes", "faults.warm"])
    # Python 3.11 does not hand its path on to the server, where an import that fails is no error.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


class Child:
    """A process that says where it is, over a pipe: `begun`, refs that moved, how it ended."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        context = _context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.said: list[str] = []

    def wait_until_it_begins(self) -> object:
        """Return once it is about to work; what it says then."""
        assert self._pipe.poll(LIMIT_S), "a process does not start"
        return self._pipe.recv()

    def go(self) -> None:
        """Let it work."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def finish(self) -> str:
        """How it ended: `done`, the name of an error, or `killed`. Fails if it hangs."""
        self._process.join(LIMIT_S)
        hangs = self._process.is_alive()
        self._process.kill()
        self._process.join()
        with contextlib.suppress(EOFError, OSError):
            while self._pipe.poll():
                self.said.append(self._pipe.recv())
        self._pipe.close()
        assert not hangs, f"a process hangs; it said {self.said}"
        ends = [word for word in self.said if not word.startswith("refs/")]
        return ends[-1] if ends else "killed"

    @property
    def moved(self) -> list[str]:
        """Refs that it was told of."""
        return [word for word in self.said if word.startswith("refs/")]


def serve_in_child(pipe: Connection, folder: Path) -> None:
    """What `mp serve` does, without the time that it takes to load; says its port."""
    from mergepipe.transfer.receiving import ReceivingStore
    from mergepipe.transfer.serving.http import Service
    from mergepipe.transfer.serving.listening import bind, listen
    from mergepipe.transfer.serving.offer import Offer

    with (
        Repository.open(folder, who=WHO) as repo,
        ReceivingStore(repo) as store,
        bind("127.0.0.1", 0, guarded=False) as listening,
    ):
        port = listening.getsockname()[1]
        listen(Service(Offer(store)), listening, lambda: pipe.send(port))


def serve_hub_in_child(pipe: Connection, folder: Path, idle_s: float) -> None:
    """The same with the hub, and as much patience as is given."""
    from mergepipe.hub.repositories import Repositories
    from mergepipe.hub.site import Site
    from mergepipe.transfer.serving.listening import bind, server

    with (
        Repository.open(folder, who=WHO) as repository,
        Repositories(Repository) as repositories,
        bind("127.0.0.1", 0, guarded=False) as listening,
    ):
        repositories.add(repository)
        with Site(repositories, idle_s=idle_s) as site:
            pipe.send(listening.getsockname()[1])
            server(site, idle_s).run(sockets=[listening])
