"""What is told of an http server that refuses, that is none of ours, or whose line broke."""

import http.client

from mergepipe.bytestore import wire
from mergepipe.bytestore.http_replies import read_body
from mergepipe.errors import AuthenticationError, MergepipeError, RemoteRefused, RemoteUnreachable
from mergepipe.names import quoted

_PROXY_HINT = "http_proxy=http://NAME:PASSWORD@HOST:PORT names it; no_proxy=HOST goes around it"


class Broken(RemoteUnreachable):
    """A line that broke, as opposed to a server that cannot be trusted."""


def broken(url: str, error: Exception) -> Broken:
    """What is raised for a line to `url` that broke."""
    if "Tunnel connection failed: 407" in str(error):  # what http.client makes of it, for https
        return Broken(f"the proxy on the way to {url} wants a password", _PROXY_HINT)
    return Broken(
        f"cannot reach {url}: {quoted(str(error) or type(error).__name__)}",
        "check the address and the network; what was sent is not sent again",
    )


def refusal(
    response: http.client.HTTPResponse, url: str, *, ours: bool, unsent: str, proxy: str | None
) -> MergepipeError:
    """What is raised for a reply that is no answer. `ours`: mergepipe wrote it.

    `unsent`: the hint where a token was wanted and none sent. `proxy`: through which it came.
    """
    status = response.status
    if ours:
        body = read_body(response, wire.LARGEST_REPLY)
        if body:
            error = wire.error_from(wire.parse(body, wire.ErrorReply, "an error"))
            if isinstance(error, AuthenticationError):
                return AuthenticationError(f"{error.message}, at {url}", unsent or error.hint)
            return error
    if status == 407:
        return AuthenticationError(
            f"the proxy {proxy} wants a password before it lets anything through to {url}"
            if proxy
            else f"{url} answers as a proxy that wants a password",
            _PROXY_HINT,
        )
    if status in (401, 403):
        return AuthenticationError(
            f"{url} answered {status}", unsent or "check the token: docs/remotes.md"
        )
    if 300 <= status < 400:
        return RemoteRefused(f"{url} answers that it is elsewhere", "use the address it has now")
    return RemoteRefused(
        f"there is no mergepipe repository at {url} (it answered {status})",
        "the address is that which `mp serve` printed",
    )
