"""What is made once for each key."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from mergepipe.parallel import OnceEach


def test_threads_that_ask_together_get_what_one_of_them_made() -> None:
    made: OnceEach[object] = OnceEach()
    together = Barrier(4)

    def ask() -> object:
        together.wait()
        return made.get("key", object)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ask(), range(4)))
    assert len(set(map(id, found))) == 1
    assert made.known("key") is found[0] and made.known("other") is None


def test_one_key_does_not_wait_for_another() -> None:
    made: OnceEach[int] = OnceEach()
    begun, may_end = Event(), Event()

    def slowly() -> int:
        begun.set()
        may_end.wait()
        return 1

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(made.get, "slow", slowly)
        begun.wait()
        try:
            assert made.get("quick", lambda: 2) == 2
        finally:
            may_end.set()
        assert slow.result() == 1


def test_what_failed_is_made_anew() -> None:
    made: OnceEach[bool] = OnceEach()

    def fail() -> bool:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        made.get("key", fail)
    assert made.get("key", lambda: False) is False
    assert made.get("key", fail) is False
