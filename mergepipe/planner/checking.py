"""Whether the lines of a merge fit each other, their methods, and the tensors they name.

Front ends say what is wrong in the words of what their users wrote; this is what holds for all of
them. No weight is read.
"""

from collections.abc import Sequence

from mergepipe.dtypes import dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.methods.protocol import ARITHMETIC
from mergepipe.names import quoted
from mergepipe.objects.merging import LowRank, TermKind
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectSource, Tensors
from mergepipe.planner.lines import Line, LineInput, Made, Merge
from mergepipe.plans.units import fits


def check_merge(merge: Merge, tensors: Tensors, objects: ObjectSource) -> None:
    """Raise MergeInputError naming line and model for the first thing that does not fit."""
    held = [(line.file, line.name) for line in merge.lines if line.file is not None]
    named = [
        (file.path, entry.name) for file, entry in objects.snapshot(merge.layout).named_tensors()
    ]
    if held != named:
        missing = [name for path, name in named if (path, name) not in set(held)]
        raise MergeInputError(
            "a merge makes the tensors of its layout, in their order"
            + (f": {quoted(missing[0])} is missing" if missing else "")
        )
    for number, line in enumerate(merge.lines):
        _Checking(merge, number, line, tensors).run()


class _Checking:
    def __init__(self, merge: Merge, number: int, line: Line, tensors: Tensors) -> None:
        self._merge = merge
        self._number = number
        self._line = line
        self._tensors = tensors
        self._like = tensors[line.like]

    def run(self) -> None:
        line = self._line
        if line.copied:
            first = next((term for term in line.inputs if term.source is not None), None)
            if first is not None and (isinstance(first.source, Made) or first.factors):
                raise self._error("is to be copied, but from no stored tensor")
        else:
            line.method.check_models(len(line.inputs), base=line.base is not None)
            if len(line.settings.experts) != len(line.inputs):
                raise self._error("has settings for another number of inputs")
        if line.base is not None:
            if line.base.source is None or line.base.kind is not TermKind.FULL:
                raise self._error("has a base that is not a whole tensor")
            self._check(line.base, "the base")
        for place, term in enumerate(line.inputs):
            self._check(term, f"input {place}")

    def _check(self, one: LineInput, place: str) -> None:
        is_made = isinstance(one.source, Made)
        if not is_made and not 0 <= one.model < len(self._merge.models):
            raise self._error(f"takes {place} from a model that the merge does not have")
        who = place if is_made else quoted(self._merge.models[one.model].label)
        if isinstance(one.source, Made):
            self._check_made(one.source, place)
        elif one.source is not None:
            self._check_stored(self._tensors[one.source], who)
        if one.kind is TermKind.DELTA and (is_made or one.factors is not None):
            raise self._error(f"{who} is a stored difference, and nothing more")
        if one.kind is TermKind.LOW_RANK and (one.factors is None or one.source is not None):
            raise self._error(f"{who} is of low rank: it has factors, and no weights")
        if one.factors is not None:
            if one.source is None and one.kind is not TermKind.LOW_RANK:
                raise self._error(f"{who} has factors, and no weights to add them to")
            self._check_factors(one.factors, who)
        without_base = self._line.base is None and not self._line.copied
        if without_base and (one.kind is not TermKind.FULL or one.source is None):
            what = "lacks it" if one.source is None and not one.factors else "holds differences"
            raise self._error(f"{who} {what}, and there is no base", "name one with --base")

    def _check_made(self, made: Made, place: str) -> None:
        if not 0 <= made.line < self._number:
            raise self._error(f"{place} is made by line {made.line}, which does not come before")
        shape = self._tensors[self._merge.lines[made.line].like].shape
        if shape != self._like.shape:
            name = quoted(self._merge.lines[made.line].name)
            raise self._error(f"{place}, {name}, has shape {list(shape)}, not {self._shape()}")

    def _check_stored(self, tensor: Tensor, who: str) -> None:
        if tensor.shape != self._like.shape:
            raise self._error(
                f"in {who} it has shape {list(tensor.shape)}, not {self._shape()}",
                "merge models of one architecture and vocabulary",
            )
        dtype = dtype_of(tensor.dtype)
        if not self._line.copied and not self._line.method.accepts(dtype):
            raise self._error(
                f"in {who} it is {tensor.dtype}, which method {self._line.method.name} cannot "
                "compute with",
                "such tensors are taken over only where all models agree",
            )

    def _check_factors(self, factors: LowRank, who: str) -> None:
        up, down = self._tensors[factors.up], self._tensors[factors.down]
        for factor in (up, down):
            if dtype_of(factor.dtype) not in ARITHMETIC:
                raise self._error(f"{who} has factors of dtype {factor.dtype}")
        if not fits(up, down, self._like):
            raise self._error(
                f"{who} has factors of shape {list(up.shape)} and {list(down.shape)}, which do not "
                f"make {self._shape()}"
            )

    def _shape(self) -> Sequence[int]:
        return list(self._like.shape)

    def _error(self, what: str, hint: str = "") -> MergeInputError:
        return MergeInputError(f"tensor {quoted(self._line.name)} {what}", hint)
