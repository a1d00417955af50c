"""fsck of history: refs, and every object they reach."""

import contextlib

from msgspec import Struct, field

from mergepipe.errors import Corruption, InvalidRefName, MissingObject
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.grid import checked_size
from mergepipe.objects.paths import check_files
from mergepipe.objects.records import Commit, Snapshot, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.repository.block_uses import BlockUses
from mergepipe.repository.closure import Needed, Use, closure
from mergepipe.repository.problems import Note, NoteKind, Owner, Problem, ProblemKind
from mergepipe.repository.pruned import Pruned
from mergepipe.repository.reflog import settled
from mergepipe.repository.refnames import HEADS, TAGS, short_name
from mergepipe.repository.refs import HEAD, RefStore

_MOST_TIPS = 20


class Reached(Struct):
    """What history reaches: objects, and blocks."""

    objects: set[ObjectId] = field(default_factory=set)
    blocks: BlockUses = field(default_factory=BlockUses)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, kind: ProblemKind, identity: str, detail: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, identity, detail))


def check_refs(refs: RefStore, objects: ObjectStore, reached: Reached) -> dict[ObjectId, str]:
    """The commits that refs and HEAD name, with the name; problems with any go to `reached`."""
    tips: dict[ObjectId, str] = {}
    for name in [HEAD, *refs.names()]:
        kind = ProblemKind.HEAD if name == HEAD else ProblemKind.REF
        try:
            if name == HEAD and _branch_of_head(refs) is not None:
                continue  # its branch is checked itself
            tip = refs.read(name)
            if tip is None:
                continue  # removed meanwhile
            objects.commit(tip)
        except (Corruption, InvalidRefName) as error:
            reached.complain(kind, name, f"{name}: {error.message}")
        else:
            tips.setdefault(tip, name)
    if refs.reflog is not None:
        for name in refs.reflog.names():
            if (number := refs.reflog.damaged(name)) is not None:
                detail = f"line {number} of the log of {name} is damaged, and is left out"
                reached.complain(ProblemKind.REFLOG, name, detail)
    return tips


def check_lost_refs(refs: RefStore, reached: Reached) -> list[Note]:
    """Branches and tags that are gone, though their logs are there, which go with them.

    The branch of HEAD is a problem: without it, history seems to be empty. Of others it is a note,
    as a crash while one was made or removed leaves the same.
    """
    if refs.reflog is None:
        return []
    current = _head_branch(refs)
    present = set(refs.names())
    notes = []
    for name in refs.reflog.names():
        entries = refs.reflog.read(name)
        if not name.startswith((HEADS, TAGS)) or name in present or not entries:
            continue
        at = entries[0].new
        if at is None:
            continue
        if name == current and settled(entries, None):
            detail = f"{name} is gone; its log says that it was at {at.hex()}"
            reached.complain(ProblemKind.REF, name, detail)
        else:
            what = "tag" if name.startswith(TAGS) else "branch"
            detail = (
                f"is gone; its log says {at.hex()}: mp {what} {short_name(name)} {at.hex()[:12]}"
            )
            notes.append(Note(NoteKind.LOST, name, detail))
    return notes


def dangling_tips(
    objects: ObjectStore, storage: Storage, refs: RefStore, reached: Reached
) -> list[Note]:
    """Commits here that no ref and no log leads to: what a ref that was lost may have named."""
    logged = set() if refs.reflog is None else set(refs.reflog.mentioned())
    with storage.view() as view:
        others = {ObjectId(at.id) for at in view.objects()} - reached.objects
    commits: dict[ObjectId, Commit] = {}
    for identity in sorted(others):
        with contextlib.suppress(Corruption):
            if objects.kind(identity) == Commit.KIND:
                commits[identity] = objects.commit(identity)
    below = {parent for commit in commits.values() for parent in commit.parents}
    tips = sorted(commits.keys() - below - logged, key=lambda each: -commits[each].time)
    return [
        Note(
            NoteKind.DANGLING,
            tip.hex(),
            f"on no branch: {quoted(commits[tip].message[:60])}; mp branch NAME {tip.hex()[:12]}",
        )
        for tip in tips[:_MOST_TIPS]
    ]


def _head_branch(refs: RefStore) -> str | None:
    try:
        return refs.head().branch
    except Corruption:
        return None


def _branch_of_head(refs: RefStore) -> str | None:
    """The branch HEAD is on, whatever state that branch is in. Raises Corruption."""
    try:
        return refs.head().branch
    except Corruption as error:
        if error.message.startswith("HEAD"):
            raise
        return "a damaged branch"


def check_history(
    tips: dict[ObjectId, str], objects: ObjectStore, pruned: Pruned, reached: Reached
) -> None:
    """Read everything that the commits `tips` reach, into `reached`."""

    def complain(use: Use, error: Corruption) -> None:
        missing = isinstance(error, MissingObject)
        kind = ProblemKind.MISSING_OBJECT if missing else ProblemKind.OBJECT
        identity = use.reference.id.hex()
        reached.complain(kind, identity, f"{error.message} (needed by {_owner(use)})")

    roots = (Reference(tip, Commit.KIND, name) for tip, name in tips.items())
    for needed in closure(roots, objects, known={}, pruned=pruned, check=_check, complain=complain):
        reached.objects.add(needed.id)
        if isinstance(needed.record, Tensor):
            _note_blocks(needed.id, needed.record, _owner(needed.use), reached)
    for owner, tensor, block, length, before in reached.blocks.settle():
        detail = f"block {block.hex()[:12]} cannot have {length} bytes, elsewhere it has {before}"
        reached.complain(ProblemKind.TENSOR, tensor.hex(), f"{owner}: {detail}")


def _check(needed: Needed) -> None:
    if isinstance(needed.record, Snapshot):
        check_files(needed.record, f"object {needed.id.hex()[:12]}")


def _note_blocks(identity: ObjectId, tensor: Tensor, owner: Owner, reached: Reached) -> None:
    try:
        _, size = checked_size(tensor, f"tensor {identity.hex()[:12]}")
    except Corruption as error:
        reached.complain(ProblemKind.TENSOR, identity.hex(), f"{owner}: {error.message}")
    else:
        reached.blocks.add(owner, identity, tensor.blocks, tensor.block_bytes, size)


def _owner(use: Use) -> Owner:
    return Owner(use.commit, str(use.reference))
