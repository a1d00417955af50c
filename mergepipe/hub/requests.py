"""What every part of the hub reads of a request."""

import json
from typing import Any

from starlette.requests import Request

from mergepipe.hub.errors import HubError
from mergepipe.transfer.serving.http_bodies import whole_body

LARGEST_REQUEST = 16 << 20
"""In bytes, of one that holds no file."""


async def read_document(request: Request, idle_s: float) -> dict[str, Any]:
    """The object of JSON that a request's body is. Raises HubError, and as `whole_body`."""
    body = await whole_body(request, LARGEST_REQUEST, idle_s)
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise HubError(400, f"a request that cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise HubError(400, "a request is an object of JSON")
    return document


def base_url(request: Request) -> str:
    """Where the client finds us, as it says itself; behind a proxy that speaks TLS too."""
    scheme = request.headers.get("x-forwarded-proto", request.scope["scheme"])
    host = request.headers.get("host") or "{}:{}".format(*request.scope["server"])
    return f"{'https' if scheme == 'https' else 'http'}://{host}"
