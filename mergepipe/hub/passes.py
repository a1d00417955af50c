"""Addresses that may be written to by whoever was given them, as git-lfs has it, for a day."""

import hmac
import secrets
from collections.abc import Callable, Mapping

_VALID_S = 24 * 3600


class Passes:
    """Signs what may be done, with a key that lives as long as the server."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._key = secrets.token_bytes(32)
        self._now = now

    def issue(self, *words: str) -> dict[str, str]:
        """What to put into an address so that `holds` of the same words is true."""
        until = str(int(self._now()) + _VALID_S)
        return {"until": until, "pass": self._sign(until, words)}

    def holds(self, query: Mapping[str, str], *words: str) -> bool:
        """Whether an address was given out for these words, and its day is not over."""
        until = query.get("until", "")
        if not (until.isdecimal() and until.isascii() and len(until) < 20):
            return False
        given = query.get("pass", "").encode()
        good = hmac.compare_digest(self._sign(until, words).encode(), given)
        return good and int(until) > self._now()

    def _sign(self, until: str, words: tuple[str, ...]) -> str:
        text = "\0".join((until, *words)).encode()
        return hmac.new(self._key, text, "sha256").hexdigest()
