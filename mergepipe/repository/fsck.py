"""Checking a repository, and putting right what can be put right without guessing."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from mergepipe.errors import MergepipeError
from mergepipe.executors.workforce import Workforce
from mergepipe.ids import PackId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.environment import IndexDamaged
from mergepipe.packs.storage import Storage
from mergepipe.packs.wholeness import note_whole
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import absent, locks, tombstones
from mergepipe.repository.absent import DEEPEN, read_absent_lines, write_absent
from mergepipe.repository.data_check import verify_blocks, verify_records
from mergepipe.repository.history_check import (
    Reached,
    check_history,
    check_lost_refs,
    check_refs,
    dangling_tips,
)
from mergepipe.repository.problems import Note, NoteKind, Problem, ProblemKind, Report
from mergepipe.repository.pruned import KEY, mend_pruned, read_lines
from mergepipe.repository.reading_rounds import Portion, next_part, remember
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refs import RefStore
from mergepipe.repository.repair import condemned_packs, mend_logs, rescue_packs, restore_refs
from mergepipe.repository.store_check import (
    check_blocks,
    check_index,
    check_packs,
    known_damage,
)
from mergepipe.repository.tombstones import read_stones


def fsck(
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    store_lock: Path,
    *,
    max_chain: int = 2,
    read_data: bool = False,
    portion: Portion | None = None,
    now_s: float = 0.0,
    repair: Signature | None = None,
    restore: bool = True,
    workforce: Workforce | None = None,
    lock_timeout_s: float = 10.0,
    progress: Progress = SILENT,
) -> Report:
    """Check refs, every object they reach, every block these need, every pack, and the index.

    `read_data` also reads all of it: every record against its checksum, every reachable block
    decoded against its id; `portion`: so much of it, record by record, where the last such call (at
    `now_s`, Unix) ended. `repair` (who acts, for the reflog): rebuild a wrong index; copy what
    is whole in a damaged pack to a new one and move the pack to `quarantine/`, so that what is
    damaged is missing; `restore`: put damaged refs back to where their logs say they were. Nothing
    is deleted. The report then says what is still wrong. Damage that was found is remembered
    (packs/condemned.py).

    Holds `store_lock`, shared (with `repair`: exclusive). Raises Locked. Finding problems is no
    error: look at `Report.ok`. Memory: some hundred bytes a record, and a few blocks a thread.
    """
    shared = repair is None
    workforce = workforce or Workforce()
    with locks.acquire(store_lock, shared=shared, timeout_s=lock_timeout_s, reading=shared):
        check = _Check(storage, objects, refs, max_chain, read_data, workforce, progress, portion)
        report = check.run()
        if repair is None:
            remember(storage.store, check.part, now_s)
            return report
        done = _set_right(report, storage)
        if restore:
            done += _restore(report, objects, refs, repair)
            done += _mend_pruned(report, storage, refs)
        if not done:
            return report
        again = _Check(storage, objects, refs, max_chain, read_data, workforce, progress).run()
        return replace(again, repaired=tuple(done))


class _Check:
    """One pass over a repository."""

    def __init__(
        self,
        storage: Storage,
        objects: ObjectStore,
        refs: RefStore,
        max_chain: int,
        read_data: bool,
        workforce: Workforce,
        progress: Progress,
        portion: Portion | None = None,
    ) -> None:
        self._portion = portion
        self.part: list[PackId] = []
        """The packs that were read, where only some were to be."""
        self._storage = storage
        self._objects = objects
        self._refs = refs
        self._max_chain = max_chain
        self._read_data = read_data
        self._workforce = workforce
        self._progress = progress

    def run(self) -> Report:
        notes = self._open_index()
        self._storage.refresh()  # being a step behind the packs is no fault of an index
        packs, problems, strays = check_packs(self._storage)
        notes += strays
        unread = 0
        if self._read_data:
            # First: what is damaged counts as missing, and what was is not any more.
            damaged = verify_records(self._storage, packs, self._workforce, self._progress)
            self._storage.absolve([at.place for at, _ in damaged])
            whole = packs.keys() - {at.pack for at, _ in damaged}
            with contextlib.suppress(MergepipeError, PermissionError):
                note_whole(self._storage.store, self._storage.index, whole)
            problems += [problem for _, problem in damaged]
        else:
            unread = sum(packs.values())
            if self._portion is not None:
                unread -= self._read_part(packs, self._portion)
            problems += known_damage(self._storage, packs)
        problems += check_index(self._storage, packs)
        reached = Reached()
        tips = check_refs(self._refs, self._objects, reached)
        pruned, lost_lines = read_lines(self._storage.store)
        for number in lost_lines:
            detail = f"line {number} is damaged: which model is not kept cannot be known"
            reached.complain(ProblemKind.PRUNED, KEY, detail)
        for number in read_stones(self._storage.store)[1]:
            detail = f"line {number} is damaged: which model is never to come back cannot be known"
            reached.complain(ProblemKind.PRUNED, tombstones.KEY, detail)
        for number in read_absent_lines(self._storage.store)[1]:
            detail = f"line {number} is damaged: which commit is done without cannot be known"
            reached.complain(ProblemKind.PRUNED, absent.KEY, detail)
        check_history(tips, self._objects, pruned, reached)
        if pruned.absent:
            count = len(pruned.absent)
            detail = f"history goes on in {count} commits that are done without here; {DEEPEN}"
            notes.append(Note(NoteKind.SHALLOW, absent.KEY, detail))
        notes += check_lost_refs(self._refs, reached)
        notes += dangling_tips(self._objects, self._storage, self._refs, reached)
        promises = self._storage.promises
        is_here = promises.has_record if self._read_data else None
        placed = check_blocks(self._storage, reached, self._max_chain, is_here)
        notes += placed.notes
        if self._read_data:
            reader = BlockReader(self._storage)
            verify_blocks(reader, placed, reached, self._workforce, self._progress)
        kept = placed.packs | self._packs_of_objects(reached) | promises.promised()
        notes += [
            Note(NoteKind.ORPHAN, pack.hex(), "holds nothing that history needs; mp gc removes it")
            for pack in packs
            if pack not in kept
        ]
        if elsewhere := promises.absent_bytes():
            detail = (
                f"{elsewhere} bytes of packs are there and not here; they come when they are read"
            )
            notes.append(Note(NoteKind.PROMISED, promises.remote, detail))
        report = Report(_distinct(problems + reached.problems), tuple(notes), unread_bytes=unread)
        self._storage.note_lacking(report.lacks)
        return report

    def _read_part(self, packs: Mapping[PackId, int], portion: Portion) -> int:
        """Read some packs, and condemn what is damaged in them; returns their bytes."""
        promised = self._storage.promises.promised()
        here = {pack: size for pack, size in packs.items() if pack not in promised}
        self.part = next_part(self._storage.store, here, portion)
        some = {pack: here[pack] for pack in self.part}
        damaged = verify_records(self._storage, some, self._workforce, self._progress)
        self._storage.condemn([at for at, _ in damaged])
        with contextlib.suppress(MergepipeError, PermissionError):
            whole = some.keys() - {at.pack for at, _ in damaged}
            note_whole(self._storage.store, self._storage.index, whole)
        return sum(some.values())

    def _open_index(self) -> list[Note]:
        """Look over the index before it is used, and make it again if that is better not done."""
        try:
            self._storage.index.check()
        except IndexDamaged as error:
            self._storage.rebuild()
            return [Note(NoteKind.INDEX, "index", f"made again from the packs: {error.message}")]
        return []

    def _packs_of_objects(self, reached: Reached) -> set[PackId]:
        with self._storage.view() as view:
            return {at.pack for identity in reached.objects for at in view.object_copies(identity)}


def _set_right(report: Report, storage: Storage) -> list[str]:
    """Do what the report calls for in index and packs; returns what was done."""
    done: list[str] = []
    if any(problem.kind is ProblemKind.INDEX for problem in report.problems):
        storage.rebuild()
        done.append("rebuilt the index from the packs")
    broken = {
        PackId(bytes.fromhex(problem.id))
        for problem in report.problems
        if problem.kind is ProblemKind.PACK
    }
    return done + rescue_packs(sorted(broken | condemned_packs(storage)), storage)


def _restore(report: Report, objects: ObjectStore, refs: RefStore, who: Signature) -> list[str]:
    """Put damaged refs back; returns what was done."""
    kinds = (ProblemKind.REF, ProblemKind.HEAD)
    names = [problem.id for problem in report.problems if problem.kind in kinds]
    logs = [problem.id for problem in report.problems if problem.kind is ProblemKind.REFLOG]
    return restore_refs(names, objects, refs, who) + mend_logs(logs, refs)


def _mend_pruned(report: Report, storage: Storage, refs: RefStore) -> list[str]:
    """Take damaged lines out of `pruned` and `absent`; returns what was done."""
    damaged = {problem.id for problem in report.problems if problem.kind is ProblemKind.PRUNED}
    done = []
    with refs.locked():
        if KEY in damaged:
            kept = mend_pruned(storage.store)
            done.append(
                f"left damaged lines out of {KEY}, kept in {kept}; mp prune notes them again"
            )
        if absent.KEY in damaged:
            write_absent(storage.store, read_absent_lines(storage.store)[0])
            done.append(
                f"left damaged lines out of {absent.KEY}; mp fetch --heal brings what they named"
            )
    return done


def _distinct(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(problems))
