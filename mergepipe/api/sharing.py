"""What passes between a repository and its remotes."""

from typing import TYPE_CHECKING

from mergepipe.api.opened import OpenRepository
from mergepipe.progress import SILENT, Progress

if TYPE_CHECKING:
    # `mp log` need not know how models travel.
    from mergepipe.api.pulling import FetchResult
    from mergepipe.api.pushing import PushResult
    from mergepipe.transfer.credentials import Credentials
    from mergepipe.transfer.fetch import FetchOptions
    from mergepipe.transfer.push_refs import PushOptions


class Sharing(OpenRepository):
    """The side of a repository that talks to others."""

    def push(
        self,
        remote: str | None = None,
        options: "PushOptions | None" = None,
        *,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "PushResult":
        """Send commits to a remote (name or URL; None: origin) and move its refs.

        Raises RefMoved (not a fast-forward, or somebody else was faster), UsageError,
        RevisionNotFound, RemoteUnreachable, RemoteRefused, AuthenticationError.
        """
        from mergepipe.api import pushing

        return pushing.push(self, remote, options, credentials, progress)

    def fetch(
        self,
        remote: str | None = None,
        options: "FetchOptions | None" = None,
        *,
        heal: bool = False,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "FetchResult":
        """Bring what a remote (None: origin) has; `refs/remotes/` follows, nothing else moves.

        What is known to be damaged or missing here comes too; with `heal` all data is read to know.

        Raises RevisionNotFound, RemoteUnreachable, RemoteRefused, AuthenticationError, Corruption
        (the remote is damaged, or lies), NoSpace.
        """
        from mergepipe.api import pulling

        return pulling.fetch(self, remote, options, credentials, progress, heal=heal)
