"""Bearer tokens of a server: which there are, and what each may do."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from mergepipe.errors import ConfigError

_LINE = re.compile(
    r"(?P<scope>read|write)[\s:]+(?:(?P<name>[A-Za-z0-9._@+-]{1,64})[\s:]+)?"
    r"(?P<token>[A-Za-z0-9._~+/-]+=*)"
)
_SHORTEST = 16


class Scope(IntEnum):
    """What a request may do; a greater scope includes the smaller ones."""

    NONE = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by their SHA-256: none is kept as it is, so none can end up in a log or a dump."""

    _scopes: Mapping[bytes, Scope] = field(repr=False)
    _names: Mapping[bytes, str] = field(repr=False, default_factory=dict)

    @classmethod
    def parse(cls, lines: Iterable[str], where: str) -> "Tokens":
        """Tokens from lines of `read TOKEN` and `write NAME TOKEN`; `#` begins a comment.

        The name is for the log of pushes (`push_log.py`).

        Raises ConfigError, which never repeats what it could not read.
        """
        scopes: dict[bytes, Scope] = {}
        names: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise ConfigError(
                    f"{where}, entry {number}: not a token",
                    "write `read TOKEN` or `write NAME TOKEN`",
                )
            if len(match["token"]) < _SHORTEST:
                raise ConfigError(
                    f"{where}, entry {number}: the token is shorter than {_SHORTEST} characters",
                    "openssl rand -hex 32 makes a good one",
                )
            digest = _digest(match["token"])
            scope = Scope[match["scope"].upper()]
            if match["name"]:
                names[digest] = match["name"]
            scopes[digest] = max(scope, scopes.get(digest, Scope.NONE))
        if not scopes:
            raise ConfigError(f"{where} holds no token", "write `read TOKEN` or `write TOKEN`")
        return cls(scopes, names)

    def name(self, authorization: str) -> str:
        """What the log calls the token of an `Authorization` header, known here or not.

        Its name; of one without, digits of its hash, which tell nobody what it is.
        """
        token = authorization.partition(" ")[2].strip()
        if not token:
            return ""
        digest = _digest(token)
        return self._names.get(digest) or f"sha256:{digest.hex()[:8]}"

    def scope(self, authorization: str) -> Scope:
        """What an `Authorization` header allows. Takes the same time whatever it holds."""
        kind, _, token = authorization.partition(" ")
        digest = _digest(token.strip())
        allowed = Scope.NONE
        for known, scope in self._scopes.items():
            if hmac.compare_digest(known, digest):
                allowed = scope
        return allowed if kind.lower() == "bearer" else Scope.NONE


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
