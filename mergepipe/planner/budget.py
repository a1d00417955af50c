"""How many expert bytes a merge may read."""

import re
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Self

from mergepipe.errors import OverBudget, UsageError
from mergepipe.sizes import format_size, parse_size

_SHARE = re.compile(r"\s*(raw:)?\s*(\d+(?:\.\d+)?)\s*%\s*")
_HINT = "write a size (2GiB), a share of the full plan (25%) or of the models (raw:10%), or none"


_PLAIN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*")
_LOOSE = re.compile(r"\s*(raw)?[\s:=]*(\d+(?:\.\d+)?)\s*(?:%*|percent)\s*")
_LIKELY_PERCENT = 100


def _meant(text: str) -> str:
    """What somebody surely meant by a text that is no budget: a share, if it is near to one."""
    loose = _LOOSE.fullmatch(text.lower())
    if loose is None or float(loose[2]) > _LIKELY_PERCENT:
        return _HINT
    # 0.1 is how others write 10%.
    percent = float(loose[2]) * (100 if 0 < float(loose[2]) < 1 else 1)
    if loose[1]:
        return f"did you mean --budget raw:{percent:g}% (of the experts' own size)?"
    return (
        f"did you mean --budget {percent:g}% (of what the exact merge reads) or "
        f"raw:{percent:g}% (of the experts' own size)? A size has a unit, such as 2GiB"
    )


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
    def parse(cls, text: str | float | None) -> Self:
        """From `2GiB`, `25%`, `raw:10%`, or `none`; a number is bytes. Raises UsageError.

        Numbers up to 100 are refused: nobody means bytes by them, and shares are of two things.
        """
        if isinstance(text, int | float):
            if isinstance(text, bool) or not isfinite(text):
                raise UsageError(f"not a budget: {text!r}", _HINT)
            text = str(int(text)) if text == int(text) else f"{text:f}".rstrip("0")
        if text is None or text.strip().lower() in ("", "none"):
            return cls()
        match = _SHARE.fullmatch(text.lower())
        if match is None:
            plain = _PLAIN.fullmatch(text)
            if plain is not None and float(plain[1]) <= _LIKELY_PERCENT:
                raise UsageError(
                    f"a budget of {text.strip()} would be bytes, which reads nothing", _meant(text)
                )
            try:
                return cls(size_bytes=parse_size(text))
            except UsageError:
                raise UsageError(f"not a budget: {text!r}", _meant(text)) from None
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
        f"give at least --budget {least_bytes}B; a share, such as 25% or raw:10%, fits any model",
    )


def _exactly(size_bytes: int) -> str:
    rounded = format_size(size_bytes)
    exact = f"{size_bytes} B"
    return exact if rounded == exact else f"{rounded} ({exact})"
