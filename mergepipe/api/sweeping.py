"""What each of several budgets would buy: a value that prints and becomes a data frame."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from msgspec import Struct

from mergepipe.errors import UsageError
from mergepipe.reprs import html_table
from mergepipe.sizes import format_size

SHARES = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Of the expert bytes of the exact merge: what a sweep tries unless told otherwise."""
_BAR = 30  # characters


class SweepPoint(Struct, frozen=True):
    """One budget: `budget` as `--budget` takes it, expert bytes read, share of the energy kept."""

    budget: str
    read_bytes: int
    energy_kept: float


class BudgetSweep(Struct, frozen=True):
    """Budgets in rising order. A plan for one of them may keep a little less (`energy_curve`)."""

    points: tuple[SweepPoint, ...]

    def __iter__(self) -> Iterator[SweepPoint]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        """A table with a bar for each budget."""
        lines = [f"{'budget':>8}  {'read':>10}  energy kept"]
        for point in self.points:
            bar = "#" * round(_BAR * point.energy_kept)
            lines.append(
                f"{point.budget:>8}  {format_size(point.read_bytes):>10}  "
                f"{point.energy_kept:>6.1%}  {bar}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        rows = [
            (
                point.budget,
                format_size(point.read_bytes),
                f"{point.energy_kept:.1%}",
                "\u2588" * round(_BAR * point.energy_kept),
            )
            for point in self.points
        ]
        return html_table("What budgets buy", ("budget", "read", "energy kept", ""), rows)

    def cheapest(self, energy_kept: float) -> SweepPoint | None:
        """The first point that keeps this share (0 to 1) of the energy; None if none does."""
        return next((point for point in self.points if point.energy_kept >= energy_kept), None)

    def to_frame(self) -> Any:
        """A data frame of pandas, or of polars where there is no pandas.

        Raises UsageError where neither is installed.
        """
        columns = {
            "budget": [point.budget for point in self.points],
            "read_bytes": [point.read_bytes for point in self.points],
            "energy_kept": [point.energy_kept for point in self.points],
        }
        for library in ("pandas", "polars"):
            try:
                frames: Any = import_module(library)
            except ImportError:
                continue
            return frames.DataFrame(columns)
        raise UsageError("a data frame needs pandas or polars", "pip install pandas")


def checked_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """Shares in rising order, each once. Raises UsageError for one that is none."""
    for share in shares:
        if not 0 < share <= 1:
            raise UsageError(f"a share of the exact merge is above 0 and at most 1, not {share:g}")
    return tuple(sorted(set(shares)))


def percent(share: float) -> str:
    """A share as `--budget` takes it."""
    return f"{100 * share:.6g}%"
