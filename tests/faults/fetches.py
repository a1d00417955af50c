"""A server of a few commits, and those who read from it over a line that breaks."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import RemoteUnreachable
from mergepipe.ids import ObjectId
from mergepipe.repository.layout import DIRECTORY
from mergepipe.transfer.fetch import Fetched, fetch
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Wanted
from tests.repository.checkpoints import WHO

from .limits import soon, within_limit
from .places import CALM, Make, Patience, Place, places
from .proxy import Effect, Fault, Proxy, Traffic, proxied
from .source import Models, source_of

PACK_BYTES = 32 << 10
_COMMITS = 5
_SLACK_BYTES = 16 << 10
ORIGIN = "refs/remotes/origin/"


class Library:
    """A repository that is served and does not change, and what a reader begins with.

    `starts`: an empty repository, and one that has the first two commits; copies are fetched into.
    """

    def __init__(self, folder: Path, place: Place, proxy: Proxy | None, seed: int) -> None:
        self.folder = folder
        self.place = place if proxy is None else replace(place, line=proxy.port)
        self.proxy = proxy
        self.chance = np.random.default_rng(seed)
        self.starts = [folder / "empty", folder / "half"]
        self.refs: dict[str, ObjectId] = {}
        self.usual = [Traffic(0, 0, 0, ())] * len(self.starts)
        self._count = 0

    def fill(self, models: Models) -> None:
        """Push all the models there, and note what reading them usually takes."""
        for start in self.starts:
            Repository.init(start, who=WHO).close()
        for number in range(_COMMITS):
            tip = models.tune()
            if number == 1 or number == _COMMITS - 1:
                other = models.branch_off(f"other-{number}")
                self.refs = {"main": tip, f"other-{number}": other} | {
                    name: at for name, at in self.refs.items() if name != "main"
                }
                wanted = [Wanted(f"refs/heads/{name}", at) for name, at in self.refs.items()]
                with self.place.connect() as store:
                    push(source_of(models.repo), store, wanted)
            if number == 1:
                self.fetch(self.starts[1])
        for at in range(len(self.starts)):
            with self.reader(at) as folder:
                if self.proxy is not None:
                    self.proxy.arm()
                self.fetch(folder)
                if self.proxy is not None:
                    self.usual[at] = self.proxy.traffic

    @contextmanager
    def reader(self, start: int) -> Iterator[Path]:
        """A copy of one of the starts."""
        self._count += 1
        folder = self.folder / f"reader-{self._count}"
        shutil.copytree(self.starts[start], folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def fetch(
        self, folder: Path, patience: Patience = CALM, store: ByteStore | None = None
    ) -> Fetched:
        """Fetch all branches."""
        with (
            Repository.open(folder, who=WHO) as repo,
            store or self.place.connect(patience) as line,
        ):
            return fetch(repo, "origin", line, pack_bytes=PACK_BYTES)

    def faults(self, effects: Sequence[Effect], start: int) -> list[Fault]:
        """One to three faults, somewhere in what a fetch usually moves."""
        usual = self.usual[start]
        found = []
        for _ in range(self.chance.integers(1, 4)):
            effect = Effect(self.chance.choice(list(effects)))
            to_server = bool(self.chance.random() < 0.3)
            reach = usual.up if to_server else usual.down
            if effect not in (Effect.CUT, Effect.STALL):
                reach = usual.exchanges
            found.append(Fault(effect, int(self.chance.integers(reach)), to_server))
        return found

    def check(self, folder: Path, start: int, *, done: bool) -> None:
        """Refs as they were or as they are there, all of what they name whole."""
        old = self._refs(self.starts[start])
        new = {f"{ORIGIN}{name}": at for name, at in self.refs.items()}
        assert (now := self._refs(folder)) in ([new] if done else [old, new]), now
        with Repository.open(folder, who=WHO) as repo:
            report = repo.fsck(read_data=True)
        assert report.ok, report.problems

    def finish(self, folder: Path, start: int) -> None:
        """A fetch without faults: it completes, and brings nothing that had come whole."""
        kept = sum(path.stat().st_size for path in (folder / DIRECTORY).glob("incoming/*.pack"))
        over = self._refs(folder) != self._refs(self.starts[start])
        if self.proxy is not None:
            self.proxy.arm()
        within_limit(lambda: self.fetch(folder))
        if self.proxy is not None:
            most = 0 if over else self.usual[start].down - kept
            assert self.proxy.traffic.down < most + _SLACK_BYTES, (self.proxy.traffic, kept)
        self.check(folder, start, done=True)
        directory = folder / DIRECTORY
        assert list(directory.glob("incoming/*.pack")) == []
        assert soon(lambda: not [one for one in (directory / "tmp").rglob("*") if one.is_file()])

    @staticmethod
    def _refs(folder: Path) -> dict[str, ObjectId]:
        with Repository.open(folder) as repo:
            return dict(repo.refs.list())


@contextmanager
def library(scheme: str, folder: Path, seed: int) -> Iterator[Library]:
    """One that is served, behind a proxy where there is a server."""
    with contextlib.ExitStack() as stack:
        make: Make = stack.enter_context(places(scheme, folder))
        place = make(folder / "there")
        proxy = stack.enter_context(proxied(place.port)) if place.port else None
        made = Library(folder, place, proxy, seed)
        models = Models(folder / "source", seed)
        stack.callback(models.close)
        made.fill(models)
        yield made


def gives_up(library: Library, folder: Path, patience: Patience) -> bool:
    """Whether a fetch over a line that breaks gave up; it may tell of nothing else."""
    try:
        within_limit(lambda: library.fetch(folder, patience))
    except RemoteUnreachable:
        return True
    return False
