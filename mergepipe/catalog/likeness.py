"""Tensors that look wrong by what profiles and norms tell: no weight is read.

A check reads what differs (`suspects`); commits and plans know nearly as much without.
"""

import contextlib
import math
import struct
from collections.abc import Iterator, Mapping

from mergepipe.catalog.norms import Squares
from mergepipe.catalog.profiles import Profiles
from mergepipe.catalog.suspects import MOST_CHANGE, Suspect, Suspicion, judge
from mergepipe.dtypes import Kind, dtype_of
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import Profile
from mergepipe.objects.records import Commit, Snapshot
from mergepipe.objects.store import ObjectStore

# Of norms of changes against one model, from a version to the next, or to a sibling's: beyond the
# model's own median, as training goes on in all tensors alike (tiny-llama: 1.2 at most).
JUMP = 3.0
# A tensor of zeros is as far from another as that is large; norms are known to some percent.
_NEARLY = 0.05


def suspects_of_commit(
    commit: Commit, objects: ObjectStore, profiles: Profiles, squares: Squares
) -> tuple[Suspect, ...]:
    """Those of a commit's model, beside what it was trained from (else leans on) and its parent's.

    Only tensors of zeros where no profile of the pair is here; nothing where objects are missing
    or damaged.
    """
    under = commit.trained_from or commit.leans_on
    with contextlib.suppress(Corruption):
        snapshot = objects.snapshot(commit.snapshot)
        known = squares.find(commit.snapshot)
        suspects: list[Suspect] = []
        if under is not None:
            base = objects.commit(under).snapshot
            profile = _profile_of(commit, base, objects, profiles)
            before = None
            if profile is not None and commit.parents and commit.parents[0] != under:
                before = _profile_of(objects.commit(commit.parents[0]), base, objects, profiles)
            if profile is not None:
                files = {entry.name: file.path for file, entry in snapshot.named_tensors()}
                suspects += suspects_of(profile, files, known, squares.find(base), before)
                # What it leans on is storage's choice: most of it unlike is another model, not one
                # that went wrong.
                unlike = [one for one in suspects if one.kind is Suspicion.UNLIKE]
                if commit.trained_from is None and 2 * len(unlike) > len(profile.tensors):
                    suspects = [one for one in suspects if one.kind is not Suspicion.UNLIKE]
        named = {one.tensor for one in suspects}
        suspects += (
            one for one in _zeros(snapshot, known or {}, objects) if one.tensor not in named
        )
        return tuple(suspects)
    return ()


def suspects_of(
    profile: Profile,
    files: Mapping[str, str],
    squares: Mapping[ObjectId, float] | None,
    base_squares: Mapping[ObjectId, float] | None,
    before: Profile | None = None,
) -> Iterator[Suspect]:
    """Tensors of a profile's model that are zeroed, unlike their base's, or changed by leaps.

    files         of tensors, by name
    squares       the sums of squares of the model's tensors, base_squares: of its base's; None: not
                  known
    before        the profile of the version before, against the same base
    """
    suspected = set()
    for tensor in profile.tensors:
        energy = _energy(tensor.energies)
        square, base_square = (
            None if known is None else known.get(identity)
            for known, identity in ((squares, tensor.tensor), (base_squares, tensor.base))
        )
        if energy is None or square is None or math.isnan(energy + square):
            continue  # not known, or values that are not finite
        suspect = _judged(tensor.name, files.get(tensor.name, ""), energy, square, base_square)
        if suspect is not None:
            suspected.add(tensor.name)
            yield suspect
    if before is not None and before.base == profile.base:
        leaps = _leaps(profile, before)
        yield from (
            Suspect(
                kind=Suspicion.JUMP,
                file=files.get(name, ""),
                tensor=name,
                message=f"its change is {ratio:.3g} times that of the version before"
                + ("" if others is None else f", where the others' are {others:.3g} times"),
            )
            for name, ratio, others in leaps
            if name not in suspected and name in files
        )


def _judged(
    name: str, file: str, energy: float, square: float, base_square: float | None
) -> Suspect | None:
    """By the energy of a tensor's change, and the squares of what it is and was."""
    if base_square is None:  # of a merge, or from a remote: what it is says nearly as much
        relative = math.sqrt(energy / square) if square else 0.0
        if relative <= MOST_CHANGE:
            return None
        message = f"its change has {relative:.3g} times its own norm"
        return Suspect(kind=Suspicion.UNLIKE, file=file, tensor=name, message=message)
    if not base_square:
        return None  # it began as zeros
    relative, cosine = math.sqrt(energy / base_square), None
    if square:
        cosine = (square + base_square - energy) / (2 * math.sqrt(square * base_square))
        cosine = max(-1.0, min(1.0, cosine))
    elif abs(relative - 1) <= _NEARLY:
        relative = 1.0
    return judge(name, file, relative, cosine)


def _profile_of(
    commit: Commit, base: ObjectId, objects: ObjectStore, profiles: Profiles
) -> Profile | None:
    """The profile of a commit's model against a base, if one is here."""
    for identity in (commit.profile, profiles.find(commit.snapshot, base)):
        if identity is not None and objects.has(identity):
            profile = profiles.load(identity)
            if (profile.snapshot, profile.base) == (commit.snapshot, base):
                return profile
    return None


def _zeros(
    snapshot: Snapshot, squares: Mapping[ObjectId, float], objects: ObjectStore
) -> Iterator[Suspect]:
    """Matrices of zeros; vectors of them, as of biases, are common."""
    for file, entry in snapshot.named_tensors():
        if squares.get(entry.tensor) != 0:
            continue
        tensor = objects.tensor(entry.tensor)
        dtype = dtype_of(tensor.dtype)
        if len(tensor.shape) > 1 and dtype.kind is Kind.FLOAT and dtype.bits >= 8:
            yield Suspect(Suspicion.ZERO, file.path, entry.name, "all its values are zero")


def _leaps(profile: Profile, before: Profile) -> Iterator[tuple[str, float, float | None]]:
    """Tensors whose change is far from what it was: name, ratio of norms, and the median ratio."""
    now, then = (
        {tensor.name: _energy(tensor.energies) for tensor in one.tensors}
        for one in (profile, before)
    )
    ratios = {
        name: math.sqrt((now.get(name, 0.0) or 0.0) / earlier)
        for name, earlier in then.items()
        if earlier and now.get(name, 0.0) is not None
    }
    if not ratios:
        return
    median = sorted(ratios.values())[len(ratios) // 2]
    if median > JUMP:
        yield from ((name, ratio, None) for name, ratio in ratios.items() if ratio > JUMP)
        return
    for name, ratio in ratios.items():
        far = ratio > JUMP and ratio > JUMP * median
        if far or (ratio < 1 / JUMP and ratio < median / JUMP):
            yield name, ratio, median


def _energy(column: bytes) -> float | None:
    """Of all blocks; None where some have no counterpart."""
    total = math.fsum(energy for (energy,) in struct.iter_unpack("<d", column))  # no numpy here
    return None if math.isnan(total) else total
