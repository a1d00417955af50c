"""What fsck --repair does. Nothing is deleted, and nothing is made up."""

import contextlib
from collections.abc import Collection, Iterable

from blake3 import blake3

from mergepipe.bytestore.protocol import ByteWriter
from mergepipe.errors import Corruption, MergepipeError, RemoteUnreachable
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.format import Content, RecordKind
from mergepipe.packs.reader import pack_key, salvage_records
from mergepipe.packs.storage import Storage
from mergepipe.packs.writer import PackWriter
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refnames import HEADS
from mergepipe.repository.refs import ANY, HEAD, RefStore
from mergepipe.repository.survey import check_record

QUARANTINE = "quarantine/"
_COPY_BYTES = 4 << 20


def condemned_packs(storage: Storage) -> set[PackId]:
    """Packs in which records were found damaged."""
    packs = {pack for pack, _ in storage.condemned}
    return {pack for pack in packs if storage.store.size(pack_key(pack)) is not None}


def rescue_packs(packs: Collection[PackId], storage: Storage) -> list[str]:
    """Copy damaged packs to quarantine/ and their whole records to new packs, then remove them.

    Raises NoSpace; the packs that were not removed yet are as they were.
    """
    done = []
    for pack in packs:
        aside = _copy_aside(pack, storage)
        copies, count = _copy_records(pack, storage)
        if pack not in copies:  # else only its frame was damaged, and the new file took its place
            storage.store.delete(pack_key(pack))
        done.append(f"copied {count} whole records of pack {pack.hex()}, and moved it to {aside}")
    if done:
        gone = set(packs)
        storage.absolve([place for place in storage.condemned if place[0] not in gone])
        # What was promised may be so again; offline, the next fetch sees to it.
        with contextlib.suppress(RemoteUnreachable):
            storage.promises.relist()
        storage.rebuild()
    return done


def _copy_aside(pack: PackId, storage: Storage) -> str:
    """A durable copy of a pack, byte for byte, in quarantine/; returns its key."""
    key = pack_key(pack)
    size = storage.store.size(key) or 0
    copy = storage.store.create()
    buffer = memoryview(bytearray(_COPY_BYTES))
    content = blake3()
    try:
        for offset in range(0, size, _COPY_BYTES):
            count = storage.store.read_into(key, offset, buffer[: size - offset])
            copy.write(buffer[:count])
            content.update(buffer[:count])
        copy.sync()
        # The same pack may be damaged twice, and differently.
        target = f"{QUARANTINE}{pack.hex()}-{content.hexdigest()[:8]}.pack"
        storage.store.publish([(copy, target)])
    except BaseException:
        copy.abort()
        raise
    return target


def _copy_records(pack: PackId, storage: Storage) -> tuple[set[PackId], int]:
    """New packs of the records that are whole; returns their ids and how many records."""
    writers: dict[Content, PackWriter] = {}
    values: dict[PackId, ByteWriter] = {}
    count = 0
    try:
        for header, offset in salvage_records(storage.store, pack):
            content = Content.OBJECTS if header.kind is RecordKind.OBJECT else Content.BLOCKS
            writer = writers.get(content)
            if writer is None:
                writer = writers[content] = PackWriter(storage.store, content)
            data = check_record(storage.store, pack, header, offset)
            writer.add_copy(header, data)
            count += 1
        for content in sorted(writers):
            entry, value = writers[content].finish()
            value.sync()
            values[entry.id] = value
        storage.store.publish([(value, pack_key(copy)) for copy, value in values.items()])
    except BaseException:
        for writer in writers.values():
            writer.abort()
        raise
    return set(values), count


def restore_refs(
    names: Iterable[str], objects: ObjectStore, refs: RefStore, who: Signature
) -> list[str]:
    """Put damaged refs back to the newest commit of their logs that is there."""
    done = []
    for name in names:
        if name == HEAD:
            branch = _branch_for_head(refs)
            refs.set_head(branch, who=who, why="fsck: HEAD was damaged")
            done.append(f"put HEAD on {branch}")
            continue
        commit = _last_good(name, objects, refs)
        if commit is not None:
            try:
                refs.update(
                    name, commit, expected=ANY, who=who, why="fsck: restored from the reflog"
                )
            except MergepipeError:
                continue  # a name that no ref may have stays for its owner to look at
            done.append(f"put {name} back to {commit.hex()}")
    return done


def mend_logs(names: Iterable[str], refs: RefStore) -> list[str]:
    """Take damaged lines out of logs; the logs as they were go to quarantine/."""
    done = []
    if refs.reflog is not None and (names := list(names)):
        with refs.locked():
            for name in names:
                kept = refs.reflog.mend(name)
                done.append(f"left damaged lines out of the log of {name}, kept in {kept.name}")
    return done


def _last_good(name: str, objects: ObjectStore, refs: RefStore) -> ObjectId | None:
    if refs.reflog is None:
        return None
    for entry in refs.reflog.read(name):
        for candidate in (entry.new, entry.old):
            if candidate is None:
                continue
            try:
                objects.commit(candidate)
            except Corruption:
                continue
            return candidate
    return None


def _branch_for_head(refs: RefStore) -> str:
    """The branch that HEAD most likely stood on: the one that is where HEAD's log says it was."""
    fallback = f"{HEADS}main"
    if refs.reflog is None:
        return fallback
    branches = refs.names(HEADS)
    try:
        last = next(iter(refs.reflog.read(HEAD)), None)
        tips = refs.list(HEADS)
    except Corruption:  # without logs there is only the convention
        last, tips = None, {}
    there = [name for name, tip in tips.items() if last is not None and tip == last.new]
    if len(there) == 1:
        return there[0]
    return fallback if fallback in branches or not branches else branches[0]
