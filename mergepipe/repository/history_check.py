"""fsck of history: refs, and every object they reach."""

from dataclasses import dataclass, field

from mergepipe.errors import Corruption, InvalidRefName, MissingObject
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.paths import check_files
from mergepipe.objects.records import Commit, Snapshot, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.repository.closure import Needed, Use, closure
from mergepipe.repository.problems import Owner, Problem, ProblemKind
from mergepipe.repository.pruned import Pruned
from mergepipe.repository.refs import HEAD, RefStore


@dataclass(slots=True)
class Reached:
    """What history reaches: objects, and blocks with the length and owner of the first use."""

    objects: set[ObjectId] = field(default_factory=set)
    blocks: dict[BlockId, tuple[int, Owner]] = field(default_factory=dict)
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
            try:
                refs.reflog.read(name)
            except Corruption as error:
                reached.complain(ProblemKind.REFLOG, name, error.message)
    return tips


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


def _check(needed: Needed) -> None:
    if isinstance(needed.record, Snapshot):
        check_files(needed.record, f"object {needed.id.hex()[:12]}")


def _note_blocks(identity: ObjectId, tensor: Tensor, owner: Owner, reached: Reached) -> None:
    def complain(detail: str) -> None:
        reached.complain(ProblemKind.TENSOR, identity.hex(), f"{owner}: {detail}")

    try:
        blocks = blocks_of(tensor, f"tensor {identity.hex()[:12]}")
    except Corruption as error:
        complain(error.message)
        return
    for use in blocks:
        length, _ = reached.blocks.setdefault(use.id, (use.length, owner))
        if length != use.length:
            complain(
                f"block {use.id.hex()[:12]} cannot have {use.length} bytes, "
                f"elsewhere it has {length}"
            )


def _owner(use: Use) -> Owner:
    return Owner(use.commit, str(use.reference))
