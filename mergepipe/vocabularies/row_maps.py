"""Where the rows of an embedding that is laid anew come from. Planning makes these: no numpy."""

from array import array
from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct, field

# In place of a model: the row is zero; it is the mean of some rows.
ZERO = -1
MEAN = -2

# A row of a model's tensor, by the model's place among those laid out together.
Row: TypeAlias = tuple[int, int]


class RowMap(Struct, frozen=True):
    """The new rows of one model's embedding.

    models   for each row the model it is copied from, or ZERO, or MEAN
    rows     the row there; with MEAN the place in `means`
    means    rows to take the mean of, which is summed in this order
    padding  further rows, each the mean of all rows before them
    """

    models: "array[int]"
    rows: "array[int]"
    means: tuple[tuple[Row, ...], ...] = field(default=())
    padding: int = 0

    @property
    def count(self) -> int:
        """How many rows there are, padding included."""
        return len(self.models) + self.padding

    def is_run(self, first: int, last: int) -> bool:
        """Whether rows `first` to `last` follow each other in one model."""
        model, row = self.models[first], self.rows[first]
        count = last - first
        return self.models[first:last] == array("i", [model]) * count and self.rows[
            first:last
        ] == array("q", range(row, row + count))

    def highest_rows(self) -> dict[int, int]:
        """For each model that rows come from, the highest of them."""
        highest: dict[int, int] = {}
        pairs = zip(self.models, self.rows, strict=True)
        for model, row in (*(pair for mean in self.means for pair in mean), *pairs):
            if model >= 0 and row > highest.get(model, -1):
                highest[model] = row
        return highest


def own_rows(model: int, rows: int) -> RowMap:
    """A model's own tensor of so many rows, as it stands."""
    return RowMap(array("i", [model]) * rows, array("q", range(rows)))


def row_map(sources: "Sequence[Row | tuple[Row, ...] | None]", padding: int = 0) -> RowMap:
    """A map from what each row is: a row of a model, the rows of a mean, or None for zeros."""
    models, rows = array("i"), array("q")
    means: list[tuple[Row, ...]] = []
    for source in sources:
        if source is None:
            models.append(ZERO)
            rows.append(0)
        elif isinstance(source[0], tuple):
            models.append(MEAN)
            rows.append(len(means))
            means.append(tuple(row for row in source if isinstance(row, tuple)))
        else:
            model, row = source
            assert isinstance(model, int) and isinstance(row, int)
            models.append(model)
            rows.append(row)
    return RowMap(models, rows, tuple(means), padding)
