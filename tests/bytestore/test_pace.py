"""How long the other side may be silent, by a clock that the test moves."""

import pytest

from mergepipe.bytestore.pace import LEAST_BYTES, LONGEST_WORK_S, Pace, Stalled


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_bytes_count_not_calls() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    clock.now_s += 9
    pace.moved(LEAST_BYTES - 1)
    assert pace.left() == pytest.approx(1)
    pace.moved(1)
    assert pace.left() == pytest.approx(10)
    clock.now_s += 10
    with pytest.raises(Stalled, match="10 s"):
        pace.left()


def test_work_may_take_long_but_not_for_ever() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    while clock.now_s + 9 <= 100 + LONGEST_WORK_S:
        clock.now_s += 9
        pace.alive()
        assert pace.left() == pytest.approx(10)
    clock.now_s += 9
    with pytest.raises(Stalled, match="6 hours"):
        pace.alive()
