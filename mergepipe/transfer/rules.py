"""What the owner of a repository lets others do to its refs: settings, hooks, tombstones.

Every method raises RemoteRefused, in words for whoever pushes.
"""

from mergepipe.errors import HookFailed, RemoteRefused
from mergepipe.ids import NO_ID, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.store import ObjectStore
from mergepipe.repository import tombstones
from mergepipe.repository.history import is_ancestor
from mergepipe.repository.hooks import PRE_RECEIVE
from mergepipe.repository.refnames import TAGS, short_name
from mergepipe.transfer.home import Home


class Rules:
    """The rules of one repository."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def may_begin(self, key: str, old: ObjectId | None, new: ObjectId | None) -> None:
        """Before anything is admitted: whether a ref may go, and a tag move."""
        if new is None:
            if self._home.refs.head().branch == key:
                raise RemoteRefused(
                    f"{quoted(short_name(key))} is the current branch there",
                    "`mp switch` to another one there first",
                )
            if self._home.config.receive.deny_force:
                raise RemoteRefused(f"{key}: receive.deny_force is set there: nothing is removed")
        elif old is not None and key.startswith(TAGS) and self._home.config.receive.deny_force:
            raise RemoteRefused(f"{key}: receive.deny_force is set there: tags stay")

    def may_end(self, sent: ObjectStore, key: str, old: ObjectId | None, new: ObjectId) -> None:
        """Once history is here, as `sent` (in quarantine or not): whether the move goes forward."""
        if old is None or not self._home.config.receive.deny_force:
            return
        if not is_ancestor(sent, old, new):
            raise RemoteRefused(
                f"{key}: receive.deny_force is set there, and {new.hex()[:12]} does not descend "
                f"from {old.hex()[:12]}",
                "fetch, merge, and push the result",
            )

    def ask_hook(self, key: str, old: ObjectId | None, new: ObjectId | None) -> None:
        """Let the owner's hook have a say. Raises RemoteRefused with its words."""
        ids = " ".join((NO_ID if one is None else one).hex() for one in (old, new))
        told = {"MP_REF": key, "MP_WHO": self._home.signature().author}
        try:
            self._home.hooks.run(PRE_RECEIVE, told, [f"{ids} {key}"])
        except HookFailed as error:
            raise RemoteRefused(
                f"{key}: {error.message}", "whoever runs that repository knows"
            ) from error


def refuse_purged(
    sent: ObjectStore,
    new: ObjectId,
    stones: tombstones.Tombstones,
    taker: str = "this repository",
) -> None:
    """No ref of `taker` comes to stand at a model that was removed there, whoever commits it."""
    stone = stones and stones.of(new, sent.commit(new).snapshot)
    if stone:
        raise RemoteRefused(
            f"the model of {new.hex()[:12]} was {stone}: {taker} does not take it",
            f"mp purge --lift {stone.commit.hex()[:12]} there allows it again",
        )
