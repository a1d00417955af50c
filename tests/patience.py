"""How long to wait for what is to lose its patience: a little, and longer on a slow machine."""

from collections.abc import Iterator

LIMIT_S = 600.0


def patiences(first_s: float) -> Iterator[float]:
    """Seconds, doubled each time that the machine was too slow for so few."""
    patience_s = first_s
    while patience_s < LIMIT_S:
        yield patience_s
        patience_s *= 2
