"""Checking a repository, and putting right what can be put right without guessing."""

from pathlib import Path

from mergepipe.ids import PackId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.storage import Storage
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import locks
from mergepipe.repository.history_check import Reached, check_history, check_refs
from mergepipe.repository.problems import Note, NoteKind, Problem, ProblemKind, Report
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refs import RefStore
from mergepipe.repository.repair import rescue_packs, restore_refs
from mergepipe.repository.store_check import (
    check_blocks,
    check_index,
    check_packs,
    verify_blocks,
    verify_records,
)


def fsck(
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    store_lock: Path,
    *,
    max_chain: int = 2,
    read_data: bool = False,
    repair: Signature | None = None,
    threads: int = 1,
    lock_timeout_s: float = 10.0,
    progress: Progress = SILENT,
) -> Report:
    """Check refs, every object they reach, every block these need, every pack, and the index.

    `read_data` also reads all of it: every record against its checksum, every reachable block
    decoded against its id. `repair` (who acts, for the reflog): rebuild a wrong index; copy what
    is whole in a damaged pack to a new one and move the pack to `quarantine/`; put damaged refs
    back to where their logs say they were. Nothing is deleted. The report then says what is still
    wrong.

    Holds `store_lock`, shared (with `repair`: exclusive). Raises Locked. Finding problems is no
    error: look at `Report.ok`. Memory: some hundred bytes a record, and a few blocks a thread.
    """
    shared = repair is None
    with locks.acquire(store_lock, shared=shared, timeout_s=lock_timeout_s):
        check = _Check(storage, objects, refs, max_chain, read_data, threads, progress)
        report = check.run()
        if repair is None:
            return report
        done = _repair(report, storage, objects, refs, repair)
        if not done:
            return report
        again = _Check(storage, objects, refs, max_chain, read_data, threads, progress).run()
        return Report(again.problems, again.notes, tuple(done))


class _Check:
    """One pass over a repository."""

    def __init__(
        self,
        storage: Storage,
        objects: ObjectStore,
        refs: RefStore,
        max_chain: int,
        read_data: bool,
        threads: int,
        progress: Progress,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._refs = refs
        self._max_chain = max_chain
        self._read_data = read_data
        self._threads = threads
        self._progress = progress

    def run(self) -> Report:
        self._storage.refresh()  # being a step behind the packs is no fault of an index
        packs, problems, notes = check_packs(self._storage)
        problems += check_index(self._storage, packs)
        reached = Reached()
        tips = check_refs(self._refs, self._objects, reached)
        check_history(tips, self._objects, read_pruned(self._storage.store), reached)
        promises = self._storage.promises
        is_here = promises.has_record if self._read_data else None
        blocks, needed, chains = check_blocks(self._storage, reached, self._max_chain, is_here)
        notes += chains
        if self._read_data:
            problems += verify_records(self._storage, packs, self._threads, self._progress)
            reader = BlockReader(self._storage)
            verify_blocks(reader, blocks, reached, self._threads, self._progress)
        needed |= self._packs_of_objects(reached)
        kept = needed | promises.promised()
        notes += [
            Note(NoteKind.ORPHAN, pack.hex(), "holds nothing that history needs; mp gc removes it")
            for pack in packs
            if pack not in kept
        ]
        if absent := promises.absent_bytes():
            detail = f"{absent} bytes of packs are there and not here; they come when they are read"
            notes.append(Note(NoteKind.PROMISED, promises.remote, detail))
        return Report(_distinct(problems + reached.problems), tuple(notes))

    def _packs_of_objects(self, reached: Reached) -> set[PackId]:
        with self._storage.view() as view:
            return {at.pack for identity in reached.objects for at in view.object_copies(identity)}


def _repair(
    report: Report, storage: Storage, objects: ObjectStore, refs: RefStore, who: Signature
) -> list[str]:
    """Do what the report calls for; returns what was done."""
    kinds = {problem.kind for problem in report.problems}
    done: list[str] = []
    if ProblemKind.INDEX in kinds:
        storage.rebuild()
        done.append("rebuilt the index from the packs")
    broken = [
        PackId(bytes.fromhex(problem.id))
        for problem in report.problems
        if problem.kind is ProblemKind.PACK
    ]
    done += rescue_packs(broken, storage)
    if kinds & {ProblemKind.REF, ProblemKind.HEAD}:
        names = [
            problem.id
            for problem in report.problems
            if problem.kind in (ProblemKind.REF, ProblemKind.HEAD)
        ]
        done += restore_refs(names, objects, refs, who)
    return done


def _distinct(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(problems))
