"""How many expert bytes a merge may read."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from mergepipe.errors import OverBudget, UsageError
from mergepipe.sizes import format_size, parse_size

_SHARE = re.compile(r"\s*(raw:)?\s*(\d+(?:\.\d+)?)\s*%\s*")
_HINT = "write a size (2GiB), a share of the full plan (25%) or of the models (raw:10%), or none"


class Of(StrEnum):
    """What a share is a share of."""

    FULL_PLAN = "full"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in bytes, or a share; neither: no limit."""

    size_bytes: int | None = None
    share: float | None = None
    of: Of = Of.FULL_PLAN

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """From `2GiB`, `25%`, `raw:10%`, or `none`. Raises UsageError."""
        if text is None or text.strip().lower() in ("", "none"):
            return cls()
        match = _SHARE.fullmatch(text.lower())
        if match is None:
            try:
                return cls(size_bytes=parse_size(text))
            except UsageError:
                raise UsageError(f"not a budget: {text!r}", _HINT) from None
        return cls(share=float(match[2]) / 100, of=Of.RAW if match[1] else Of.FULL_PLAN)

    def limit_bytes(self, *, full_bytes: int, raw_bytes: int) -> int | None:
        """The limit, given what the full plan reads and what the experts measure; None: none."""
        if self.size_bytes is not None:
            return self.size_bytes
        if self.share is None:
            return None
        return int(self.share * (raw_bytes if self.of is Of.RAW else full_bytes))


def too_small(limit_bytes: int, least_bytes: int) -> OverBudget:
    """The error of a budget that buys nothing."""
    return OverBudget(
        f"a budget of {_exactly(limit_bytes)} reads nothing of any expert; "
        f"the least that does is {_exactly(least_bytes)}",
        f"give at least --budget {least_bytes}",
    )


def _exactly(size_bytes: int) -> str:
    rounded = format_size(size_bytes)
    exact = f"{size_bytes} B"
    return exact if rounded == exact else f"{rounded} ({exact})"
