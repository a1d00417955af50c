"""Who may ask a server for what: tokens and their scopes, and no page of somebody's browser."""

import base64
import binascii
import re
from collections.abc import Mapping

from mergepipe.errors import AuthenticationError
from mergepipe.transfer.serving.tokens import Scope, Tokens

_BASIC = re.compile(r"basic +(?P<pair>[A-Za-z0-9+/]{0,4096}={0,2}) *", re.IGNORECASE)
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class NotAllowed(AuthenticationError):
    """A good token, or none needed, but not for this."""


class Gate:
    """What every request passes first. Without tokens only this machine is let in."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    @property
    def guarded(self) -> bool:
        """Whether a token is needed."""
        return self._tokens is not None

    def check(self, headers: Mapping[str, str], needed: Scope) -> None:
        """Let a request with these headers (names in lower case) pass.

        Raises AuthenticationError for no or an unknown token, NotAllowed.
        """
        self.check_caller(headers)
        self._check_token(headers.get("authorization", ""), needed)

    def check_browser(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that only reads; a browser has sent its token as a password.

        Not one that writes: browsers send passwords along wherever a link of anybody's leads.
        Raises AuthenticationError for no or an unknown token, NotAllowed.
        """
        self.check_caller(headers)
        self._check_token(_as_bearer(headers.get("authorization", "")), Scope.READ)

    def _check_token(self, given: str, needed: Scope) -> None:
        if self._tokens is None:
            return
        allowed = self._tokens.scope(given)
        if allowed is Scope.NONE:
            raise AuthenticationError(
                "this token is not known here" if given else "a token is needed",
                "set MP_TOKEN, or put it into .mergepipe/tokens: docs/remotes.md",
            )
        if allowed < needed:
            raise NotAllowed("this token may only read", "a push needs one that may write")

    def check_caller(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that shows in another way what it may do. Raises NotAllowed."""
        # A page in somebody's browser reaches loopback too, under a name of its own even
        # (DNS rebinding). Browsers name the page's origin; we are never asked by a page.
        if "origin" in headers:
            raise NotAllowed("requests of web pages are refused")
        if self._tokens is None and not _LOOPBACK.fullmatch(headers.get("host", "")):
            raise NotAllowed("without tokens, only localhost is served")

    def scope(self, headers: Mapping[str, str]) -> Scope:
        """The most that a request may do; it has passed already."""
        if self._tokens is None:
            return Scope.WRITE
        return self._tokens.scope(headers.get("authorization", ""))

    def name(self, headers: Mapping[str, str]) -> str:
        """What the log of pushes calls the token that a request came with."""
        if self._tokens is None:
            return ""
        return self._tokens.name(_as_bearer(headers.get("authorization", "")))


def _as_bearer(authorization: str) -> str:
    """A header as one with a token, where it has one as the password of any user (RFC 7617)."""
    basic = _BASIC.fullmatch(authorization)
    if basic is None:
        return authorization
    try:
        pair = base64.b64decode(basic["pair"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return authorization
    return f"Bearer {pair.partition(':')[2]}"
