"""What is asked of a commit, and what it made: plain values, free to import."""

from dataclasses import dataclass

from mergepipe.ids import ObjectId
from mergepipe.repository.reflog import Signature


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a user asks of a commit. `branch`: a full ref name, None for where HEAD is."""

    message: str
    who: Signature
    branch: str | None = None
    base: ObjectId | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit made. Sizes in bytes; `stored_bytes` is what it added to the store.

    `unchanged`: the branch held this very snapshot already, and `commit` is its tip.
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
