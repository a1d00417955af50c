"""What a merge made, and what it really cost: for the caller, and for runs/."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from mergepipe.engine.finite import NonFiniteValues
from mergepipe.engine.runs import Run
from mergepipe.engine.streaming import Streamed
from mergepipe.executors.readings import Readings
from mergepipe.ids import ObjectId, show_ids
from mergepipe.objects.merging import Manifest
from mergepipe.plans.left_out import LeftOut
from mergepipe.reprs import brief, html_table
from mergepipe.sizes import format_size


@brief
class Costs(Struct, frozen=True):
    """What a run took. Sizes in bytes, as stored; blocks are the output's."""

    readings: Readings
    import_bytes: int
    written_bytes: int
    seconds: float
    blocks_computed: int
    blocks_remembered: int
    blocks_kept: int
    cache_bytes: int = 0
    attempts: tuple[Readings, ...] = ()
    resumed: int = 0

    @classmethod
    def of(
        cls,
        readings: Readings,
        streamed: Streamed,
        *,
        import_bytes: int,
        written_bytes: int,
        seconds: float,
        cache_bytes: int = 0,
    ) -> "Costs":
        """The costs of a run so far."""
        return cls(
            readings,
            import_bytes,
            written_bytes,
            seconds,
            streamed.computed,
            streamed.remembered,
            streamed.kept,
            cache_bytes,
            streamed.attempts,
            streamed.resumed,
        )


@brief
class MergeResult(Struct, frozen=True):
    """A published merge. `snapshot, manifest = result` works too.

    left_out  what it leaves out of its models: kind, model, names, and words (`message`)
    hook      whether post-merge `ran`, or why it failed; None without one
    """

    commit: ObjectId
    snapshot: ObjectId
    manifest: Manifest
    manifest_id: ObjectId
    plan_id: ObjectId
    branch: str | None
    costs: Costs
    nonfinite: NonFiniteValues
    left_out: tuple[LeftOut, ...] = ()
    hook: str | None = None

    def __post_init__(self) -> None:
        show_ids(self, "commit", "snapshot", "manifest_id", "plan_id")

    def __iter__(self) -> Iterator[ObjectId | Manifest]:
        yield self.snapshot
        yield self.manifest

    def _repr_html_(self) -> str:
        """Where it went and what it took, for notebooks."""
        rows = [
            ("commit", self.commit.hex()),
            ("plan", self.plan_id.hex()),
            ("expert bytes read", format_size(self.expert_bytes_read)),
            ("base bytes read", format_size(self.base_bytes_read)),
            ("written", format_size(self.written_bytes)),
            ("seconds", f"{self.seconds:.2f}"),
            *((f"left out of {each.model}", each.message) for each in self.left_out),
        ]
        where = f" on {self.branch}" if self.branch else ""
        return html_table(f"Merge {self.commit.hex()[:12]}{where}", ("", ""), rows)

    @property
    def expert_bytes_read(self) -> int:
        """Bytes read from storage for expert blocks."""
        return self.costs.readings.expert_bytes

    @property
    def base_bytes_read(self) -> int:
        """Bytes read from storage for the base's blocks."""
        return self.costs.readings.base_bytes

    @property
    def import_bytes(self) -> int:
        """Bytes read to import experts given as paths."""
        return self.costs.import_bytes

    @property
    def written_bytes(self) -> int:
        """Bytes added to the store."""
        return self.costs.written_bytes

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.costs.seconds


def describe_run(result: MergeResult, *, host: str, device: str) -> str:
    """The text of a run's file."""
    costs, readings = result.costs, result.costs.readings
    run = Run(
        version=1,
        commit=result.commit.hex(),
        plan=result.plan_id.hex(),
        manifest=result.manifest_id.hex(),
        snapshot=result.snapshot.hex(),
        host=host,
        device=device,
        seconds=round(costs.seconds, 6),
        expert_bytes_read=readings.expert_bytes,
        base_bytes_read=readings.base_bytes,
        metadata_bytes_read=readings.metadata_bytes,
        reads=readings.reads,
        import_bytes=costs.import_bytes,
        written_bytes=costs.written_bytes,
        blocks_computed=costs.blocks_computed,
        blocks_remembered=costs.blocks_remembered,
        blocks_kept=costs.blocks_kept,
        cache_bytes_read=costs.cache_bytes,
        attempts=len(costs.attempts),
        attempts_bytes_read=sum(
            attempt.expert_bytes + attempt.base_bytes for attempt in costs.attempts
        ),
        segments_resumed=costs.resumed,
    )
    return msgspec.json.format(msgspec.json.encode(run), indent=2).decode() + "\n"
