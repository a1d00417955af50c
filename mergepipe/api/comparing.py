"""Why two merges differ: which inputs changed between them, what moved, and whose doing it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.errors import MergeInputError
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import Manifest, Plan
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import history

if TYPE_CHECKING:
    from mergepipe.api.merging import Merging
    from mergepipe.api.opened import OpenRepository
    from mergepipe.api.planning import Planning
    from mergepipe.repository.diff import Diff, TensorDiff


class ChangedInput(Struct, frozen=True):
    """A model that went into one merge only, or another version of one. None: it had none.

    `name`: what people call it; commits that hold the versions.
    """

    name: str
    before: ObjectId | None
    after: ObjectId | None


class MovedTensor(Struct, frozen=True):
    """A tensor of the result. `relative_l2`: how far it moved; None where numbers do not exist.

    shares  of the changed inputs' own movements in this tensor, by their order; empty where nothing
            of theirs moved: then settings or the budget did it
    """

    name: str
    relative_l2: float | None
    nonfinite: int
    shares: tuple[float, ...]


class MergeComparison(Struct, frozen=True):
    """What is between two merges. `tensors`: those that moved, most first.

    methods, seeds, expert_bytes  of both: of one and the other
    """

    inputs: tuple[ChangedInput, ...]
    tensors: tuple[MovedTensor, ...]
    methods: tuple[str, str]
    seeds: tuple[int, int]
    expert_bytes: tuple[int, int]

    @property
    def blame(self) -> tuple[float, ...]:
        """Each changed input's share of the movement, over all tensors by how far they moved."""
        totals = [0.0] * len(self.inputs)
        for tensor in self.tensors:
            for place, share in enumerate(tensor.shares):
                totals[place] += share * (tensor.relative_l2 or 0.0)
        whole = sum(totals)
        return tuple(total / whole if whole else 0.0 for total in totals)


def compare_merges(
    repository: "OpenRepository",
    planning: "Planning",
    merging: "Merging",
    a: str,
    b: str,
    progress: Progress = SILENT,
) -> MergeComparison:
    """From the merge `a` to the merge `b`. Raises MergeInputError for what is no merge."""
    plans = [_plan(repository, each) for each in (a, b)]
    inputs = list(_changed(repository, planning, *plans))
    moved = {
        each.name: each
        for each in diff(repository, a, b, progress).tensors
        if str(each.change) != "same"
    }
    movements = [_movements(repository, each, progress) for each in inputs]
    tensors = [
        MovedTensor(name, each.relative_l2, each.nonfinite, _shares(name, movements))
        for name, each in moved.items()
    ]
    tensors.sort(key=lambda each: (-each.nonfinite, -(each.relative_l2 or 0.0)))
    read = [merging.explain_plan(plan).costs.expert_bytes_planned for plan in plans]
    return MergeComparison(
        tuple(inputs),
        tuple(tensors),
        (plans[0].method, plans[1].method),
        (plans[0].seed, plans[1].seed),
        (read[0], read[1]),
    )


def diff(repository: "OpenRepository", a: str, b: str, progress: Progress) -> "Diff":
    """How the model of revision `b` differs from that of `a`, tensor by tensor."""
    from mergepipe.repository.diff import diff_snapshots

    before, after = (
        repository.objects.snapshot(repository.model_of(each)[1].snapshot) for each in (a, b)
    )
    return diff_snapshots(
        before,
        after,
        repository.objects,
        repository.blocks,
        threads=repository.threads,
        progress=progress,
    )


def _plan(repository: "OpenRepository", revision: str) -> Plan:
    _, merge = repository.merge_of(revision)
    if merge is None:
        raise MergeInputError(
            f"{revision} is no merge", "mp diff compares any two revisions, tensor by tensor"
        )
    manifest = repository.objects.load(merge, Manifest)
    return repository.objects.load(manifest.plan, Plan)


def _changed(
    repository: "OpenRepository", planning: "Planning", before: Plan, after: Plan
) -> Iterator[ChangedInput]:
    """Inputs that only one has; versions of one model are paired along its branch."""
    gone = [each for each in before.models if each not in after.models]
    new = [each for each in after.models if each not in before.models]
    held = planning.holders([*gone, *new])
    commits = {each: held[each].commit for each in (*gone, *new) if each in held}
    for snapshot in new:
        earlier = _version_of(repository, commits.get(snapshot), gone)
        if earlier is None:  # after a rollback the later version is the one before
            later = (
                each for each in gone if _version_of(repository, commits.get(each), [snapshot])
            )
            earlier = next(later, None)
        if earlier is not None:
            gone.remove(earlier)
        name = held[snapshot].name if snapshot in held else snapshot.hex()
        yield ChangedInput(
            name, None if earlier is None else commits.get(earlier), commits.get(snapshot)
        )
    for snapshot in gone:
        name = held[snapshot].name if snapshot in held else snapshot.hex()
        yield ChangedInput(name, commits.get(snapshot), None)


def _version_of(
    repository: "OpenRepository", commit: ObjectId | None, among: Sequence[ObjectId]
) -> ObjectId | None:
    """The nearest of some snapshots that a commit's own line held before."""
    if commit is None or not among:
        return None
    line = history.first_parents(repository.objects, commit)
    return next((each.snapshot for _, each in line if each.snapshot in among), None)


def _movements(
    repository: "OpenRepository", changed: ChangedInput, progress: Progress
) -> Mapping[str, "TensorDiff"]:
    """How each tensor of an input moved; nothing for one that came or went."""
    if changed.before is None or changed.after is None:
        return {}
    difference = diff(repository, changed.before.hex(), changed.after.hex(), progress)
    return {each.name: each for each in difference.tensors if str(each.change) != "same"}


def _shares(name: str, own: Sequence[Mapping[str, "TensorDiff"]]) -> tuple[float, ...]:
    lengths = [(each[name].l2 or 0.0) if name in each else 0.0 for each in own]
    # What is not finite outweighs any number.
    broken = [float(each[name].nonfinite) if name in each else 0.0 for each in own]
    weights = broken if any(broken) else lengths
    whole = sum(weights)
    return tuple(weight / whole for weight in weights) if whole else ()
