"""The lines of a stage from its rows: what each tensor is made of, and by which method."""

from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import is_vocabulary
from mergepipe.methods.parameters import Settings
from mergepipe.methods.passthrough import PASSTHROUGH
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.objects.merging import TermKind
from mergepipe.planner.lines import Line, LineInput
from mergepipe.planner.mergekit.inventory import Held
from mergepipe.planner.mergekit.output_dtype import output_dtype
from mergepipe.planner.mergekit.rows import Cell, Row
from mergepipe.planner.mergekit.schema import Stage
from mergepipe.planner.mergekit.settings import InputLevels, settings_for


class RowLines:
    """Makes the rows of one stage into lines.

    directory  the component that the tensors are of; None: they are no part of the output
    """

    def __init__(self, stage: Stage, method: Method, source: str, directory: str | None) -> None:
        self._stage = stage
        self._method = method
        self._source = source
        self._directory = directory

    def line(self, row: Row) -> Line:
        """The line of a row. Raises MergeInputError naming a tensor that models disagree on."""
        self._check_shapes(row)
        copied = self._copied(row)
        inputs = tuple(self._input(cell, row.base) for cell in row.cells)
        method, settings = self._settings(row)
        base = None if row.base is None or row.base.held is None else _plain(row.base.held)
        # Random masks are drawn by name: those of two stages shall not be the same.
        name = row.name if self._directory is not None else f"{self._stage.name}:{row.name}"
        return Line(
            file=self._directory,
            name=name,
            like=like(row).like,
            dtype=copied.dtype if copied is not None else output_dtype(self._stage, row),
            method=method.variant(settings, base=base is not None),
            settings=settings,
            base=base,
            inputs=inputs if copied is None else (_plain(copied),),
            copied=copied is not None,
        )

    def _settings(self, row: Row) -> tuple[Method, Settings]:
        """How a row is made: by the stage's method, or taken as it is."""
        if row.alone:
            return PASSTHROUGH, PASSTHROUGH.settings({}, [{}])
        settings = settings_for(
            self._method,
            row.shared,
            [InputLevels(cell.inventory.label, cell.name, cell.own) for cell in row.cells],
            row.name,
            row.position,
            self._source,
        )
        return self._method, settings

    def _input(self, cell: Cell, base: Cell | None) -> LineInput:
        held = cell.held
        if held is None:
            return LineInput(cell.inventory.place, None)
        if held.source is None:
            return LineInput(held.adapter, None, TermKind.LOW_RANK, held.factors)
        under = None if base is None else base.held
        if (
            held.factors is not None
            and under is not None
            and under.factors is None
            and under.source == held.source
        ):
            # An adapter on the base itself: the difference is the adapter, and its bytes are few.
            return LineInput(held.adapter, None, TermKind.LOW_RANK, held.factors)
        return _plain(held)

    def _copied(self, row: Row) -> Held | None:
        """The tensor to be copied where there is no arithmetic in its dtype; else None."""
        everyone = [cell for cell in (*row.cells, row.base) if cell is not None and cell.held]
        held = [cell.held for cell in everyone if cell.held is not None]
        odd = [cell for cell, tensor in zip(everyone, held, strict=True)
               if not self._method.accepts(tensor.dtype)]  # fmt: skip
        if not odd:
            return None
        if any(tensor.source != held[0].source or tensor.factors is not None for tensor in held):
            dtype = odd[0].held.dtype if odd[0].held is not None else ""
            raise self.error(
                row,
                f"is {dtype} in {quoted(odd[0].inventory.label)} and not the same in all models; "
                f"method {self._method.name} cannot compute with that",
                "such tensors are taken over only where all models agree",
            )
        return held[0]

    def _check_shapes(self, row: Row) -> None:
        cells = [cell for cell in (row.base, *row.cells) if cell is not None and cell.held]
        first = cells[0]
        for cell in cells[1:]:
            assert cell.held is not None and first.held is not None
            mine, theirs = cell.held.shape, first.held.shape
            if mine == theirs:
                continue
            if is_vocabulary(row.name) and mine[1:] == theirs[1:]:
                raise self.error(
                    row,
                    f"has {mine[0]} tokens in {quoted(cell.inventory.label)}, {theirs[0]} in "
                    f"{quoted(first.inventory.label)}",
                    "say whose vocabulary the result has, such as tokenizer: {source: base}",
                )
            raise self.error(
                row,
                f"has shape {list(mine)} in {quoted(cell.inventory.label)}, {list(theirs)} in "
                f"{quoted(first.inventory.label)}",
                "merge models of one architecture",
            )

    def error(self, row: Row, what: str, hint: str = "") -> MergeInputError:
        """The error about the tensor that a row makes."""
        return MergeInputError(
            f"{self._source}, line {self._stage.place.line}: tensor {quoted(row.name)} {what}", hint
        )


def like(row: Row) -> Held:
    """The tensor whose grid the output has: that of the model whose place it takes."""
    cells = [cell for cell in (row.base, *row.cells) if cell is not None]
    cells.sort(key=lambda cell: cell.inventory is not row.origin[0])
    return next(cell.held for cell in cells if cell.held is not None)


def _plain(held: Held) -> LineInput:
    """A tensor as it stands, with its adapter's factors."""
    return LineInput(held.model, held.source, TermKind.FULL, held.factors)
