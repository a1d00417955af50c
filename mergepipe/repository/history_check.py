"""fsck of history: refs, and every object they reach."""

from dataclasses import dataclass, field

from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.errors import Corruption, InvalidRefName, MergepipeError, MissingObject
from mergepipe.ids import BlockId, ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import decode
from mergepipe.objects.grid import spans
from mergepipe.objects.records import Commit, FileEntry, Safetensors, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.repository.problems import Owner, Problem, ProblemKind
from mergepipe.repository.references import present, references
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
    tips: dict[ObjectId, str], objects: ObjectStore, storage: Storage, reached: Reached
) -> None:
    """Read everything that the commits `tips` reach, into `reached`."""
    walk = _Walk(objects, storage, reached)
    walk.run(tips)


class _Walk:
    def __init__(self, objects: ObjectStore, storage: Storage, reached: Reached) -> None:
        self._objects = objects
        self._storage = storage
        self._reached = reached
        self._stack: list[tuple[ObjectId, str | None, Owner]] = []
        self._failed: set[ObjectId] = set()

    def run(self, tips: dict[ObjectId, str]) -> None:
        for tip, name in tips.items():
            self._stack.append((tip, Commit.KIND, Owner(None, name)))
        while self._stack:
            identity, expected, owner = self._stack.pop()
            if identity not in self._reached.objects and identity not in self._failed:
                self._visit(identity, expected, owner)

    def _visit(self, identity: ObjectId, expected: str | None, owner: Owner) -> None:
        """Check one object; `expected` is the kind it has to be, if that is known."""
        what = f"object {identity.hex()[:12]}"
        try:
            canonical = self._objects.canonical(identity)
            found = references(canonical, what)
            if expected is not None and found.kind != expected:
                raise Corruption(f"{what} is a {found.kind}, not a {expected}")
            if found.kind == Commit.KIND:
                self._commit(identity, decode(canonical, Commit, what))
            elif found.kind == Snapshot.KIND:
                self._snapshot(decode(canonical, Snapshot, what), owner)
            elif found.kind == Tensor.KIND:
                self._tensor(identity, decode(canonical, Tensor, what), owner)
        except Corruption as error:
            self._failed.add(identity)
            missing = isinstance(error, MissingObject)
            kind = ProblemKind.MISSING_OBJECT if missing else ProblemKind.OBJECT
            self._reached.complain(kind, identity.hex(), f"{error.message} (needed by {owner})")
            return
        self._reached.objects.add(identity)
        for other in present(found.possible, self._storage):
            self._stack.append((other, None, Owner(owner.commit, f"{found.kind} {what}")))

    def _commit(self, identity: ObjectId, commit: Commit) -> None:
        self._stack.append((commit.snapshot, Snapshot.KIND, Owner(identity, "snapshot")))
        for parent in commit.parents:
            self._stack.append((parent, Commit.KIND, Owner(identity, "parent")))
        for kind, other in (
            (Commit.KIND, commit.leans_on),
            (Commit.KIND, commit.trained_from),
            ("profile", commit.profile),
            ("manifest", commit.manifest),
        ):
            if other is not None:
                self._stack.append((other, kind, Owner(identity, kind)))

    def _snapshot(self, snapshot: Snapshot, owner: Owner) -> None:
        paths = [file.path.encode(errors="surrogatepass") for file in snapshot.files]
        if paths != sorted(set(paths)):
            raise Corruption("a snapshot's files are not sorted, or one is there twice")
        for file in snapshot.files:
            for tensor, where in _tensors(file):
                self._stack.append((tensor, Tensor.KIND, Owner(owner.commit, where)))

    def _tensor(self, identity: ObjectId, tensor: Tensor, owner: Owner) -> None:
        blocks = tensor.block_ids()
        try:
            size = byte_length(dtype_of(tensor.dtype), tensor.shape)
        except MergepipeError as error:
            size, reason = -1, error.message
        else:
            reason = f"{len(blocks)} blocks for {size} bytes"
        if size < 0 or len(blocks) != -(-size // tensor.block_bytes):
            self._reached.complain(ProblemKind.TENSOR, identity.hex(), f"{owner}: {reason}")
            return
        for block, (begin, end) in zip(blocks, spans(size, tensor.block_bytes), strict=True):
            length, _ = self._reached.blocks.setdefault(block, (end - begin, owner))
            if length != end - begin:
                self._reached.complain(
                    ProblemKind.TENSOR,
                    identity.hex(),
                    f"{owner}: block {block.hex()[:12]} cannot have {end - begin} bytes, "
                    f"elsewhere it has {length}",
                )


def _tensors(file: FileEntry) -> list[tuple[ObjectId, str]]:
    content = file.content
    path = quoted(file.path)
    if not isinstance(content, Safetensors):
        return [(content.data, f"file {path}")]
    return [
        (content.header, f"header of {path}"),
        *((entry.tensor, f"tensor {quoted(entry.name)} in {path}") for entry in content.tensors),
    ]
