"""Taking back what a command did to branches, tags and HEAD, by the log of operations."""

from mergepipe.api.opened import OpenRepository
from mergepipe.api.working import Working
from mergepipe.errors import Corruption, RefMoved, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.progress import Progress
from mergepipe.repository.operations import HEAD, Move, Operation, branch_of
from mergepipe.repository.presence import has_snapshot
from mergepipe.repository.pruned import add_pruned, remove_pruned
from mergepipe.repository.refnames import short_name

_UNDO = "undo"


def undo(
    repository: OpenRepository,
    working: Working,
    wanted: str | None,
    *,
    force: bool,
    progress: Progress,
) -> Operation:
    """As `Repository.undo` says."""
    operation = _choose(repository, wanted)
    moves = list(operation.moves.values())
    _check_still(repository, operation, moves)
    _check_there(repository, operation, moves)
    why = f"{_UNDO}: {operation.why}"
    with repository.operations.operation(repository.command):
        target = _files_follow(repository, operation, moves)
        if target is not None:
            if not force:
                working.require_clean()
            # Before the refs: who is killed in between does it again.
            working.follow(target, force=force, progress=progress)
        with repository.refs.together():
            _check_still(repository, operation, moves)
            # HEAD leaves a branch before that goes, and comes to one when it is there again.
            for move in sorted(moves, key=_turn):
                _put_back(repository, move, why)
            _put_back_pruned(repository, operation)
    return operation


def _choose(repository: OpenRepository, wanted: str | None) -> Operation:
    operations = repository.operations.read()
    if wanted is None:
        if not operations:
            raise RevisionNotFound(
                "no command is noted that moved a branch, a tag or HEAD", "mp reflog lists moves"
            )
        return operations[0]
    chosen = [each for each in operations if each.id.startswith(wanted.lower())]
    if not wanted or len(chosen) != 1:
        problem = "no operation is" if not chosen else f"{len(chosen)} operations are"
        raise UsageError(f"{problem} called {wanted!r}", "mp undo --list lists them")
    return chosen[0]


def _now(repository: OpenRepository, ref: str) -> str:
    return (repository.local.get(ref) or b"").decode(errors="replace").strip()


def _check_still(repository: OpenRepository, operation: Operation, moves: list[Move]) -> None:
    """Raise RefMoved unless every ref is where the operation left it."""
    for move in moves:
        now = _now(repository, move.ref)
        if now != move.new:
            raise RefMoved(
                f"{_called(move.ref)} was moved since `{operation.command}` ({operation.id[:6]}): "
                f"it is at {_at(now)}, not at {_at(move.new)}",
                "mp undo --list lists what was done later: take that back first, or mp reset",
            )


def _check_there(repository: OpenRepository, operation: Operation, moves: list[Move]) -> None:
    """Raise RevisionNotFound where gc took what would come back."""
    for move in moves:
        if move.old and branch_of(move.old) is None:
            identity = ObjectId(bytes.fromhex(move.old))
            try:
                commit = repository.objects.commit(identity)
            except Corruption as error:
                raise RevisionNotFound(
                    f"{_at(move.old)}, where {_called(move.ref)} was, is not here any more",
                    "gc removed it; a remote may have it: mp fetch",
                ) from error
            repository.refuse_purged(identity, f"the model of {identity.hex()[:12]}")
            del commit
    for identity in operation.pruned:
        snapshot = repository.objects.commit(identity).snapshot
        if not has_snapshot(repository.storage, snapshot):
            raise RevisionNotFound(
                f"the model of {identity.hex()[:12]} is not here any more: gc removed it",
                "a remote that keeps it has it: mp clone it elsewhere",
            )


def _files_follow(
    repository: OpenRepository, operation: Operation, moves: list[Move]
) -> ObjectId | None:
    """The commit whose files are to come, where the operation had brought those of HEAD.

    What was committed from files here leaves them as they are: they are the user's work.
    """
    head = repository.refs.head()
    target = _head_after(repository, moves)
    if head.commit is None or target is None or target == head.commit:
        return None
    here = repository.worktree.snapshot()
    ours = repository.objects.commit(head.commit).snapshot
    committed = operation.why.replace(f"{_UNDO}: ", "").startswith("commit")
    return target if here == ours and not committed else None


def _head_after(repository: OpenRepository, moves: list[Move]) -> ObjectId | None:
    """Where HEAD will be."""
    before = {move.ref: move.old for move in moves}
    value = before.get(HEAD, _now(repository, HEAD))
    branch = branch_of(value)
    if branch is not None:
        value = before.get(branch, _now(repository, branch))
    return ObjectId(bytes.fromhex(value)) if value else None


def _turn(move: Move) -> int:
    if move.ref == HEAD:
        return 1
    return 0 if move.old else 2


def _put_back(repository: OpenRepository, move: Move, why: str) -> None:
    refs, who = repository.refs, repository.signature()
    if move.ref == HEAD:
        if move.old:
            target = branch_of(move.old) or ObjectId(bytes.fromhex(move.old))
            refs.set_head(target, who=who, why=why)
        return
    new = ObjectId(bytes.fromhex(move.new)) if move.new else None
    if move.old:
        old = ObjectId(bytes.fromhex(move.old))
        refs.update(move.ref, old, expected=new, who=who, why=why)
    else:
        refs.delete(move.ref, expected=new, who=who, why=why, keep_log=True)


def _put_back_pruned(repository: OpenRepository, operation: Operation) -> None:
    refs, store = repository.refs, repository.store
    refs.note_pruned(operation.pruned, again=True)
    remove_pruned(store, operation.pruned)
    if operation.kept:
        refs.note_pruned(operation.kept)
        add_pruned(store, operation.kept, repository.clock().now)


def _called(ref: str) -> str:
    return HEAD if ref == HEAD else quoted(short_name(ref))


def _at(value: str) -> str:
    branch = branch_of(value)
    return short_name(branch) if branch else value[:12] or "no commit"
