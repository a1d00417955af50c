"""What speaks against a plan."""

import pytest

from mergepipe.planner.verdict import Doubt, Served, doubts


def kinds(experts: list[tuple[int, float]], kept: float, measured: int = 0) -> list[Doubt]:
    served = [Served(f"e{place}", *one) for place, one in enumerate(experts)]
    return [one.kind for one in doubts(served, kept, measured, "sce")]


@pytest.mark.parametrize(
    ("experts", "kept", "measured", "expected"),
    [
        ([(50, 0.9), (50, 0.8)], 0.85, 0, []),
        ([(50, 0.3), (50, 0.4)], 0.35, 0, [Doubt.LITTLE_ENERGY]),
        ([(60, 0.9), (40, 0.1)], 0.8, 0, [Doubt.STARVED_EXPERT]),
        ([(80, 0.9), (20, 0.5)], 0.8, 0, [Doubt.DOMINANT_EXPERT]),
        ([(41, 0.9), (15, 0.5), (15, 0.5), (15, 0.5), (14, 0.5)], 0.8, 0, [Doubt.DOMINANT_EXPERT]),
        ([(100, 0.9)], 0.9, 0, []),
        ([(50, 0.9), (50, 0.8)], 0.85, 48, [Doubt.MEASURING]),
        ([(0, 0.0), (0, 0.0)], 0.0, 0, [Doubt.LITTLE_ENERGY]),
    ],
)
def test_doubts(
    experts: list[tuple[int, float]], kept: float, measured: int, expected: list[Doubt]
) -> None:
    assert kinds(experts, kept, measured) == expected
