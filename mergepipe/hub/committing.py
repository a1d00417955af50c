"""What the hub's clients upload, as commits of a branch."""

import threading
from collections import defaultdict
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.checkpoints.requests import CommitRequest, CommitResult, Kept
from mergepipe.errors import Corruption, InvalidRefName, RefMoved
from mergepipe.formats.huggingface import INDEX_SUFFIX
from mergepipe.formats.tree import SourceFile, scan_file
from mergepipe.hub.commit_body import AddFile, AddUploaded, CommitBody, Delete
from mergepipe.hub.errors import HubError, no_entry, no_revision
from mergepipe.hub.files import SHA256_KEY, Files, content_key
from mergepipe.hub.models import MAIN, Model, hub_id
from mergepipe.hub.staging import StagedFile, Staging
from mergepipe.ids import ObjectId
from mergepipe.objects.paths import check_path
from mergepipe.objects.records import FileEntry
from mergepipe.progress import SILENT
from mergepipe.repository.refnames import HEADS, branch_ref, short_name

_ATTEMPTS = 8
_KNOWN = b"hub/file/"


class Committing:
    """Commits to the branches of repositories, one at a time to each."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._branches: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    def commit(self, model: Model, revision: str, body: CommitBody, staging: Staging) -> ObjectId:
        """Make a commit; returns its id, or the tip's where nothing changed.

        Raises HubError: 412 where the tip is not the parent that the client named, 404 for a file
        that is to go and is not there, 400 for one that was not uploaded; and what committing
        raises. The branch is then as it was.
        """
        ref = branch_of(model, revision)
        with self._lock:
            turn = self._branches[str(model.repository.directory), ref]
        with turn:
            # Others may commit and push to the repository, too.
            for _ in range(_ATTEMPTS):
                attempt = _Attempt(model, ref, body, staging, self._files)
                try:
                    return attempt.run()
                except RefMoved:
                    if body.parent is not None:
                        raise
        raise HubError(409, "others commit to this branch all the time: try again later")


class _Attempt:
    """A commit onto the tip that a branch has now."""

    def __init__(
        self, model: Model, ref: str, body: CommitBody, staging: Staging, files: Files
    ) -> None:
        self._repository = model.repository
        self._ref = ref
        self._body = body
        self._staging = staging
        self._files = files
        self._tip = self._repository.refs.read(ref)
        self._new: dict[str, StagedFile] = {}
        self._kept: dict[str, FileEntry] = {}
        self._taken: list[StagedFile] = []

    def run(self) -> ObjectId:
        self._check_parent()
        before: dict[str, FileEntry] = {}
        if self._tip is not None:
            snapshot = self._repository.model_at(self._tip).snapshot
            before = dict(self._files.of_snapshot(self._repository, snapshot))
        self._kept = dict(before)
        stored = False
        try:
            for operation in self._body.operations:
                self._apply(operation)
            if not self._new and self._tip is not None and self._kept == before:
                return self._tip
            sources = [self._source(path, file, before) for path, file in self._new.items()]
            result = self._commit([*sources, *self._shard_indexes()])
            stored = True
        finally:
            for file in self._taken:
                self._staging.give_back(file, done=stored)
        self._remember(result)
        return result.commit

    def _check_parent(self) -> None:
        if self._body.parent is None:
            return
        tip = None if self._tip is None else self._tip.hex()
        if tip is None or len(self._body.parent) < 7 or not tip.startswith(self._body.parent):
            raise RefMoved(
                "the branch is not at the parent that the commit names: "
                f"it is at {'nothing' if self._tip is None else hub_id(self._tip)}"
            )

    def _apply(self, operation: AddFile | AddUploaded | Delete) -> None:
        match operation:
            case Delete(path, folder):
                gone = [each for each in (*self._kept, *self._new) if _goes(each, path, folder)]
                if not gone:
                    error = no_entry(path, short_name(self._ref))
                    raise HubError(404, f"A file with this name doesn't exist: {error}", error.code)
                for each in gone:
                    self._kept.pop(each, None)
                    self._new.pop(each, None)
            case AddFile(path, file):
                self._kept.pop(check_path(path), None)
                self._new[path] = file
            case AddUploaded(path, sha256, size):
                check_path(path)
                file_there = self._staging.take(sha256)
                if file_there is not None:
                    self._taken.append(file_there)
                    _check_size(path, file_there.size, size)
                    self._kept.pop(path, None)
                    self._new[path] = file_there
                    return
                entry = stored_file(self._repository, sha256)
                if entry is None:
                    raise HubError(400, f"{path}: no file with the SHA-256 {sha256} was uploaded")
                _check_size(path, entry.size, size)
                self._new.pop(path, None)
                executable = path in self._kept and self._kept[path].executable
                self._kept[path] = msgspec.structs.replace(entry, path=path, executable=executable)

    def _source(self, path: str, file: StagedFile, before: dict[str, FileEntry]) -> SourceFile:
        executable = path in before and before[path].executable
        return replace(scan_file(file.location, path), executable=executable)

    def _shard_indexes(self) -> Iterable[SourceFile]:
        """Indexes that are kept, as files: committing checks that their shards stay."""
        for path, entry in list(self._kept.items()):
            if not path.endswith(INDEX_SUFFIX):
                continue
            with self._staging.begin(entry.size) as upload:
                for raw in self._repository.contents.read_entry(entry):
                    upload.write(raw.tobytes())
                file = upload.finish()
            self._taken.append(file)
            del self._kept[path]
            yield replace(scan_file(file.location, path), executable=entry.executable)

    def _commit(self, sources: list[SourceFile]) -> CommitResult:
        repository = self._repository
        request = CommitRequest(
            self._body.message,
            repository.signature(),
            self._ref,
            kept=Kept(self._tip, tuple(self._kept.values())),
        )
        sources.sort(key=lambda source: source.path.encode())
        with repository.writing():
            return repository.committer().commit(sources, request, SILENT)

    def _remember(self, result: CommitResult) -> None:
        """Let later uploads and listings know these files by their SHA-256."""
        entries = self._files.of_snapshot(self._repository, result.snapshot)
        pairs: list[tuple[bytes, bytes]] = []
        for path, file in self._new.items():
            sha256 = bytes.fromhex(file.sha256)
            pairs.append((SHA256_KEY + content_key(entries[path]), sha256))
            pairs.append((_KNOWN + sha256, msgspec.msgpack.encode(entries[path])))
        if pairs:
            self._repository.storage.index.cache(pairs)


def branch_of(model: Model, revision: str) -> str:
    """The full name of the branch that a revision of a model commits to. Raises HubError."""
    refs = model.repository.refs
    if model.branch is not None:
        if revision not in (MAIN, model.branch, HEADS + model.branch, HEADS + MAIN):
            raise no_revision(revision)
        return branch_ref(model.branch)
    try:
        ref = branch_ref(revision)
    except InvalidRefName as error:
        raise no_revision(revision) from error
    if refs.read(ref) is not None:
        return ref
    head = refs.head()
    if revision == MAIN and head.branch is not None:
        return head.branch
    raise no_revision(revision)


def stored_file(repository: Repository, sha256: str) -> FileEntry | None:
    """A file of this SHA-256 that the repository has whole, if it is known here."""
    with repository.storage.view() as view:
        value = view.cached(_KNOWN + bytes.fromhex(sha256))
    if value is None:
        return None
    try:
        entry = msgspec.msgpack.decode(value, type=FileEntry)
        parts = plan_file(entry, repository.objects).parts
    except (msgspec.DecodeError, Corruption):  # collected since
        return None
    whole = repository.storage.ask(lambda view: all(view.has_block(part.block) for part in parts))
    return entry if whole else None


def _goes(path: str, deleted: str, folder: bool) -> bool:
    return path.startswith(f"{deleted}/") if folder else path == deleted


def _check_size(path: str, size: int, told: int | None) -> None:
    if told is not None and told != size:
        raise HubError(400, f"{path} has {size:,} bytes, not the {told:,} that the commit says")
