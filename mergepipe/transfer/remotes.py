"""Remotes by name: what `config.toml` says of them, and what may be said there."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.repository.config import RemoteSettings
from mergepipe.transfer.urls import RemoteUrl, Scheme, parse_url

DEFAULT_REMOTE = "origin"

# A name is a folder of refs/remotes/ and part of an environment variable (MP_TOKEN_<NAME>): no `/`,
# so that no remote's branches lie inside another's.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def check_remote_name(name: str) -> str:
    """Return `name` if a remote may be called that. Raises UsageError."""
    if _NAME.fullmatch(name) and ".." not in name and not name.endswith((".", ".lock")):
        return name
    raise UsageError(
        f"not a name for a remote: {quoted(name)}",
        "letters, digits, '-', '_' and '.', as in origin",
    )


def check_remote_url(text: str, here: Path | None = None) -> RemoteUrl:
    """The URL of a remote to be. Raises UsageError for one that cannot be a remote."""
    url = parse_url(text, here)
    if url.scheme is Scheme.HUB:
        raise UsageError(
            "the Hugging Face hub is no remote: it has models, and no history of ours",
            f"mp commit {url}; mp push {url}",
        )
    return url


def find_remote(
    remotes: Mapping[str, RemoteSettings], wanted: str | None, here: Path | None = None
) -> tuple[str, RemoteUrl]:
    """Name (empty for one given as a URL) and URL of a remote; None: origin, or the only one.

    `here` is where relative paths in the settings begin. Raises UsageError.
    """
    if wanted is None:
        wanted = DEFAULT_REMOTE if len(remotes) != 1 else next(iter(remotes))
        if wanted not in remotes:
            raise UsageError(
                "which remote?" if remotes else "there is no remote yet",
                "mp remote add origin URL" if not remotes else f"there are {', '.join(remotes)}",
            )
    if wanted in remotes:
        return wanted, check_remote_url(remotes[wanted].url, here)
    if not any(letter in wanted for letter in ":/"):
        raise UsageError(
            f"no remote is called {quoted(wanted)}",
            f"the remotes are: {', '.join(remotes)}" if remotes else f"mp remote add {wanted} URL",
        )
    return "", check_remote_url(wanted)


def add_remote(
    remotes: Mapping[str, RemoteSettings],
    configure: Callable[[str, str | None], None],
    name: str,
    text: str,
) -> RemoteUrl:
    """Set a new remote through `configure` (key, value). Raises UsageError, ConfigError."""
    check_remote_name(name)
    if name in remotes:
        raise UsageError(
            f"there is a remote {quoted(name)} already: {remotes[name].url}",
            f"mp remote rm {name}, or mp config remote.{name}.url URL",
        )
    url = check_remote_url(text)
    configure(f"remote.{name}.url", url.shown)
    return url
