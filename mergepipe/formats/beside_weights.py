"""Files of a checkpoint that a merge of it must not have: other weights, and states of a training.

Weights in another format beside those that were merged would be taken for the merged ones by
whoever loads that format first.
"""

from enum import Enum, auto

from mergepipe.formats.huggingface import INDEX_SUFFIX
from mergepipe.formats.weight_files import directory_of, is_checkpoint, is_left_alone

_WEIGHTS = (
    *(".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite"),
    *(".bin.index.json", ".h5.index.json", ".msgpack.index.json"),
)
_STATES = ("trainer_state", "all_results", "train_results", "eval_results", "events.out.tfevents")
# States in binary; `scheduler_config.json` of a pipeline is no such thing, and needed.
_BINARY = ("training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states")


class Stale(Enum):
    """What a file is that a merge leaves behind."""

    OTHER_FORMAT = auto()
    TRAINING = auto()


def stale(path: str) -> Stale | None:
    """What a file is, by its path; None for one that a merge may take over."""
    directory, name = directory_of(path), path.rpartition("/")[2]
    if directory and is_left_alone(directory) is not None:
        return Stale.TRAINING if is_checkpoint(directory) else Stale.OTHER_FORMAT
    if name.startswith(_STATES) or (name.startswith(_BINARY) and not name.endswith(".json")):
        return Stale.TRAINING
    if name.endswith(_WEIGHTS) and not name.endswith(INDEX_SUFFIX):
        return Stale.OTHER_FORMAT
    return None
