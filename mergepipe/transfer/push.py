"""Pushing: what the other side lacks goes there, then its refs move. docs/format-remote.md, "Push".

The same algorithm for every store: a repository on this machine, a server, a bucket where nobody
computes. Nothing is assumed of the other side but what a byte store promises.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct, field

from mergepipe.bytestore.protocol import (
    ByteStore,
    Swap,
    Turn,
    as_gathering,
    as_holding,
    writing_to,
)
from mergepipe.dtypes import DType
from mergepipe.errors import MissingObject, RefMoved
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.ahead import ObjectsAhead
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.records import Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.pruned import NONE, Pruned
from mergepipe.repository.refnames import HEADS, title
from mergepipe.repository.tombstones import Tombstones, read_tombstones
from mergepipe.reprs import brief
from mergepipe.transfer.holdings import IndexedFooters, holdings
from mergepipe.transfer.new_commits import commits_between, known_objects, objects_of
from mergepipe.transfer.push_refs import Decision, Move, Wanted, decide, no_such_ref
from mergepipe.transfer.push_refusals import refuse_absent, refuse_pruned
from mergepipe.transfer.remote_refs import (
    RemoteRefs,
    parse_ref,
    read_refs,
    read_some_refs,
    ref_value,
)
from mergepipe.transfer.rules import refuse_purged
from mergepipe.transfer.source import Source
from mergepipe.transfer.uploading import Sent, Uploader
from mergepipe.transfer.wire_choice import Chooser
from mergepipe.transfer.wire_packs import Grouping, object_packs

_HEAD = "HEAD"
# Of a remote with thousands of refs, those whose models are looked at for what a new one shares.
_MOST_TIPS = 64


@brief
class Pushed(Struct, frozen=True):
    """What a push did.

    commits, objects, blocks  new to the other side, and sent (blocks that were there already, by
                              other history or an earlier try, are `blocks_held`)
    raw_bytes                 size of the files of the commits that were new there
    bytes_sent, packs_sent    what went over the wire; packs that were there are not counted
    notes                     commits of which the other side learnt notes
    """

    refs: tuple[Decision, ...]
    commits: int = 0
    objects: int = 0
    blocks: int = 0
    blocks_held: int = 0
    raw_bytes: int = 0
    bytes_sent: int = 0
    packs_sent: int = 0
    notes: int = 0


def push(
    source: Source,
    store: ByteStore,
    wanted: Sequence[Wanted],
    *,
    moved: Callable[[Decision], None] = lambda decision: None,
    ask: Callable[[Sequence[Decision]], None] = lambda decisions: None,
    progress: Progress = SILENT,
) -> Pushed:
    """Move refs of the other side, once it has all that they need.

    `moved` is called for every ref as soon as it is where it should be, `ask` once with those that
    will move, before anything is sent: it raises if they are not to. Refs that may not move are
    found before anything is sent. Raises RefMoved (not a fast-forward; or another pusher was
    faster), RevisionNotFound (a ref to delete is not there), RemoteRefused, RemoteUnreachable,
    MissingObject and Corruption for what is damaged here; Locked while gc is at work in a bucket.
    """
    with writing_to(store, "push") as turn:
        return _push(source, store, wanted, turn, moved, ask, progress)


def _push(
    source: Source,
    store: ByteStore,
    wanted: Sequence[Wanted],
    turn: Turn,
    moved: Callable[[Decision], None],
    ask: Callable[[Sequence[Decision]], None],
    progress: Progress,
) -> Pushed:
    tally = _Tally()
    remaining = {ref.name: ref for ref in wanted}
    done: list[Decision] = []

    def settle(decision: Decision) -> None:
        done.append(decision)
        moved(decision)
        del remaining[decision.name]

    try:
        _attempt(source, store, list(remaining.values()), turn, settle, ask, tally, progress)
    except _Incomplete:
        # Its gc removed what it said it had, between the answer and the swap.
        try:
            # Or something is damaged there: now it is asked for all that history needs.
            _attempt(
                source,
                store,
                list(remaining.values()),
                turn,
                settle,
                lambda _: None,
                tally,
                progress,
                distrust=True,
            )
        except _Incomplete as error:
            raise error.cause from None
    order = {ref.name: number for number, ref in enumerate(wanted)}
    done.sort(key=lambda decision: order[decision.name])
    return Pushed(
        refs=tuple(done),
        commits=tally.commits,
        objects=tally.objects,
        blocks=tally.blocks,
        blocks_held=tally.blocks_held,
        raw_bytes=tally.raw_bytes,
        bytes_sent=tally.bytes_sent,
        packs_sent=tally.packs_sent,
    )


class _Tally(Struct):
    commits: int = 0
    objects: int = 0
    blocks: int = 0
    blocks_held: int = 0
    raw_bytes: int = 0
    bytes_sent: int = 0
    packs_sent: int = 0


class _Incomplete(Exception):
    """The other side lacks what it said it has."""

    def __init__(self, cause: MissingObject) -> None:
        self.cause = cause


class _Need(Struct):
    """What new commits need beyond the known: in publish order, each once."""

    objects: list[ObjectId] = field(default_factory=list)
    blocks: dict[BlockId, tuple[int, DType]] = field(default_factory=dict)
    raw_bytes: int = 0


def _attempt(
    source: Source,
    store: ByteStore,
    wanted: Sequence[Wanted],
    turn: Turn,
    settle: Callable[[Decision], None],
    ask: Callable[[Sequence[Decision]], None],
    tally: _Tally,
    progress: Progress,
    *,
    distrust: bool = False,
) -> None:
    # The branches that were seen there before tell most often what history is there already.
    names = [*(ref.name for ref in wanted), *source.near]
    there = read_some_refs(store, names) if source.near else read_refs(store)
    stones = read_tombstones(store)
    for ref in wanted:
        if ref.new is None and ref.name not in there.values:
            raise no_such_ref(ref.name)
    decisions = decide(wanted, there.values, source.objects)
    moving = [decision for decision in decisions if decision.move is not Move.UNCHANGED]
    for decision in decisions:
        if decision.move is Move.UNCHANGED:
            settle(decision)
    if moving:
        ask(moving)
    tips = [decision.new for decision in moving if decision.new is not None]
    for tip in tips:
        refuse_purged(source.objects, tip, stones, "the remote")
    order: Sequence[ObjectId] = ()
    if tips:
        known = [] if distrust else source.objects.present(there.values.values())
        order = _send(source, store, tips, known, stones, tally, progress)
    turn.check()
    # What needs most goes first: the other side then looks at all of it once, in one go.
    place: dict[ObjectId | None, int] = {each: -number for number, each in enumerate(order)}
    ordered = sorted(moving, key=lambda each: place.get(each.new, 1))
    at_once = _swap_together(store, ordered, there, source.objects)
    for decision in ordered:
        if not at_once:
            _swap(store, decision, there)
        settle(decision)
    _make_head(store, there, moving)


def _send(
    source: Source,
    store: ByteStore,
    tips: Sequence[ObjectId],
    known: Sequence[ObjectId],
    stones: Tombstones,
    tally: _Tally,
    progress: Progress,
) -> Sequence[ObjectId]:
    """Send what `tips` need and the other side lacks; blocks first, objects last.

    Returns the commits that are new there, each after those that it needs.
    """
    objects = ObjectsAhead(source.objects)
    objects.expect([*tips, *known])
    new = commits_between(objects, tips, known, source.pruned.absent)
    if not new.commits:
        return ()
    refuse_pruned(source, new.commits, stones)
    # What the tips there bring counts as known too: a branch begun anew shares most with them.
    have = known_objects(objects, dict.fromkeys([*new.boundary, *known[:_MOST_TIPS]]))
    left_out = NONE.without(stones, stones.snapshots).but_absent(source.pruned.absent)
    need = _needed(source, objects, new.commits, have, left_out)
    holding = holdings(store, IndexedFooters(source.storage.index))
    refuse_absent(source, new.commits, holding)
    ids: list[bytes] = [*need.objects, *need.blocks]
    held = dict(zip(ids, holding.holds(ids), strict=True))
    tally.commits, tally.raw_bytes = len(new.commits), need.raw_bytes
    tally.objects = sum(not held[identity] for identity in need.objects)
    missing = [block for block in need.blocks if not held[block]]
    tally.blocks, tally.blocks_held = len(missing), len(need.blocks) - len(missing)
    uploader = Uploader(
        source.storage,
        source.blocks,
        store,
        alone=as_holding(store) is None,
        effort=source.effort,
    )

    def done(raw_bytes: int, sent: Sent) -> None:
        tally.packs_sent += sent.packs
        tally.bytes_sent += sent.bytes
        progress.advance(raw_bytes, tally.bytes_sent)

    progress.start("push", sum(need.blocks[block][0] for block in missing))
    if missing:
        chooser = Chooser(source.storage, holding, need.blocks, held, max_chain=source.max_chain)
        grouping = Grouping(source.storage, chooser, pack_bytes=source.pack_bytes)
        candidates = ((block, length, dtype) for block, (length, dtype) in need.blocks.items())
        uploader.send_groups(grouping.run(candidates), done)
    sending = [(identity, held[identity]) for identity in need.objects]
    uploader.send_packs(object_packs(source.storage, sending, source.pack_bytes), done)
    return new.commits


def _needed(
    source: Source,
    objects: ObjectsAhead,
    commits: Sequence[ObjectId],
    known: dict[ObjectId, str],
    purged: Pruned,
) -> _Need:
    need = _Need()
    ahead = objects.models(commits, known.__contains__)
    for needed in objects_of(objects, ahead, known, purged, inputs=source.inputs):
        need.objects.append(needed.id)
        record = needed.record
        if isinstance(record, Tensor):
            for use in blocks_of(record, f"tensor {needed.id.hex()}"):
                need.blocks.setdefault(use.id, (use.length, use.dtype))
        elif isinstance(record, Snapshot):
            need.raw_bytes += sum(file.size for file in record.files)
    return need


def _swap_together(
    store: ByteStore, decisions: Sequence[Decision], there: RemoteRefs, objects: ObjectStore
) -> bool:
    """Move refs in one exchange; False: none was moved, and it is one at a time."""
    gathering = as_gathering(store)
    swaps: list[Swap] = []
    for decision in decisions:
        value = ref_value(decision.new)
        if value is None:
            return False
        swaps.append((decision.name, there.raw.get(decision.name), value))
    if gathering is None or not swaps:
        return False
    known = set(objects.present(there.values.values()))
    near = [name for name, at in there.values.items() if at in known]
    return gathering.swap_together(swaps, near)


def _swap(store: ByteStore, decision: Decision, there: RemoteRefs) -> None:
    """Move one ref. Raises RefMoved with both values, _Incomplete."""
    old = there.raw.get(decision.name)
    try:
        if store.compare_and_swap(decision.name, old, ref_value(decision.new)):
            return
    except MissingObject as error:
        raise _Incomplete(error) from error
    now = store.get(decision.name)
    current = None if now is None else parse_ref(decision.name, now)
    if current == decision.new:
        return  # somebody else pushed the very same
    raise RefMoved(
        f"{title(decision.name)} of the remote moved from {_at(decision.old)} to {_at(current)} "
        "meanwhile: somebody else pushed",
        "`mp fetch`, look at what is new there, and push again",
    )


def _make_head(store: ByteStore, there: RemoteRefs, moved: Sequence[Decision]) -> None:
    """In a bucket that had nothing, say which branch a clone begins with: the first pushed."""
    if there.values or as_holding(store) is not None:
        return
    branch = next((ref.name for ref in moved if ref.new and ref.name.startswith(HEADS)), None)
    if branch is not None and store.get(_HEAD) is None:
        store.compare_and_swap(_HEAD, None, f"ref: {branch}\n".encode())


def _at(value: ObjectId | None) -> str:
    return "no commit" if value is None else value.hex()[:12]
