"""Tensors that look wrong: not finite, or no longer like those of the model they came from."""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from mergepipe.catalog.finiteness import NonFinite
from mergepipe.repository.diff import Change, TensorDiff
from mergepipe.reprs import brief

# A fine-tune changes a tensor by some percent of its norm. Two unrelated tensors of equal norm are
# sqrt(2) apart at a cosine of 0, a tensor of zeros is 1 away, one times -6 is 7 away.
MOST_CHANGE = 0.7
LEAST_COSINE = 0.7


class Suspicion(StrEnum):
    """What is wrong with a tensor; scripts see it."""

    NONFINITE = "nonfinite"
    ZERO = "zero"
    UNLIKE = "unlike"
    JUMP = "jump"


@brief
class Suspect(Struct, frozen=True):
    """A tensor that looks wrong. Numbers are None where they do not exist (`TensorDiff`)."""

    kind: Suspicion
    file: str
    tensor: str
    message: str
    nonfinite: int = 0
    relative_l2: float | None = None
    cosine: float | None = None


@brief
class Checked(Struct, frozen=True):
    """What a check found. `against`: the revision that was compared with, if any.

    missing, added  names of tensors that only that one has, or only this one: nothing to compare
    """

    revision: str
    against: str | None
    suspects: tuple[Suspect, ...]
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def suspects(nonfinite: Sequence[NonFinite], diffs: Sequence[TensorDiff]) -> Iterator[Suspect]:
    """Tensors of a model that look wrong, by its own values and by how it differs from another."""
    for values in nonfinite:
        yield Suspect(
            kind=Suspicion.NONFINITE,
            file=values.file,
            tensor=values.tensor,
            message=f"{values.count:,} of {values.elements:,} values are not finite "
            "(NaN or infinite)",
            nonfinite=values.count,
        )
    for tensor in diffs:
        if tensor.change is not Change.CHANGED or tensor.relative_l2 is None:
            continue
        suspect = judge(tensor.name, tensor.path, tensor.relative_l2, tensor.cosine)
        if suspect is not None:
            yield suspect


def judge(name: str, file: str, relative: float, cosine: float | None) -> Suspect | None:
    """Whether a tensor that changed by `relative` of its norm looks wrong.

    `cosine`: of the angle between it and what it was; None if it is all zeros.
    """
    if cosine is None and relative == 1:
        kind, message = Suspicion.ZERO, "all its values are zero"
    elif relative > MOST_CHANGE or (cosine is not None and cosine < LEAST_COSINE):
        kind = Suspicion.UNLIKE
        angle = "" if cosine is None else f", cosine {cosine:.3f}"
        message = f"it changed by {relative:.3g} times its norm{angle}"
    else:
        return None
    return Suspect(
        kind=kind,
        file=file,
        tensor=name,
        message=message,
        nonfinite=0,
        relative_l2=relative,
        cosine=cosine,
    )
