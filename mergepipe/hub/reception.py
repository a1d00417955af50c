"""What every way of sending files shares: where they wait, and how a request's bytes get there."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from mergepipe.hub.addresses import Address
from mergepipe.hub.arrivals import Arrivals
from mergepipe.hub.models import Model, find_model
from mergepipe.hub.passes import Passes
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.requests import read_document
from mergepipe.hub.staging import StagedFile, Staging, Upload
from mergepipe.hub.work import Work
from mergepipe.transfer.serving import http_bodies


@dataclass(frozen=True, slots=True)
class Reception:
    """Takes in documents and files. A client that sends nothing for `idle_s` is let go."""

    repositories: Repositories
    arrivals: Arrivals
    passes: Passes
    work: Work
    idle_s: float

    async def model(self, address: Address) -> Model:
        """The model that is written to, which may be new. Raises HubError."""
        return await self.work.call(find_model, self.repositories, address.model, new=True)

    def staging(self, model: Model) -> Staging:
        """Where files of a model wait."""
        return self.arrivals.of(model.repository)

    async def document(self, request: Request) -> dict[str, Any]:
        """The object of JSON that a request's body is. Raises HubError."""
        return await read_document(request, self.idle_s)

    async def receive(self, request: Request, take: Callable[..., None], limit: int) -> None:
        """Give a body to `take`, piece by piece and on threads. Raises what it raises, TooLarge."""

        def on_threads(*pieces: bytes) -> Awaitable[None]:
            return self.work.call(take, *pieces)

        await http_bodies.receive(request, on_threads, limit, self.idle_s)

    @asynccontextmanager
    async def upload(self, staging: Staging, size: int | None = None) -> AsyncIterator[Upload]:
        """A file on its way in, of `size` bytes if that is known; an error here forgets it."""
        upload = await self.work.call(staging.begin, size)
        try:
            yield upload
        except BaseException:
            await self.work.call(upload.abort)
            raise

    async def file(
        self,
        request: Request,
        staging: Staging,
        limit: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        lasting: bool = False,
    ) -> StagedFile:
        """The file that a body is: of this size and hash, where they are known. Raises HubError."""
        async with self.upload(staging, size) as upload:
            await self.receive(request, upload.write, limit)
            return await self.work.call(upload.finish, sha256, lasting=lasting)
