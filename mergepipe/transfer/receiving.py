"""A repository as others see it: a byte store of refs and packs that believes nothing it is sent.

What they may read and change, and how, is docs/format-remote.md. A server offers this over a wire;
a remote on this machine is used through it too, so that there is one receiving side.
"""

import functools
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

from msgspec import Struct

from mergepipe.bytestore.protocol import Buffer, ByteWriter, Swap, items_after, keys_after
from mergepipe.bytestore.wire import WRITE_ID_BYTES
from mergepipe.closing import Closing
from mergepipe.errors import (
    Corruption,
    RefExists,
    RefMoved,
    RemoteRefused,
)
from mergepipe.ids import NO_ID, BlockId, ObjectId, PackId
from mergepipe.names import quoted
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.places import locate
from mergepipe.packs.reader import PREFIX, parse_pack_key, raw_footer
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.packs.wholeness import check_changed
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import absent, pruned, tombstones
from mergepipe.repository.hooks import PRE_RECEIVE
from mergepipe.repository.notes import FOLDER as NOTES
from mergepipe.repository.refnames import HEADS, TAGS, is_shared_ref
from mergepipe.transfer.admission import Admission
from mergepipe.transfer.answered_writes import AnsweredWrites, why_of
from mergepipe.transfer.home import Home
from mergepipe.transfer.inspection import Arrived, Inspected, Inspector
from mergepipe.transfer.noting import swap_note
from mergepipe.transfer.public_keys import check_write, is_public, readable
from mergepipe.transfer.purging import carry_out
from mergepipe.transfer.quarantine import Quarantine
from mergepipe.transfer.remote_refs import MOST_REFS, parse_ref
from mergepipe.transfer.rules import Rules, refuse_purged
from mergepipe.transfer.two_storages import layered

MOST_IDS = 100_000
LARGEST_VALUES_BYTES = 1 << 30
_FOLDERS = (PREFIX, HEADS, TAGS, NOTES)


class _Move(Struct, frozen=True):
    """A ref that comes to stand at a commit."""

    key: str
    old: ObjectId | None
    new: ObjectId
    write_id: bytes


class ReceivingStore(Closing):
    """The keys of an open repository that others may see; all methods from any thread.

    `home` stays its owner's to close, unless `release` does it. `progress` hears of what is
    verified.
    """

    def __init__(
        self,
        home: Home,
        progress: Progress = SILENT,
        *,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._release = release
        self._home = home
        self._rules = Rules(home)
        home.refs.operations = None  # what others push is not for who works here to take back
        self._store = home.storage.store
        self._progress = progress
        self._quarantine = Quarantine(home.directory, home.config.receive.limit)
        self._inspected = Inspected()
        # One admission at a time bounds memory, and a write that is sent twice waits for itself.
        self._deciding = threading.Lock()
        self._answers = AnsweredWrites(home.refs)
        self._taking_up = threading.Lock()
        self._taken_up = False

    def close(self) -> None:
        """Release files of the quarantine; packs stay in it."""
        self._quarantine.close()
        self._release()

    # Reading

    def get(self, key: str) -> bytes | None:
        """A ref, HEAD, what was pruned or a pack; None if there is none. Raises RemoteRefused."""
        return self._store.get(readable(key))

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value. Raises FileNotFoundError, RemoteRefused."""
        return self._store.read_into(readable(key), offset, out)

    def size(self, key: str) -> int | None:
        """Length of the value, or None; of a pack in quarantine too."""
        bytes_here = self._store.size(readable(key))
        if bytes_here is None and (pack := parse_pack_key(key)) is not None:
            return self._quarantine.size(pack)
        return bytes_here

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        """Whether each block or object is here whole, quarantine included."""
        if len(ids) > MOST_IDS:
            raise RemoteRefused(f"more than {MOST_IDS} ids at once")
        self._take_up()
        storage = self._home.storage
        storage.refresh()
        both: Storage = storage
        if not self._quarantine.empty:
            self._quarantine.storage.refresh()
            both = layered(storage, self._quarantine.storage)

        def question(view: View) -> list[bool]:
            return [
                view.object(ObjectId(one)) is not None or view.has_block(BlockId(one))
                for one in ids
            ]

        check_changed(storage, lambda: ids)
        return both.ask(question)

    def pick(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of these keys, of those that are there. Raises RemoteRefused."""
        values = ((key, self.get(key)) for key in keys)
        return {key: value for key, value in values if value is not None}

    def locate(self, ids: Sequence[bytes]) -> list[PackId]:
        """The packs where blocks and objects are, every copy, and what the blocks lean on."""
        storage = self._home.storage
        packs, missing = storage.ask(functools.partial(locate, ids=ids))
        if missing and storage.refresh():
            packs, missing = storage.ask(functools.partial(locate, ids=ids))
        return list(packs)

    def footers(self, packs: Sequence[PackId]) -> list[bytes | None]:
        """The footers of packs, as they stand: whoever asked compares their hashes."""
        return [raw_footer(self._store, pack) for pack in packs]

    def _known(self, moves: Sequence[_Move], near: Sequence[str]) -> Collection[ObjectId]:
        """Commits of which nothing has to be sent: those here, unless something is damaged here.

        What was changed in `packs/` behind our back is read before it is leaned on. Where the
        pusher says what it builds on, no other refs are read: a hub may have a million.
        """
        storage, refs = self._home.storage, self._home.refs
        check_changed(storage, lambda: [it for move in moves for it in self._model(move.new)])
        if storage.lacking:
            return ()
        if not near:
            return list(refs.list().values())
        named = [refs.read(key) for key in near if is_shared_ref(key)]
        return [each for each in (*named, *(move.old for move in moves)) if each is not None]

    def _model(self, commit: ObjectId) -> list[bytes]:
        """The ids of all that the model of a commit is made of, as far as it is here."""
        objects, ids = self._sent_objects(), [bytes(commit)]
        with suppress(Corruption):  # what is missing is for admission to say
            snapshot = objects.commit(commit).snapshot
            ids.append(snapshot)
            for tensor in objects.snapshot(snapshot).tensor_ids():
                ids += (tensor, *objects.tensor(tensor).block_ids())
        return ids

    def _take_up(self) -> None:
        """Before the first answer to who pushes: what an earlier push, killed, had sent here."""
        with self._taking_up:
            if not self._taken_up:
                self._quarantine.take_up()
                self._taken_up = True

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of packs, branches, tags and notes under a folder, sorted."""
        return self.keys_after(prefix, "")

    def keys_after(self, prefix: str, after: str) -> Iterator[str]:
        """Those of them that come after a key."""
        for folder in _folders(prefix):
            yield from filter(is_public, keys_after(self._store, folder, after))

    def items_after(self, prefix: str, after: str) -> Iterator[tuple[str, bytes]]:
        """The same with their values. Raises RemoteRefused for packs."""
        if (prefix and PREFIX.startswith(prefix)) or prefix.startswith(PREFIX) or not prefix:
            raise RemoteRefused(f"no folder of small values: {quoted(prefix)}")
        for folder in _folders(prefix):
            items = items_after(self._store, folder, after)
            yield from ((key, value) for key, value in items if is_public(key))

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of refs or notes. Raises RemoteRefused if they are too many."""
        values_by_key: dict[str, bytes] = {}
        size = 0
        for key, value in self.items_after(prefix, ""):
            values_by_key[key] = value
            size += len(key) + len(value)
            if len(values_by_key) > MOST_REFS or size > LARGEST_VALUES_BYTES:
                raise RemoteRefused(f"more than {MOST_REFS} refs, or {LARGEST_VALUES_BYTES} bytes")
        return values_by_key

    # Writing

    def purge(self, request: bytes) -> bytes:
        """Remove models for good, if `receive.allow_purge`; see `transfer.purging.carry_out`."""
        with self._deciding:
            return carry_out(self._home, request, self._progress)

    def create(self) -> ByteWriter:
        """Begin a pack. Raises RemoteRefused if there is no room, UnsafeRepository."""
        self._home.guard()
        return self._quarantine.create(self._look)

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Put packs into quarantine. Raises Corruption, RemoteRefused for what is no such pack."""
        for writer, key in values:
            pack = parse_pack_key(key)
            if pack is None:
                raise RemoteRefused(f"only packs are sent: {quoted(key)}")
            if self._store.size(key) is not None:
                writer.abort()
                continue
            try:
                self._quarantine.keep(writer, pack, self._look)
            except BaseException:
                writer.abort()
                raise
            if self._store.size(key) is not None:  # sent twice at once, and one was taken in
                self._quarantine.remove([pack])

    def _look(self, pack: PackId, offsets: Sequence[int], arrived: Sequence[Arrived]) -> None:
        """Decode what can be decoded while more comes in. Raises Corruption naming a block."""
        for offset, before in zip(offsets, self._inspector.inspect(arrived), strict=True):
            if before is not None:
                self._inspected.note((*before, (pack, offset)))

    @cached_property
    def _inspector(self) -> Inspector:
        both = layered(self._home.storage, self._quarantine.storage)
        # What others lean on is seldom a difference itself.
        return Inspector(both, self._inspected, lambda header: header.base == NO_ID)

    def put(self, key: str, value: Buffer) -> None:
        """Never: refs move by compare-and-swap, packs are published."""
        raise RemoteRefused(f"nothing is put here: {quoted(key)}")

    def delete(self, key: str) -> None:
        """Never: refs are removed by compare-and-swap, packs by their owner."""
        raise RemoteRefused(f"nothing is deleted here: {quoted(key)}")

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Move a ref; see `swap_with_id`."""
        return self.swap_with_id(key, old, new, os.urandom(WRITE_ID_BYTES))

    def swap_with_id(self, key: str, old: bytes | None, new: bytes | None, write_id: bytes) -> bool:
        """Move a branch or tag from `old` to `new` (None: absent), if it is at `old`; notes, too.

        What the new commit needs is admitted first. The same `write_id` again is answered, not
        done again. Whether a move must go forward is for the caller to say, unless
        `receive.deny_force`. Raises RemoteRefused; Corruption or MissingObject naming an id that
        is wrong or not here; Locked, NoSpace.
        """
        if key.startswith(NOTES):
            return swap_note(self._home, key, old, new)  # the same again gives the same answer
        check_write(key, write_id)
        before = None if old is None else parse_ref(key, old)
        after = None if new is None else parse_ref(key, new)
        with self._deciding:
            done = self._answers.of(key, before, after, write_id)
            if done is None:
                done = self._move(key, before, after, write_id)
            self._answers.remember(write_id, done)
            return done

    def _move(self, key: str, old: ObjectId | None, new: ObjectId | None, write_id: bytes) -> bool:
        home = self._home
        if home.refs.read(key) != old:
            return False
        if new == old:
            return True
        if new is not None:
            return self._move_together([_Move(key, old, new, write_id)])
        self._rules.may_begin(key, old, new)
        self._rules.ask_hook(key, old, new)
        try:
            home.refs.delete(key, expected=old, who=home.signature(), why=why_of(write_id))
        except RefMoved:
            return False
        return True

    def swap_together(self, swaps: Sequence[Swap], near: Sequence[str] = ()) -> bool:
        """Move refs, as `swap_with_id` does, if each of them may; what they need is verified once.

        False: none was moved, for a reason that single swaps will tell.
        """
        return self.swap_with_ids(swaps, [os.urandom(WRITE_ID_BYTES) for _ in swaps], near)

    def swap_with_ids(
        self, swaps: Sequence[Swap], write_ids: Sequence[bytes], near: Sequence[str] = ()
    ) -> bool:
        """`swap_together`; what was asked for under these ids before is answered, not done again.

        Of moves that a kill had cut short, those that are left are made.
        """
        if self._home.hooks.has(PRE_RECEIVE):
            return False  # it has its say on one move at a time
        moves = []
        with self._deciding:
            try:
                for (key, before, after), write_id in zip(swaps, write_ids, strict=True):
                    check_write(key, write_id)
                    if after is None:
                        return False
                    old = None if before is None else parse_ref(key, before)
                    new = parse_ref(key, after)
                    done = self._answers.of(key, old, new, write_id)
                    if done is None and self._home.refs.read(key) == old != new:
                        moves.append(_Move(key, old, new, write_id))
                    elif not done:
                        return False
                if moves and not self._move_together(moves, near):
                    return False
            except (RemoteRefused, Corruption, RefExists):
                return False
            for write_id in write_ids:
                self._answers.remember(write_id, True)
            return True

    def _move_together(self, moves: Sequence[_Move], near: Sequence[str] = ()) -> bool:
        """Admit what new values of refs need, then move all of them, or none.

        `near`: refs whose history most likely is that which is built on.
        """
        home = self._home
        for move in moves:
            self._rules.may_begin(move.key, move.old, move.new)
        news = [move.new for move in moves]
        who = home.signature()
        try:
            with home.writing():
                stones = tombstones.read_tombstones(self._store)
                known = self._known(moves, near)
                # What is pushed has to be whole; of what is here already only damage is mended.
                whole = pruned.NONE if known else pruned.read_pruned(self._store)
                gone = whole.without(stones, stones.snapshots)
                gone = gone.but_absent(absent.read_absent(self._store))
                admission = Admission(
                    home.storage,
                    self._quarantine,
                    inspected=self._inspected,
                    pruned=gone,
                    threads=home.threads,
                    progress=self._progress,
                )
                admission.verify(news, known)
                sent = self._sent_objects()
                for move in moves:
                    self._rules.may_end(sent, move.key, move.old, move.new)
                    refuse_purged(sent, move.new, stones)
                asked = home.hooks.has(PRE_RECEIVE)
                if asked:
                    # It is another process, which sees what is stored; a gc takes what it refused.
                    admission.publish()
                    for move in moves:
                        self._rules.ask_hook(move.key, move.old, move.new)
                with home.refs.locked():
                    if any(home.refs.read(move.key) != move.old for move in moves):
                        return False
                    if not asked:
                        admission.publish()
                    absent.change_absent(self._store, here=admission.commits)
                    with home.refs.together():
                        for each in moves:
                            why = why_of(each.write_id)
                            home.refs.update(
                                each.key, each.new, expected=each.old, who=who, why=why
                            )
            self._inspected.forget(everything=self._quarantine.empty)
        except RefMoved:
            return False
        return True

    def _sent_objects(self) -> ObjectStore:
        """Objects here, and those in quarantine."""
        if self._quarantine.empty:
            return self._home.objects
        return ObjectStore(layered(self._home.storage, self._quarantine.storage))


def _folders(prefix: str) -> Iterator[str]:
    """The folders of what others may see that a prefix means, or the part of one."""
    for folder in _FOLDERS:
        if folder.startswith(prefix):
            yield folder
        elif prefix.startswith(folder):
            yield prefix
