"""What the operations of a repository return, beside what lower layers return themselves."""

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from mergepipe.ids import ObjectId
from mergepipe.reprs import brief
from mergepipe.transfer.healing import Healed

if TYPE_CHECKING:
    from mergepipe.checkpoints.requests import CommitResult
    from mergepipe.transfer.fetch import Fetched
    from mergepipe.transfer.hub import HubUpload
    from mergepipe.transfer.push import Pushed
    from mergepipe.transfer.urls import RemoteUrl


@brief
class Imported(Struct, frozen=True):
    """One model of an import list.

    read  whether its files were read at all; not if they are those that the branch already holds
    """

    path: Path
    branch: str
    result: "CommitResult"
    read: bool


@brief
class FetchResult(Struct, frozen=True):
    """A fetch that succeeded, and the URL it was from."""

    url: str
    fetched: "Fetched"
    healed: Healed = field(default_factory=Healed)
    """What was damaged or missing here, and came again."""


@brief
class PullResult(Struct, frozen=True):
    """A pull: the fetch, and where the current branch (short name) was and is.

    `files`: whether the worktree follows. `behind`: the remote's branch, if it is at an earlier
    commit than the current one, and `went_back` if this fetch is what moved it there.
    """

    fetch: FetchResult
    branch: str
    old: ObjectId | None
    new: ObjectId
    files: bool
    behind: str | None = None
    went_back: bool = False


@brief
class CloneResult(Struct, frozen=True):
    """A clone: its directory, the branch (short name) HEAD is on, and its tip (None: empty).

    `stood`: another process made just this clone before, and nothing was to be done.
    """

    directory: Path
    fetch: FetchResult
    branch: str
    commit: ObjectId | None
    files: bool
    lazy: bool
    stood: bool = False


class PushResult(Struct, frozen=True):
    """A push that succeeded. `remote` is its name, or empty for one given as a URL."""

    remote: str
    url: str
    pushed: "Pushed"


class Uploaded(Struct, frozen=True):
    """A revision that went to the hub: its commit here, and what that became there."""

    url: "RemoteUrl"
    commit: ObjectId
    files: int
    raw_bytes: int
    upload: "HubUpload"
