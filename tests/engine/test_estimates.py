"""A coarse layer counts only if it is the one that the profile measured."""

import numpy as np
import pytest

from mergepipe.dtypes import DTYPES
from mergepipe.engine.estimates import _checked
from mergepipe.engine.work import Estimate
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId, digest


def test_another_layer_than_was_measured_is_refused() -> None:
    layer = np.arange(40, dtype=np.uint8)
    estimate = Estimate(
        BlockId(bytes(32)), BlockId(b"b" * 32), 1.0, 0.5, digest(layer.tobytes()), DTYPES["BF16"]
    )
    assert _checked(estimate, layer) is layer
    layer[7] ^= 1
    with pytest.raises(Corruption, match="coarse layer"):
        _checked(estimate, layer)
