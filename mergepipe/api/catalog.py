"""What the planner knows of a repository: revisions, profiles, and where blocks are."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mergepipe.catalog.profiles import Profiles
from mergepipe.engine.measuring import Measuring
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.planner.planner import Revision
from mergepipe.planner.profiles import Cited
from mergepipe.planner.reads import Options, stored_encodings
from mergepipe.progress import Progress


@dataclass(frozen=True, slots=True)
class RepositoryCatalog:
    """A `planner.Catalog` over one repository. `commit_for` resolves a revision, or imports a path.

    `made` is told of every profile that had to be made, before it is (snapshot, base).
    """

    storage: Storage
    objects: ObjectStore
    profiles: Profiles
    commit_for: Callable[[str], ObjectId]
    progress: Progress
    made: Callable[[ObjectId, ObjectId], None]

    @property
    def measure(self) -> Measuring:
        """Measures what no profile holds."""
        return Measuring(self.storage)

    def revision(self, text: str, /) -> Revision:
        """The snapshots that a revision (or an imported path) and its base stand for."""
        commit = self.commit_for(text)
        found = self.objects.commit(commit)
        base = None if found.base is None else self.objects.commit(found.base).snapshot
        return Revision(text, commit, found.snapshot, found.base, base)

    def profile(self, snapshot: ObjectId, base: ObjectId, /) -> Cited:
        """The profile of a pair; made by reading both where none is known."""
        known = self.profiles.find(snapshot, base)
        if known is None:
            self.made(snapshot, base)
            known = self.profiles.ensure(snapshot, base, self.progress)
        return known, self.profiles.load(known)

    def encodings(self, blocks: Iterable[BlockId], /) -> Options:
        """Every encoding of blocks and of what they lean on."""
        return stored_encodings(self.storage)(blocks)


def looks_like_path(text: str) -> bool:
    """Whether a user surely means a path: `./x`, `/x`, `~/x`; other texts may be revisions."""
    return text.startswith(("./", "../", "/", "~/")) or text in (".", "..")


def as_path(text: str) -> Path:
    """The path a user typed, with `~` expanded."""
    return Path(text).expanduser()
