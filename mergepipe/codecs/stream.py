"""A rANS stream in a payload: 64 final states, then words; how it begins and must end."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mergepipe.codecs import lanes
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError

STATES_BYTES = 4 * lanes.LANES


def new_states() -> npt.NDArray[np.uint32]:
    """What an encoder starts from."""
    return np.full(lanes.LANES, lanes.INITIAL_STATE, np.uint32)


def states_of(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """What a decoder starts from: `STATES_BYTES` of a payload, copied."""
    states: npt.NDArray[np.uint32] = data.copy().view(np.uint32)
    return states


def words_of(data: npt.NDArray[np.uint8], workspace: Workspace) -> tuple[Any, int]:
    """Words with the slack that `pull_*` needs before them, and the position after the last.

    They are in the workspace: decode them before another stream is opened.
    """
    if data.size % 2:
        raise CodecError("a stream ends with half a word")
    end = lanes.STEP_WORDS + data.size // 2
    words = workspace.array("words", end + lanes.SLACK_WORDS, np.uint16)
    words[lanes.STEP_WORDS : end].view(np.uint8)[:] = data
    return words, end


def check_end(states: npt.NDArray[np.uint32], position: int) -> None:
    """A stream that was decoded rightly ends where it began, with the states it began with."""
    if position != lanes.STEP_WORDS or (states != lanes.INITIAL_STATE).any():
        raise CodecError("a damaged stream")
