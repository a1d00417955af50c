"""Running a merge again from its plan, publishing nothing, to compare every id."""

from msgspec import Struct

from mergepipe.engine.engine import Engine
from mergepipe.engine.memo import NoMemo
from mergepipe.engine.meter import Meter, metered
from mergepipe.executors.readings import Readings
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Manifest, Plan
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.sink import ObjectsInMemory
from mergepipe.plans.models import require_models
from mergepipe.progress import SILENT, Progress
from mergepipe.reprs import brief


@brief
class Replay(Struct, frozen=True):
    """What a replay found. `tensors` are the names of those that came out otherwise."""

    snapshot: ObjectId
    manifest: ObjectId
    same: bool
    tensors: tuple[str, ...]
    readings: Readings


def replay(engine: Engine, manifest: ObjectId, *, progress: Progress = SILENT) -> Replay:
    """Execute the plan of a manifest from its inputs, taking no remembered result.

    Raises MergepipeError if inputs are not here, MissingObject if the plan or blocks are not, and
    what executing raises.
    """
    meter = Meter()
    objects = ObjectStore(metered(engine.storage, meter))
    recorded = objects.load(manifest, Manifest)
    plan = objects.load(recorded.plan, Plan)
    require_models(plan, objects)
    merged = engine.run(
        plan,
        ObjectsInMemory(),
        meter,
        memo=NoMemo(),
        progress=progress,
        derive=True,
        encode_blocks=False,
    )
    identity = object_id(encode(merged.manifest))
    differing = tuple(
        before.name
        for before, after in zip(recorded.tensors, merged.manifest.tensors, strict=False)
        if before != after
    )
    same = identity == manifest and merged.snapshot == recorded.output
    return Replay(merged.snapshot, identity, same, differing, meter.readings())
