"""Tensors of two models brought together by name, and what is refused where names differ.

Names are equal, or one weight's by formats/weight_names.py. What then only one model has is
refused, or left out where the user allows it; another layout of the same weights never is left
out, for that would drop experts or attention without which the rest means nothing.
"""

from collections.abc import Mapping, Sequence

from mergepipe.errors import MergeInputError
from mergepipe.formats.weight_names import other_layout
from mergepipe.names import quoted
from mergepipe.plans.left_out import Kind, LeftOut, of_names

_MOST_NAMED = 3


def check_missing(
    label: str,
    reference: str,
    missing: Sequence[str],
    extra: Sequence[str],
    *,
    stand_in: bool,
    leave_out: bool,
) -> tuple[LeftOut, ...]:
    """What is left out of a model whose names differ from those of the reference.

    missing    that only the reference has
    extra      that only the model has
    stand_in   the base's may stand in for what is missing
    leave_out  what is extra may be left out

    Raises MergeInputError for another layout of the same weights, and for what is not allowed.
    """
    layout = other_layout(extra, missing) if missing and extra else None
    if layout is not None:
        what, fused = layout
        first, second = (label, reference) if fused else (reference, label)
        raise MergeInputError(
            f"{quoted(label)} has {some(extra)}, {quoted(reference)} has {some(missing)}: "
            f"{quoted(first)} keeps its {what} in one tensor, {quoted(second)} in several",
            "load both with one version of transformers and save them again",
        )
    if missing and leave_out and not stand_in:
        raise MergeInputError(
            f"{quoted(label)} lacks {some(missing)}, which {quoted(reference)} has, and there is "
            "no base that could stand in",
            "name one: --base, or base_model in a recipe",
        )
    if missing and not stand_in:
        raise MergeInputError(
            f"{quoted(label)} lacks {some(missing)}, which {quoted(reference)} has",
            "merge models of one architecture, or let missing tensors count as the base's "
            "(--allow-missing, with a base)",
        )
    if extra and not leave_out:
        raise MergeInputError(
            f"{quoted(label)} has {some(extra)}, which {quoted(reference)} lacks",
            "merge models of one architecture, or let such tensors be left out (--allow-missing)",
        )
    return (
        *of_names(Kind.MISSING_TENSORS, label, missing),
        *of_names(Kind.EXTRA_TENSORS, label, extra),
    )


def nothing_in_common(label: str, reference: str) -> MergeInputError:
    """The error for a model that has no tensor of another's, whatever may be left out."""
    return MergeInputError(
        f"{quoted(label)} has none of the tensors of {quoted(reference)}: it would add nothing",
        "merge models of one architecture",
    )


def respelling_note(label: str, reference: str, renamed: Mapping[str, str]) -> str:
    """The words that tell of tensors matched under two names; `renamed`: the model's -> other."""
    first, other = next(iter(renamed.items()))
    more = "" if len(renamed) == 1 else f", and so on for {len(renamed)} tensors"
    return (
        f"names of {quoted(label)} are matched with those of {quoted(reference)}: "
        f"{quoted(first)} is its {quoted(other)}{more}"
    )


def some(names: Sequence[str]) -> str:
    """The first of several tensors by name, and how many more there are."""
    shown = ", ".join(quoted(name) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"tensor {shown}" + (f" and {more} more" if more > 0 else "")
