"""Directories with an adapter_config.json that hold a model as well."""

from mergepipe.errors import MergeInputError
from mergepipe.formats.adapter_config import ADAPTER_CONFIG
from mergepipe.names import quoted
from mergepipe.objects.records import Safetensors, Snapshot

# What the weights of whole models are called; adapters may have files of other names beside them.
_OF_MODELS = ("model", "pytorch_model", "diffusion_pytorch_model", "consolidated")


def check_adapter(snapshot: Snapshot, label: str) -> None:
    """Raise MergeInputError for an adapter_config.json that lies beside the weights of a model."""
    held = {
        file.path: [entry.name for entry in file.content.tensors]
        for file in snapshot.files
        if isinstance(file.content, Safetensors) and "/" not in file.path
    }
    weights = [
        path
        for path, names in held.items()
        if path.startswith(_OF_MODELS) and not any(".lora_" in name for name in names)
    ]
    if not weights:
        return
    files = [ADAPTER_CONFIG, *(path for path in held if path not in weights)]
    raise MergeInputError(
        f"{quoted(label)} has the weights of a model ({weights[0]}) and an {ADAPTER_CONFIG} beside "
        "them, so it is not clear which of the two is meant",
        f"to have the model, take {' and '.join(files)} out of the directory; to have the adapter, "
        "move them into a directory of their own",
    )
