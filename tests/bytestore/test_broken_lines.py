"""Lines that break at random points: no write is lost or reported wrongly, reads are right."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.retries import Retries
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.errors import MergepipeError, RemoteUnreachable
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.stdio import serve_stdio
from tests.bytestore.bad_lines import cutting
from tests.bytestore.transports import PipePeer, serving

WHOLE = 1 << 40
QUICKLY = Retries(again=4, first_s=0.001, longest_s=0.01)
REF = "refs/heads/main"


class Recording(MemoryByteStore):
    """What really happened to the ref."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[bytes | None] = []

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        swapped = super().compare_and_swap(key, old, new)
        if swapped:
            self.history.append(new)
        return swapped


class Remembering(Recording):
    """A store that knows its writes by their ids, as a repository does."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[bytes, bool] = {}
        self._one = threading.Lock()

    def swap_with_id(self, key: str, old: bytes | None, new: bytes | None, write_id: bytes) -> bool:
        with self._one:
            if write_id not in self._told:
                self._told[write_id] = self.compare_and_swap(key, old, new)
            return self._told[write_id]


class Cuts:
    """How much the next line passes on in each direction: about every second one is cut."""

    def __init__(self, seed: int, largest: int) -> None:
        self._random = random.Random(seed)
        self._largest = largest
        self._lock = threading.Lock()

    def __call__(self) -> tuple[int, int]:
        with self._lock:
            chance = self._random
            to_server, to_client = (int(self._largest ** chance.random()) for _ in range(2))
            return chance.choice(
                [(WHOLE, WHOLE), (WHOLE, WHOLE), (to_server, WHOLE), (WHOLE, to_client)]
            )


class CutPeer:
    """A stdio server behind two pumps that stop after so many bytes."""

    def __init__(self, store: ByteStore, budgets: tuple[int, int]) -> None:
        self._server = PipePeer(lambda stdin, stdout: serve_stdio(store, stdin, stdout))
        inward, self.writing = os.pipe()
        self.reading, outward = os.pipe()
        self._pumps = [
            threading.Thread(target=_pump, args=(inward, os.dup(self._server.writing), budgets[0])),
            threading.Thread(
                target=_pump, args=(os.dup(self._server.reading), outward, budgets[1])
            ),
        ]
        os.close(self._server.writing)
        os.close(self._server.reading)
        for pump in self._pumps:
            pump.start()

    def end(self) -> MergepipeError | None:
        os.close(self.writing)
        os.close(self.reading)
        for pump in self._pumps:
            pump.join()
        self._server.join()
        return None


def _pump(source: int, sink: int, budget: int) -> None:
    with os.fdopen(source, "rb", 0) as from_, os.fdopen(sink, "wb", 0) as to:
        try:
            while budget > 0 and (piece := from_.read(min(65536, budget))):
                to.write(piece)
                budget -= len(piece)
        except OSError:
            return


Connect = Callable[[], ByteStore]


@contextmanager
def over_http(store: ByteStore, cuts: Cuts) -> Iterator[Connect]:
    with serving(Service(Offer(store))) as url, cutting(urlsplit(url).port or 0, cuts) as port:
        yield lambda: HttpByteStore(f"http://127.0.0.1:{port}", retries=QUICKLY)


@contextmanager
def over_stdio(store: ByteStore, cuts: Cuts) -> Iterator[Connect]:
    yield lambda: StdioByteStore(lambda: CutPeer(store, cuts()), "a pipe", retries=QUICKLY)


WIRES = {"http": over_http, "stdio": over_stdio}
RUNS = [40, pytest.param(500, marks=pytest.mark.slow)]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("runs", RUNS)
def test_a_lost_reply_is_no_conflict(wire: str, runs: int) -> None:
    store = Recording()
    with WIRES[wire](store, Cuts(runs, 2000)) as connect:
        value: bytes | None = None
        broken = 0
        for number in range(runs):
            new = b"%d" % number
            with connect() as remote:
                try:
                    # Nobody else writes: anything but True would be a false conflict.
                    assert remote.compare_and_swap(REF, value, new)
                    assert store.get(REF) == new
                except RemoteUnreachable:
                    broken += 1
                    assert store.get(REF) in (value, new)
            value = store.get(REF)
        assert broken < runs / 2
    assert len(store.history) == len(set(store.history))  # none was done twice


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("runs", RUNS)
def test_two_racing_writers_are_told_the_truth(wire: str, runs: int) -> None:
    # Each line over stdio has a server of its own, which cannot know what others were asked.
    store = Recording() if wire == "http" else Remembering()
    told: dict[bytes, bool] = {}
    with WIRES[wire](store, Cuts(runs + 1, 2000)) as connect:

        def write(name: str) -> None:
            for number in range(runs // 2):
                new = f"{name}-{number}".encode()
                with connect() as remote:
                    try:
                        told[new] = remote.compare_and_swap(REF, store.get(REF), new)
                    except RemoteUnreachable:
                        continue

        writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    happened = set(store.history)
    assert told
    assert {new for new, swapped in told.items() if swapped} <= happened
    assert not {new for new, swapped in told.items() if not swapped} & happened


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("runs", RUNS)
def test_what_is_read_is_right_and_what_is_sent_is_whole(wire: str, runs: int) -> None:
    chance = random.Random(runs)
    store = MemoryByteStore()
    value = chance.randbytes(3 << 20)
    pack = f"packs/{'a' * 64}.pack"
    store.put(pack, value)
    came = 0
    with WIRES[wire](store, Cuts(runs + 2, 8 << 20)) as connect:
        for number in range(runs):
            start = chance.randrange(len(value))
            out = bytearray(chance.randrange(1, len(value)))
            sent = f"packs/{number:064x}.pack"
            with connect() as remote:
                try:
                    count = remote.read_into(pack, start, memoryview(out))
                    assert out[:count] == value[start : start + len(out)]
                    assert count == min(len(out), len(value) - start)
                    writer = remote.create()
                    writer.write(value[:start])
                    remote.publish([(writer, sent)])
                    assert store.get(sent) == value[:start]
                    came += 1
                except RemoteUnreachable:
                    assert store.get(sent) in (None, value[:start])
            store.delete(sent)
    assert came > runs / 2
