"""How many expert bytes a merge may read."""

import re
from enum import StrEnum
from math import isfinite
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.errors import OverBudget, UsageError
from mergepipe.sizes import format_size, parse_size

_SHARE = re.compile(r"\s*(raw:)?\s*(\d+(?:\.\d+)?)\s*%\s*")
_HINT = "write a size (2GiB), a share of the full plan (25%) or of the models (raw:10%), or none"


_PLAIN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*")
_LOOSE = re.compile(r"\s*(raw)?[\s:=]*(\d+(?:\.\d+)?)\s*(?:%*|percent)\s*")
_LIKELY_PERCENT = 100
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


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


class Budget(Struct, frozen=True):
    """A limit in bytes, or a share; neither: no limit.

    with_base  what is read of the base counts as well
    max_share  the share of the budget that one expert may get at most; None: what it is worth
    """

    size_bytes: int | None = None
    share: float | None = None
    of: Of = Of.FULL_PLAN
    with_base: bool = False
    max_share: float | None = None

    @classmethod
    def asked(
        cls,
        budget: str | float | None,
        total: str | float | None = None,
        max_share: str | float | None = None,
    ) -> Self:
        """From `--budget` or `--budget-total` (base included), and `--max-share`.

        Raises UsageError for both budgets, and for a share of none.
        """
        budget_asked = cls.parse(budget)
        if total is not None:
            if not budget_asked.unlimited:
                raise UsageError(
                    "both --budget and --budget-total are given",
                    "--budget is for the experts alone, --budget-total counts the base too",
                )
            budget_asked = replace(cls.parse(total), with_base=True)
        if max_share is None:
            return budget_asked
        if budget_asked.unlimited:
            raise UsageError(
                "--max-share is a share of a budget, and there is none", f"--budget: {_HINT}"
            )
        return replace(budget_asked, max_share=parse_percent(max_share))

    @property
    def unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self.size_bytes is None and self.share is None

    @property
    def text(self) -> str | None:
        """What `parse` makes the same limit of; None without one."""
        if self.size_bytes is not None:
            return f"{self.size_bytes} B"
        if self.share is None:
            return None
        return f"{'raw:' if self.of is Of.RAW else ''}{format_percent(self.share)}"

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


def parse_percent(text: str | float) -> float:
    """`40%`, or 40, as 0.4. Raises UsageError for what is no share of a budget."""
    match = _PERCENT.fullmatch(text if isinstance(text, str) else f"{text:g}")
    percent = 0.0 if match is None else float(match[1])
    if match is not None and not match[2] and 0 < percent < 1:
        raise UsageError(f"--max-share is in percent, and {text} is little", f"{percent:.0%}?")
    if not 0 < percent <= _LIKELY_PERCENT:
        raise UsageError(f"not a share of a budget: {text!r}", "such as --max-share 40%")
    return percent / 100


def format_percent(share: float) -> str:
    """0.4 as `40%`, with all its digits."""
    return f"{100 * share:.12g}%"


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
