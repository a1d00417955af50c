"""Remotes that answer what is not so."""

import itertools
from collections.abc import Callable, Iterator

from mergepipe.bytestore.protocol import ByteStore

from .forging import noise
from .remotes import Interposed


class Liar(Interposed):
    """A remote that answers as it likes."""

    def __init__(self, inner: ByteStore, **lies: Callable[..., object]) -> None:
        super().__init__(inner)
        self._lies = lies
        self.asked = 0

    def __getattribute__(self, name: str) -> object:
        lies: dict[str, Callable[..., object]] = object.__getattribute__(self, "__dict__").get(
            "_lies", {}
        )
        if name in lies:
            self.asked += 1
            return lies[name]
        return object.__getattribute__(self, name)


def endless_packs(prefix: str) -> Iterator[str]:
    return (f"packs/{number:064x}.pack" for number in itertools.count())


def zeros(key: str, offset: int, out: memoryview) -> int:
    return len(out)


def nothing(key: str, offset: int, out: memoryview) -> int:
    return 0


def too_much(key: str, offset: int, out: memoryview) -> int:
    return len(out) + 1000


def gone(key: str, offset: int, out: memoryview) -> int:
    raise FileNotFoundError(key)


def noisy(key: str, offset: int, out: memoryview) -> int:
    out[:] = noise(len(out))
    return len(out)


A_COMMIT = b"0" * 64 + b"\n"
LIES: dict[str, dict[str, Callable[..., object]]] = {
    "too many refs": {
        "values": lambda prefix: {f"refs/heads/b{n}": A_COMMIT for n in range(150_000)}
    },
    "a name that is a path": {"values": lambda prefix: {"refs/heads/../../x": A_COMMIT}},
    "a name with control characters": {"values": lambda prefix: {"refs/heads/\x1b[2J": A_COMMIT}},
    "a name that is an option": {"values": lambda prefix: {"refs/heads/--force": A_COMMIT}},
    "a value that is no id": {"values": lambda prefix: {"refs/heads/main": b"ref: refs/heads/x"}},
    "packs without end": {"list": endless_packs},
    "all bytes zero": {"read_into": zeros},
    "no bytes": {"read_into": nothing},
    "more bytes than asked for": {"read_into": too_much},
    "packs that are never there": {"read_into": gone},
    "noise": {"read_into": noisy},
    "packs of absurd size": {"size": lambda key: 1 << 62},
    "packs of no size": {"size": lambda key: 0},
    "packs of negative size": {"size": lambda key: -1},
}
