"""Executing plans: stream, name, publish."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from msgspec import Struct, field

from mergepipe.catalog.finiteness import Finiteness
from mergepipe.engine import finite
from mergepipe.engine.batches import Batcher
from mergepipe.engine.computing import MergeJob, Supply, Worker
from mergepipe.engine.encoding import OutputEncoder
from mergepipe.engine.factors import FactorReader
from mergepipe.engine.kept_segments import Kept, KeptSegments, NothingKept
from mergepipe.engine.manifest import write_manifest
from mergepipe.engine.memo import Memo, Memory, NoMemo
from mergepipe.engine.meter import Meter, metered
from mergepipe.engine.output import OutputFiles
from mergepipe.engine.partial_sums import PartialSums
from mergepipe.engine.result import Costs, MergeResult, describe_run
from mergepipe.engine.shared_store import OpenShared, SharedSink, SharedStore
from mergepipe.engine.streaming import Streamed, Streaming, check_layout
from mergepipe.engine.transactions import MergeRequest, Transactions
from mergepipe.executors.home import Coordinator
from mergepipe.executors.segments import SEGMENT_BYTES, Executor, Place, WorkerSpec
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.executors.versions import own_versions
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Manifest, Plan
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.made_blocks import MadeBlocks
from mergepipe.packs.sink import PackSink
from mergepipe.packs.storage import Storage
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.reflog import Signature
from mergepipe.reprs import brief

_SUMMED_BYTES = 16 << 20


class Executed(Struct, frozen=True):
    """What a plan's execution made, in a sink that is not published yet."""

    snapshot: ObjectId
    manifest: Manifest
    streamed: Streamed


@brief
class Engine(Struct, frozen=True):
    """Executes plans over one store.

    transactions  where merges are written and published; not needed to replay
    encoder   how output blocks are stored
    device    where the arithmetic runs: `cpu`, or a torch device such as `cuda`
    clock     seconds from any moment on; host: what runs/ says of the machine
    cache_bytes  room for sums that later merges begin with (`partial_sums`)
    place     where other processes find the store, to write or only to read; None: they do not
    shared    where blocks of merges go instead of the store: of a lazy clone, its remote's
    segment_bytes  output of what is handed out at once, about
    made      where raw blocks that this process makes are kept too
    """

    storage: Storage
    transactions: Transactions | None = None
    executor: Executor = field(default_factory=ThreadExecutor)
    encoder: OutputEncoder = field(default_factory=OutputEncoder)
    device: str = "cpu"
    clock: Callable[[], float] = time.perf_counter
    host: str = ""
    cache_bytes: int = 0
    place: Callable[[bool], Place | None] = lambda writes: None
    shared: OpenShared = nullcontext
    segment_bytes: int = SEGMENT_BYTES
    made: MadeBlocks | None = None

    def execute(
        self,
        plan: Plan,
        request: MergeRequest | None = None,
        *,
        reuse: bool = True,
        progress: Progress = SILENT,
    ) -> MergeResult:
        """Merge, and publish the result on the branch asked for.

        `reuse` takes blocks that earlier merges made of the same inputs. Raises MergeInputError,
        Corruption, MissingObject, NoSpace, Locked; the repository is then as it was. Values that
        are not finite, in what goes in or comes out, raise MergeInputError unless they are allowed.
        """
        transactions = self.transactions
        if transactions is None:
            raise ValueError("an engine without transactions cannot publish")
        asked = request or MergeRequest()
        begun = self.clock()
        meter = Meter()
        memo: Memory = Memo(self.storage) if reuse else NoMemo()
        finiteness = Finiteness(self.storage, transactions.objects)
        known = finiteness.of_plan(plan)
        names = asked.names or tuple(model.hex()[:12] for model in plan.models)
        if not asked.allow_nonfinite:
            finite.refuse_inputs(known, names)
        uncounted = finite.uncounted_places(plan, finiteness)
        sums = None
        # What a sum stands for is not looked at, and must be beyond doubt.
        if reuse and self.cache_bytes and self.device == "cpu" and not uncounted:
            sums = PartialSums(transactions.files, self.cache_bytes)
        with (
            transactions.begin() as transaction,
            self.shared() as shared,
            self._keeping(transactions, plan, uncounted) as keeping,
        ):
            sink = None if shared is None else SharedSink(transaction, shared, self.storage)
            plan_id = transaction.add_object(encode(plan))
            merged = self.run(
                plan,
                sink or transaction,
                meter,
                memo=memo,
                progress=progress,
                uncounted=uncounted,
                sums=sums,
                shared=shared,
                # What goes to a shared store lies there, not here.
                kept=keeping if shared is None else None,
            )
            values = finite.values_of(plan, known, merged.streamed, transactions.objects)
            if not asked.allow_nonfinite:
                finite.refuse_inputs(values.inputs, names)
                finite.refuse_output(values, [line.dtype for line in plan.made])
            manifest_id = transaction.add_object(encode(merged.manifest))
            (sink or transaction).settle()  # so that its time counts as the merge's
            if sink is not None:
                sink.publish_blocks()

            def costs() -> Costs:
                return Costs.of(
                    meter.readings(),
                    merged.streamed,
                    import_bytes=asked.import_bytes,
                    written_bytes=(sink or transaction).stored_bytes,
                    seconds=self.clock() - begun,
                    cache_bytes=0 if sums is None else sums.read_bytes,
                )

            def make(tip: ObjectId | None, who: Signature) -> Commit:
                base, experts = _input_commits(plan, asked, transactions)
                parents = [one for one in (tip, base, *experts) if one is not None]
                return Commit(
                    snapshot=merged.snapshot,
                    parents=tuple(dict.fromkeys(parents)),
                    leans_on=base,
                    author=who.author,
                    time=who.time,
                    utc_offset=who.utc_offset,
                    message=_message(asked, plan),
                    manifest=manifest_id,
                    trained_from=base,
                )

            published = transactions.publish(
                transaction, asked, make, why=f"merge: {plan.method} of {len(plan.experts)}"
            )
            memo.save()
            if not (uncounted or values.inputs):
                finiteness.remember(merged.snapshot, finite.counts_of_output(plan, merged.streamed))
            result = MergeResult(
                commit=published.commit,
                snapshot=merged.snapshot,
                manifest=merged.manifest,
                manifest_id=manifest_id,
                plan_id=plan_id,
                branch=published.branch,
                costs=costs(),
                nonfinite=values,
            )
            text = describe_run(result, host=self.host, device=self.device)
            transactions.keep_run(published.commit, text)
        return result

    def run(
        self,
        plan: Plan,
        sink: PackSink,
        meter: Meter,
        *,
        memo: Memory,
        progress: Progress = SILENT,
        derive: bool = False,
        encode_blocks: bool = True,
        uncounted: frozenset[tuple[int, int]] = frozenset(),
        sums: PartialSums | None = None,
        shared: SharedStore | None = None,
        kept: Kept | None = None,
    ) -> Executed:
        """Make a plan's output in a sink: blocks, tensors and the snapshot.

        derive         a coarse reading may come from exact bytes (engine.batches.Batcher)
        encode_blocks  False: blocks are named, not stored
        uncounted      inputs whose values are to be counted: (line, place), -1 for the base
        sums           what sums may begin with
        kept           what of this very run was done before
        shared         where blocks are read and written, if not in the store
        """
        metadata = metered(self.storage, meter)
        known = None if self.transactions is None else self.transactions.objects
        objects = ObjectStore(metadata, also=known)
        job = MergeJob(self.encoder, self.device, uncounted)
        reading = self.storage.store if shared is None else shared.reading
        worker = job.on(Supply(reading, Meter(), self.storage, made=self.made))
        streaming = Streaming(
            plan=plan,
            objects=objects,
            batcher=Batcher(
                metadata,
                object_id(encode(plan)),
                FactorReader(self.storage, meter),
                derive,
                encode_blocks,
            ),
            executor=self.executor,
            spec=self._spec(job, encode_blocks, shared),
            home=self._home(worker, sink, progress, encode_blocks, shared),
            meter=meter,
            memo=memo,
            sink=sink,
            progress=progress,
            sums=sums,
            kept=kept or NothingKept(),
            # Sums come back with their segment: they are not all to be in memory at once.
            segment_bytes=self.segment_bytes
            if sums is None
            else min(self.segment_bytes, _SUMMED_BYTES),
        )
        with objects.keeping():
            check_layout(plan, objects)
            progress.start("merge", _output_bytes(plan, objects))
            streamed = streaming.run()
            files = OutputFiles(objects, BlockReader(metadata), sink, self.encoder)
            places = [(line.file or "", line.name) for line in plan.made]
            tensors = dict(zip(places, streamed.tensors, strict=True))
            snapshot = sink.add_object(encode(files.snapshot(plan.layout, tensors)))
            manifest = write_manifest(plan, snapshot, streamed.tensors, objects)
            return Executed(snapshot, manifest, streamed)

    def _keeping(
        self, transactions: Transactions, plan: Plan, uncounted: frozenset[tuple[int, int]]
    ) -> KeptSegments:
        settings = repr((own_versions(), self.encoder, self.device, sorted(uncounted)))
        return KeptSegments(
            transactions.files, object_id(encode(plan)), settings.encode(), self.segment_bytes
        )

    def _spec(self, job: MergeJob, writes: bool, shared: SharedStore | None) -> WorkerSpec:
        if shared is not None:
            return WorkerSpec(shared.source, shared.target, job, own_versions())
        place = self.place(writes)
        return WorkerSpec(place, place if writes else None, job, own_versions())

    def _home(
        self,
        worker: Worker,
        sink: PackSink,
        progress: Progress,
        writes: bool,
        shared: SharedStore | None,
    ) -> Coordinator:
        if shared is not None:
            return Coordinator(worker, sink, progress, shared.store, shared.files)
        target = self.storage.store if writes else None
        manager = self.transactions
        files = manager.files if writes and manager is not None else None
        return Coordinator(worker, sink, progress, target, files)


def _message(asked: MergeRequest, plan: Plan) -> str:
    """What was asked for, and nothing of what the run took: the same merge is the same commit."""
    message = (asked.message or f"Merge by {plan.method}").rstrip()
    return f"{message}\n\n{asked.trailer}\n" if asked.trailer else f"{message}\n"


def _output_bytes(plan: Plan, objects: ObjectStore) -> int:
    """What will pass, near enough for a progress bar: the layout's tensor files."""
    tensor_files = {line.file for line in plan.made}
    files = objects.snapshot(plan.layout).files
    return sum(file.size for file in files if file.path in tensor_files)


def _input_commits(
    plan: Plan, request: MergeRequest, transactions: Transactions
) -> tuple[ObjectId | None, Sequence[ObjectId]]:
    """The commits of the inputs: as asked for, else tips that hold the plan's snapshots."""
    if request.base is not None or request.experts:
        return request.base, request.experts
    holders = transactions.holders()
    base = None if plan.base is None else holders.get(plan.base)
    experts = [
        holders[plan.models[place]] for place in plan.experts if plan.models[place] in holders
    ]
    return base, experts
