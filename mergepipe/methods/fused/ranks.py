"""Ranks within rows, equal values sharing their mean rank."""

from typing import Any

import numpy as np

from mergepipe.kernels.declared import kernel
from mergepipe.kernels.signatures import float64, int64, uint32, void

D = np.float64


@kernel(void(uint32[:, ::1], int64[:, ::1], float64[:, ::1]))
def mean_ranks(values: Any, order: Any, out: Any) -> None:
    """Fill out with each value's rank in its row, from 0; `order` sorts the rows, in any way."""
    columns = values.shape[1]
    for row in range(values.shape[0]):
        first = 0
        while first < columns:
            own = values[row, order[row, first]]
            end = first + 1
            while end < columns and values[row, order[row, end]] == own:
                end += 1
            for place in range(first, end):
                out[row, order[row, place]] = D(first + end - 1) * D(0.5)
            first = end
