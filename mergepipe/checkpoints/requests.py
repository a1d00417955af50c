"""What is asked of a commit, and what it made: plain values, free to import."""

from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.catalog.finiteness import NonFinite
from mergepipe.ids import ObjectId, show_ids
from mergepipe.objects.records import FileEntry
from mergepipe.repository.reflog import Signature
from mergepipe.reprs import brief

if TYPE_CHECKING:
    from mergepipe.catalog.suspects import Suspect


@brief
class Kept(Struct, frozen=True):
    """Files that a new model takes over, as they are, from the tip of its branch.

    tip    the branch's tip that they were looked up in, and which it is to have still; None: the
           branch is to be a new one
    files  with tensors that the store has
    """

    tip: ObjectId | None
    files: tuple[FileEntry, ...] = ()


@brief
class CommitRequest(Struct, frozen=True):
    """What a user asks of a commit.

    branch  a full ref name; None for where HEAD is
    base    what the model was trained from; None: what its branch or its model card says
    kept    files beside the new ones; None: there are no others, whatever the tip is
    """

    message: str
    who: Signature
    branch: str | None = None
    base: ObjectId | None = None
    kept: Kept | None = None

    @property
    def kept_files(self) -> tuple[FileEntry, ...]:
        """Files that the new model takes over."""
        return () if self.kept is None else self.kept.files


@brief
class CommitResult(Struct, frozen=True):
    """What a commit made. Sizes in bytes; `stored_bytes` is what it added to the store.

    base          the commit that the new blocks lean on
    trained_from  the commit that the model was trained from, as somebody said
    unchanged     the branch held this very snapshot already, and `commit` is its tip
    nonfinite     tensors with values that are infinite or NaN
    suspects      tensors that look wrong beside those of what it was trained from, or of the
                  version before, as far as that is known without reading them
    """

    commit: ObjectId
    snapshot: ObjectId
    branch: str | None
    base: ObjectId | None
    raw_bytes: int
    stored_bytes: int
    blocks: int
    new_blocks: int
    unchanged: bool = False
    trained_from: ObjectId | None = None
    nonfinite: tuple[NonFinite, ...] = ()
    suspects: "tuple[Suspect, ...]" = ()

    def __post_init__(self) -> None:
        show_ids(self, "commit", "snapshot", "base", "trained_from")
