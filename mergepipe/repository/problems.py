"""What fsck finds: one problem a line, each with a kind that scripts can rely on."""

from enum import StrEnum

from msgspec import Struct

from mergepipe.ids import ObjectId
from mergepipe.reprs import brief


class ProblemKind(StrEnum):
    """What is wrong. The `id` of a problem is what stands behind each."""

    HEAD = "head"  # `HEAD`
    REF = "ref"  # ref name
    REFLOG = "reflog"  # ref name
    PRUNED = "pruned"  # `pruned`, `purged` or `absent`: a line of it cannot be read
    OBJECT = "object"  # object id: not readable, or not what it should be
    MISSING_OBJECT = "missing_object"  # object id
    TENSOR = "tensor"  # tensor id: its blocks cannot be what its shape needs
    MISSING_BLOCK = "missing_block"  # block id: no complete encoding, or a base is missing
    BLOCK = "block"  # block id: decodes to something else, or has the wrong length
    PACK = "pack"  # pack id: header, footer or trailer
    RECORD = "record"  # id of block or object: a record that fails its checksum
    INDEX = "index"  # pack id, or `index`


_OF_DATA = frozenset(
    {
        ProblemKind.OBJECT,
        ProblemKind.MISSING_OBJECT,
        ProblemKind.MISSING_BLOCK,
        ProblemKind.BLOCK,
        ProblemKind.PACK,
        ProblemKind.RECORD,
        ProblemKind.REF,  # the commit that it names may be what is missing
    }
)


class NoteKind(StrEnum):
    """What is worth knowing and no problem."""

    CHAIN = "chain"  # block id: stored as a longer chain of deltas than the settings allow
    INDEX = "index"  # `index`: it was damaged, and is made again
    ORPHAN = "orphan"  # pack id: nothing reachable is in it; mp gc removes it
    ASKED = "asked"  # remote: what came of asking it for what is missing
    LOST = "lost"  # ref name: it is gone, and its log is not
    DANGLING = "dangling"  # commit id: on no branch, and in no history
    STRAY = "stray"  # key: a file in packs/ that is no pack
    SHALLOW = "shallow"  # `absent`: history that this repository does without
    PROMISED = "promised"  # remote of a lazy clone: how much is there and not here


@brief
class Problem(Struct, frozen=True):
    """Something that is wrong: `id` is hex for ids, else a name."""

    kind: ProblemKind
    id: str
    detail: str


@brief
class Note(Struct, frozen=True):
    """Something that is not wrong."""

    kind: NoteKind
    id: str
    detail: str


@brief
class Report(Struct, frozen=True):
    """All that fsck found; with repair, what is still wrong after it, and what it did.

    unread_bytes   of packs that were not looked into, but for their footers
    """

    problems: tuple[Problem, ...]
    notes: tuple[Note, ...] = ()
    repaired: tuple[str, ...] = ()
    unread_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def lacks(self) -> bool:
        """Whether something may be damaged or missing that a good copy elsewhere puts right."""
        return any(problem.kind in _OF_DATA for problem in self.problems)


@brief
class Owner(Struct, frozen=True):
    """Whose a tensor is, for messages: the first place that names it."""

    commit: ObjectId | None
    where: str

    def __str__(self) -> str:
        return (
            self.where if self.commit is None else f"{self.where}, commit {self.commit.hex()[:12]}"
        )
